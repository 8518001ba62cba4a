"""Figures from the papers, for comparison. The file beside this one is read once."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files


@cache
def _figures() -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    text = (files("skad.benchmark") / "published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        metrics = found.setdefault((row["preset"], row["dataset"]), {})
        metrics.setdefault(row["metric"], {})[row["category"]] = float(row["value"])
    return found


def published(preset: str, dataset: str) -> dict[str, dict[str, float]]:
    """Look up what a paper prints for a preset.

    Parameters
    ----------
    preset : str
        A name in :data:`PRESETS`.
    dataset : str
        A name in :data:`skad.datasets.DATASETS`.

    Returns
    -------
    dict of str to dict of str to float
        By metric and category ("avg": the mean as printed), percentages; counts are counts. Empty if
        the paper prints none.
    """
    return _figures().get((preset, dataset), {})
