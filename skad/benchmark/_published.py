"""Figures that others have published, for comparison. The files beside this one are read once."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# Those of the detectors' own papers (`tools/distil_published.py`); those of recipes, with addresses.
_FILES = ("published.csv", "published_recipes.csv")
# Those of methods that skad does not have, in the same tables.
_OTHERS = "published_others.csv"
_Key = tuple[str, str]


@dataclass(frozen=True)
class OtherMethod:
    """What a paper prints for a method whose code skad does not have.

    Parameters
    ----------
    name : str
        As the paper writes it.
    paper : str
        Which paper; several print other figures for one method.
    sources : tuple of str
        Its tables.
    figures : dict of str to dict of str to float
        As of :func:`published`.
    """

    name: str
    paper: str
    sources: tuple[str, ...]
    figures: dict[str, dict[str, float]]


def _rows() -> Iterator[dict[str, str]]:
    for name in _FILES:
        yield from _lines(name)


def _lines(name: str) -> Iterator[dict[str, str]]:
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


@cache
def _other_lines() -> tuple[dict[str, str], ...]:
    return tuple(_lines(_OTHERS))


def others(sources: Iterable[str], dataset: str, shots: Iterable[int | None]) -> list[OtherMethod]:
    """Look up what tables print for methods that skad does not have.

    Parameters
    ----------
    sources : iterable of str
        Tables, as :func:`published_sources` names them.
    dataset : str
    shots : iterable of int or None
        Numbers of good images that the rows beside them learn from; None: all.

    Returns
    -------
    list of OtherMethod
        In the order of the papers and their tables.
    """
    sources, wanted = set(sources), {"" if n is None else str(n) for n in shots}
    figures: dict[_Key, dict[str, dict[str, float]]] = {}
    tables: dict[_Key, dict[str, None]] = {}
    for line in _other_lines():
        is_wanted = line["source"] in sources and line["dataset"] == dataset
        if is_wanted and (line["shots"] in wanted or not line["shots"]):
            key = line["method"], line["source"].split()[0]
            tables.setdefault(key, {})[line["source"]] = None
            metrics = figures.setdefault(key, {})
            metrics.setdefault(line["metric"], {})[line["category"]] = float(line["value"])
    return [OtherMethod(*key, tuple(tables[key]), figures[key]) for key in figures]


def methods_in(source: str) -> list[str]:
    """Name the methods that skad does not have in a table.

    Parameters
    ----------
    source : str
        As :func:`published_sources` names it.

    Returns
    -------
    list of str
    """
    return list(dict.fromkeys(r["method"] for r in _other_lines() if r["source"] == source))
