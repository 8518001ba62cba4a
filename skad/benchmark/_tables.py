"""Results as tables: Markdown to read, CSV and JSON for other programs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from skad._common.files import write_text
from skad._common.text import readable
from skad.benchmark._overview import overview
from skad.benchmark._presets import PRESETS
from skad.benchmark._published import OtherMethod, others, published, published_sources
from skad.benchmark._results import read_results
from skad.benchmark._rows import Row
from skad.benchmark._statistics import Result, grouped, key_of, listed, natural, row_of

_NOTE = """\
Percentages. ± is the standard deviation over seeds. In square brackets 95 % intervals, of what other
test images of the same kind might have given: bootstrap; Wilson's for false alarms and recall.
"difference": to the first row, on the same bootstrap samples of the images; bold where the interval
lies on one side of zero. In round brackets the published figure, and ours minus that; a row that has
nothing else is of a method that skad does not have, as a paper prints it.

"found at 5 %": the fraction of the defective images that is found at the highest threshold by which at
most 5 % of the good test images are false alarms. "false alarms", "recall" and "pixel F1" are those of
the detector's own thresholds. Means of pixel figures are over the categories that have masks.
"""


def write_tables(
    out: str | os.PathLike[str], *, order: Sequence[Row] = (), within: Sequence[str] = ()
) -> list[Path]:
    """Write ``results.md``, ``results.csv`` and ``results.json`` from the results of :func:`run`.

    Parameters
    ----------
    out : path-like
        Folder of :func:`run`; all results in it enter, also those of several runs.
    order : sequence of Row, default=()
        Rows that come first, in this order; others follow in that of the papers.
    within : sequence of str, default=()
        Each row is compared with the first that has the same values of these parameters, such as
        ``["backbone", "weights"]``; empty: with the first of all.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ValueError
        If it holds no results, or a file that is no result.
    """
    out = Path(out)
    places = {key_of(row.name, row.changes): place for place, row in enumerate(order)}
    results = sorted(read_results(out), key=lambda result: _place(result, places))
    if not results:
        raise ValueError(f"{os.fspath(out)!r} holds no results: name the folder of a run.")
    texts = {
        "results.md": markdown(results, within),
        "results.csv": _csv(results),
        "results.json": json.dumps([_without_images(r) for r in results], indent=1),
    }
    for name, text in texts.items():
        write_text(out / name, readable(text))
    return [out / name for name in texts]


def _place(result: Result, places: Mapping[Any, int]) -> tuple[Any, ...]:
    """Rows in the given order; then presets in that of the papers, and numbers by their size."""
    known = list(PRESETS)
    name = result["preset"]
    first = places.get(row_of(result), len(places))
    changes = [(n, natural(value)) for n, value in sorted(result["changes"].items())]
    place = known.index(name) if name in known else len(known)
    return result["dataset"], first, place, name, changes, result["category"], result["seed"]


def _without_images(result: Result) -> Result:
    return {name: value for name, value in result.items() if name != "images"}


def markdown(results: list[Result], within: Sequence[str] = ()) -> str:
    """Draw a table of every data set.

    Parameters
    ----------
    results : list of dict
    within : sequence of str, default=()
        As for :func:`write_tables`.

    Returns
    -------
    str
    """
    tables = [
        overview(of_dataset, within, _others(of_dataset))
        for of_dataset in grouped(results, itemgetter("dataset"))
    ]
    return "\n".join(["# Results\n", _NOTE, *tables, *_published(results), _environments(results)])


def _others(results: list[Result]) -> list[OtherMethod]:
    """Methods that skad does not have, in the tables that results of a data set are compared with."""
    names, dataset = {r["preset"] for r in results}, results[0]["dataset"]
    sources = {source for name in names for source in published_sources(name, dataset)}
    return others(sources, dataset, {PRESETS[name].shots for name in names if name in PRESETS})


def _published(results: list[Result]) -> list[str]:
    """Where published figures come from, and what presets leave out; empty if there is neither."""
    lines = []
    for name, dataset in dict.fromkeys((r["preset"], r["dataset"]) for r in results):
        sources = published_sources(name, dataset)
        note = PRESETS[name].note if name in PRESETS else ""
        said = [*(["figures: " + "; ".join(sources)] if sources else []), *([note] if note else [])]
        lines += [f"- {name}, {dataset}: {'. '.join(said)}"] if said else []
    for of_dataset in grouped(results, itemgetter("dataset")):
        lines += [
            f"- {other.name}, {of_dataset[0]['dataset']}: as printed in {'; '.join(other.sources)}"
            for other in _others(of_dataset)
        ]
    return ["## Published\n", *lines, ""] if lines else []


def _environments(results: list[Result]) -> str:
    """Where the results came from, once for each environment."""
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for result in results:
        environment = {n: v for n, v in result["environment"].items() if n != "date"}
        key = json.dumps(environment, sort_keys=True)
        found.setdefault(key, (environment, []))[1].append(result["environment"]["date"])
    lines = ["## Environment\n"]
    for environment, dates in found.values():
        libraries = ", ".join(f"{name} {value}" for name, value in environment.items() if value)
        lines.append(f"- {libraries}; {min(dates)} to {max(dates)}")
    return "\n".join([*lines, ""])


def _csv(results: list[Result]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ("preset", "dataset", "category", "seed")
    writer.writerow([*keys, "changes", "metric", "value", "published_percent"])
    for result in results:
        paper = published(result["preset"], result["dataset"])
        row = [*(result[key] for key in keys), listed(result["changes"])]
        for name, value in result["figures"].items():
            writer.writerow([*row, name, value, paper.get(name, {}).get(result["category"], "")])
    return text.getvalue()
