"""Results put together: by row, over categories, over seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

# Shown as they are; all others are fractions, shown in percent.
_COUNTS = {
    *("false_positives_at_f1_optimal", "false_negatives_at_f1_optimal", "fit_s", "score_ms"),
    *("d_prime", "n_train", "n_test"),
}
_DECIMALS = {"fit_s": 0, "score_ms": 0, "d_prime": 2}
# Several sources print fewer categories than the data set has; a mean needs all of them.
_N_CATEGORIES = {
    "mvtec_ad": 15,
    "mvtec_loco": 5,
    "visa": 12,
    "aptos": 1,
    "oct2017": 1,
    "isic2018": 1,
}

Result = dict[str, Any]


def row_of(result: Result) -> tuple[Any, ...]:
    """Name the row of a result: what stays the same over categories and seeds."""
    return key_of(result["preset"], result["changes"])


def key_of(preset: str, changes: Mapping[str, str]) -> tuple[Any, ...]:
    """Name a row by its preset and changes."""
    return preset, tuple(sorted(changes.items()))


def grouped(results: Iterable[Result], key: Callable[[Result], Any]) -> list[list[Result]]:
    """Put results with the same key together, in the order in which keys first come."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return list(groups.values())


def categories_of(results: Iterable[Result]) -> list[str]:
    """Categories of results, in their order."""
    return list(dict.fromkeys(result["category"] for result in results))


def values_of(results: Iterable[Result], name: str) -> list[float]:
    """Collect a figure from the results that have it."""
    return [r["figures"][name] for r in results if name in r["figures"]]


def seed_means(results: list[Result], name: str) -> list[float]:
    """Average a figure over the categories that have it, for every seed that they all have.

    Parameters
    ----------
    results : list of dict
        Of one row and data set.
    name : str
        Of the figure.

    Returns
    -------
    list of float
    """
    having = [result for result in results if name in result["figures"]]
    n = len(categories_of(having))
    seeds = sorted({result["seed"] for result in having})
    columns = [values_of((r for r in having if r["seed"] == seed), name) for seed in seeds]
    return [float(np.mean(column)) for column in columns if len(column) == n]


def published_mean(
    figures: Mapping[str, float], categories: list[str], dataset: str
) -> float | None:
    """Mean of the published figures of these categories; the printed mean where that is all there is."""
    if categories and all(category in figures for category in categories):
        return float(np.mean([figures[category] for category in categories]))
    return figures.get("avg") if len(categories) == _N_CATEGORIES.get(dataset) else None


def ours(values: list[float], name: str) -> float:
    """Mean in the unit of the tables."""
    return _scale(name) * float(np.mean(values))


def with_spread(values: list[float], name: str) -> str:
    """Mean and, of several values, standard deviation; empty if there are none."""
    if not values or np.isnan(values).all():
        return ""
    decimals = _DECIMALS.get(name, 1)
    text = f"{ours(values, name):.{decimals}f}"
    if len(values) > 1:
        text += f" ± {_scale(name) * np.std(values, ddof=1):.{decimals}f}"
    return text


def _scale(name: str) -> int:
    return 1 if name in _COUNTS else 100


def listed(changes: Mapping[str, str]) -> str:
    """Name changed parameters with their values."""
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def natural(text: str) -> list[tuple[bool, float, str]]:
    """Key that sorts numbers in texts by their size."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(i % 2 == 0, float(part) if i % 2 else 0.0, part) for i, part in enumerate(parts)]


def table_line(cells: Iterable[str]) -> str:
    """Draw a line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
