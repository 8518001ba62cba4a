"""Results as tables: Markdown to read, CSV and JSON for other programs."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from skad._common.files import write_text
from skad._common.text import readable
from skad.benchmark._overview import overview
from skad.benchmark._presets import PRESETS
from skad.benchmark._published import published
from skad.benchmark._results import read_results
from skad.benchmark._statistics import (
    Result,
    categories_of,
    listed,
    natural,
    ours,
    published_mean,
    row_of,
    seed_means,
    table_line,
    values_of,
    with_spread,
)

# Shown in the Markdown table, in this order; the files hold all.
_SHOWN = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "f1_optimal": "best F1",
    "accuracy_at_f1_optimal": "accuracy there",
    "false_alarm_rate": "false alarms",
    "recall": "recall",
    "fit_s": "fit, s",
    "score_ms": "ms per image",
}
_NOTE = """\
Percentages; in brackets the published figure, and ours minus that. ± is the standard deviation over
seeds. False alarms and recall are those of the detector's own threshold. Means of pixel AUROC and AUPRO
are over the categories that have masks.
"""


def write_tables(out: str | os.PathLike[str]) -> list[Path]:
    """Write ``results.md``, ``results.csv`` and ``results.json`` from the results of :func:`run`.

    Parameters
    ----------
    out : path-like
        Folder of :func:`run`; all results in it enter, also those of several runs.

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
    results = sorted(read_results(out), key=_place)
    if not results:
        raise ValueError(f"{os.fspath(out)!r} holds no results: name the folder of a run.")
    texts = {
        "results.md": markdown(results),
        "results.csv": _csv(results),
        "results.json": json.dumps(results, indent=1),
    }
    for name, text in texts.items():
        write_text(out / name, readable(text))
    return [out / name for name in texts]


def _place(result: Result) -> tuple[Any, ...]:
    """Presets in the order of the papers, then numbers by their size."""
    known = list(PRESETS)
    name = result["preset"]
    changes = [(n, natural(value)) for n, value in sorted(result["changes"].items())]
    place = known.index(name) if name in known else len(known)
    return result["dataset"], place, name, changes, result["category"], result["seed"]


def markdown(results: list[Result]) -> str:
    """Draw an overview of every data set, and a table for every row and data set.

    Parameters
    ----------
    results : list of dict

    Returns
    -------
    str
    """
    datasets = _grouped(results, lambda result: result["dataset"])
    tables = [table for group in datasets for table in [overview(group)] if table]
    tables += [_table(rows) for group in datasets for rows in _grouped(group, row_of)]
    return "\n".join(["# Results\n", _NOTE, *tables, _environments(results)])


def _grouped(results: list[Result], key: Any) -> list[list[Result]]:
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return list(groups.values())


def _table(results: list[Result]) -> str:
    """Categories of a row, with the published figures beside them."""
    preset, dataset = results[0]["preset"], results[0]["dataset"]
    paper = published(preset, dataset)
    categories = categories_of(results)
    shown = {name: title for name, title in _SHOWN.items() if values_of(results, name)}
    lines = [f"## {results[0]['title']} ({preset}) on {dataset}\n"]
    if results[0]["changes"]:
        lines.append(f"Settings changed: {listed(results[0]['changes'])}.\n")
    lines += [table_line(["category", *shown.values()]), table_line(["---"] * (1 + len(shown)))]
    for category in categories:
        of_category = [result for result in results if result["category"] == category]
        cells = [_cell(values_of(of_category, n), n, paper.get(n, {}).get(category)) for n in shown]
        lines.append(table_line([category, *cells]))
    if len(categories) > 1:
        cells = [
            _cell(
                seed_means(results, name),
                name,
                published_mean(paper.get(name, {}), _having(results, name), dataset),
            )
            for name in shown
        ]
        lines.append(table_line(["**mean**", *cells]))
    return "\n".join([*lines, ""])


def _having(results: list[Result], name: str) -> list[str]:
    return categories_of(result for result in results if name in result["figures"])


def _cell(values: list[float], name: str, paper: float | None) -> str:
    text = with_spread(values, name)
    if not text or paper is None:
        return text
    return f"{text} ({paper:.1f}, {ours(values, name) - paper:+.1f})"


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
