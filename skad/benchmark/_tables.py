"""Results as tables: Markdown to read, CSV and JSON to go on with."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from skad._system.files import write_text
from skad._validation.text import readable
from skad.benchmark._published import published
from skad.benchmark._runner import read_result

# Shown in the Markdown table, in this order; the files hold all.
_SHOWN = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "f1_optimal": "best F1",
    "accuracy_at_f1_optimal": "accuracy there",
}
_OWN = {"false_alarm_rate": "false alarms", "recall": "found", "fit_s": "fit, s", "score_ms": "ms"}
_COUNTS = {
    *("false_positives_at_f1_optimal", "false_negatives_at_f1_optimal", "fit_s", "score_ms"),
    *("d_prime", "n_train", "n_test"),
}
# Several sources print fewer categories than the data set has; a mean needs all of them.
_N_CATEGORIES = {"mvtec_ad": 15, "visa": 12, "aptos": 1, "oct2017": 1, "isic2018": 1}

Result = dict[str, Any]


def write_tables(out: str | os.PathLike[str]) -> list[Path]:
    """Write ``results.md``, ``results.csv`` and ``results.json`` from what a run has left.

    Parameters
    ----------
    out : path-like
        Folder of :func:`run`.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ValueError
        If there is no result in it, or a file that is none.
    """
    out = Path(out)
    results = [read_result(file) for file in sorted(out.glob("*/*.json"))]
    if not results:
        raise ValueError(f"{os.fspath(out)!r} holds no results.")
    texts = {
        "results.md": markdown(results),
        "results.csv": _csv(results),
        "results.json": json.dumps(results, indent=1),
    }
    for name, text in texts.items():
        write_text(out / name, readable(text))
    return [out / name for name in texts]


def markdown(results: list[Result]) -> str:
    """Draw a table for every preset and data set, figures in percent, published ones beside ours.

    Parameters
    ----------
    results : list of dict

    Returns
    -------
    str
    """
    groups = dict.fromkeys((result["preset"], result["dataset"]) for result in results)
    tables = [
        _table([r for r in results if (r["preset"], r["dataset"]) == group]) for group in groups
    ]
    note = (
        "Percentages; in brackets what the paper prints, and ours minus that. False alarms and share "
        "found are those of the detector's own threshold.\n"
    )
    return "\n".join(["# Results\n", note, *tables, _environments(results)])


def _table(results: list[Result]) -> str:
    preset, dataset = results[0]["preset"], results[0]["dataset"]
    paper = published(preset, dataset)
    categories = list(dict.fromkeys(result["category"] for result in results))
    shown = {
        name: title
        for name, title in {**_SHOWN, **_OWN}.items()
        if any(name in result["figures"] for result in results)
    }
    lines = [f"## {results[0]['title']} ({preset}) on {dataset}\n"]
    changes = results[0]["changes"]
    if changes:
        changed = ", ".join(f"{name}={value}" for name, value in changes.items())
        lines.append(f"Settings changed: {changed}.\n")
    lines += [_row(["category", *shown.values()]), _row(["---"] * (1 + len(shown)))]
    for category in categories:
        of_category = [result for result in results if result["category"] == category]
        cells = [_cell(_values(of_category, n), n, paper.get(n, {}).get(category)) for n in shown]
        lines.append(_row([category, *cells]))
    if len(categories) > 1:
        means = {name: _means(results, categories, name) for name in shown}
        cells = [
            _cell(means[name], name, _published_mean(paper.get(name, {}), categories, dataset))
            for name in shown
        ]
        lines.append(_row(["**mean**", *cells]))
    return "\n".join([*lines, ""])


def _values(results: Iterable[Result], name: str) -> list[float]:
    return [r["figures"][name] for r in results if name in r["figures"]]


def _means(results: list[Result], categories: list[str], name: str) -> list[float]:
    """Mean over categories, one for every draw that all of them have."""
    draws = sorted({result["draw"] for result in results})
    rows = [
        _values((r for r in results if r["draw"] == draw and r["category"] in categories), name)
        for draw in draws
    ]
    return [float(np.mean(row)) for row in rows if len(row) == len(categories)]


def _published_mean(figures: dict[str, float], categories: list[str], dataset: str) -> float | None:
    """Mean of the published figures of these categories; the printed mean where that is all there is."""
    if all(category in figures for category in categories):
        return float(np.mean([figures[category] for category in categories]))
    return figures.get("avg") if len(categories) == _N_CATEGORIES.get(dataset) else None


def _cell(values: list[float], name: str, paper: float | None) -> str:
    if not values or np.isnan(values).all():
        return ""
    scale = 1 if name in _COUNTS else 100
    ours = scale * float(np.mean(values))
    text = f"{ours:.0f}" if name in ("fit_s", "score_ms") else f"{ours:.1f}"
    if len(values) > 1:
        text += f" ± {scale * np.std(values, ddof=1):.1f}"
    return text if paper is None else f"{text} ({paper:.1f}, {ours - paper:+.1f})"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


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
    writer.writerow(
        ["preset", "dataset", "category", "draw", "metric", "value", "published_percent"]
    )
    for result in results:
        paper = published(result["preset"], result["dataset"])
        keys = [result[name] for name in ("preset", "dataset", "category", "draw")]
        for name, value in result["figures"].items():
            writer.writerow([*keys, name, value, paper.get(name, {}).get(result["category"], "")])
    return text.getvalue()
