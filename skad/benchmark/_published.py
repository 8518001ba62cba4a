"""Figures that others have published, for comparison. The files beside this one are read once."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

# Those of the detectors' own papers (`tools/distil_published.py`); those of recipes, with addresses.
_FILES = ("published.csv", "published_recipes.csv")
_Key = tuple[str, str]


def _rows() -> Iterator[dict[str, str]]:
    for name in _FILES:
        text = (files("skad.benchmark") / name).read_text(encoding="utf-8")
        yield from csv.DictReader(text.splitlines())


@cache
def _figures() -> dict[_Key, dict[str, dict[str, float]]]:
    found: dict[_Key, dict[str, dict[str, float]]] = {}
    for row in _rows():
        metrics = found.setdefault((row["preset"], row["dataset"]), {})
        metrics.setdefault(row["metric"], {})[row["category"]] = float(row["value"])
    return found


@cache
def _sources() -> dict[_Key, list[str]]:
    found: dict[_Key, dict[str, None]] = {}
    for row in _rows():
        address = f", {row['url']} ({row['version']})" if row.get("url") else ""
        found.setdefault((row["preset"], row["dataset"]), {})[row["source"] + address] = None
    return {key: list(sources) for key, sources in found.items()}


def published(preset: str, dataset: str) -> dict[str, dict[str, float]]:
    """Look up what a paper prints for a preset.

    Parameters
    ----------
    preset : str
        A name in :data:`PRESETS`.
    dataset : str
        A name in :data:`skad.datasets.DATASETS`, or "mvtec_ad_2".

    Returns
    -------
    dict of str to dict of str to float
        By metric and category ("avg": the mean as printed), percentages; counts are counts. Empty if
        the paper prints none.

    See Also
    --------
    published_sources : Where the figures were read.
    """
    return _figures().get((preset, dataset), {})


def published_sources(preset: str, dataset: str) -> list[str]:
    """Say where the published figures of a preset were read.

    Parameters
    ----------
    preset : str
        A name in :data:`PRESETS`.
    dataset : str
        A name in :data:`skad.datasets.DATASETS`, or "mvtec_ad_2".

    Returns
    -------
    list of str
        Tables, with address and version or commit where they are of other methods than skad's own.
        Empty if there are no figures.

    Examples
    --------
    >>> from skad.benchmark import published_sources
    >>> published_sources("anomalydino-1shot", "mvtec_ad")
    ['AnomalyDINO Table 2, https://arxiv.org/abs/2405.14529 (v3)']
    """
    return _sources().get((preset, dataset), [])


def has_published(preset: str) -> bool:
    """Whether any figures of a preset are known."""
    return any(name == preset for name, _ in _figures())
