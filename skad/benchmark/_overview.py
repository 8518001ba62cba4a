"""All rows of a data set in one table: a line per row, a column per category."""

from __future__ import annotations

from collections.abc import Iterable

from skad.benchmark._published import published
from skad.benchmark._statistics import (
    Result,
    categories_of,
    listed,
    published_mean,
    row_of,
    seed_means,
    table_line,
    values_of,
    with_spread,
)

_CELL = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
_MEANS = {
    "d_prime": "d'",
    "false_alarm_rate": "false alarms",
    "recall": "recall",
    "fit_s": "fit, s",
    "score_ms": "ms per image",
}


def overview(results: list[Result]) -> str:
    """Draw the table; nothing for a single row.

    Parameters
    ----------
    results : list of dict
        Of one data set.

    Returns
    -------
    str
    """
    rows = {key: [r for r in results if row_of(r) == key] for key in map(row_of, results)}
    if len(rows) < 2:
        return ""
    dataset, categories = results[0]["dataset"], categories_of(results)
    common = _common(results)
    paper = any(_published(row) for row in rows.values())
    shown = {name: title for name, title in _CELL.items() if values_of(results, name)}
    lines = [f"## All rows on {dataset}: {' / '.join(shown.values())}\n"]
    if common:
        lines.append(f"Settings changed in all rows: {listed(common)}.\n")
    mean = ["mean"] if len(categories) > 1 else []
    columns = ["row", *categories, *mean, *(["published"] if paper else []), *_MEANS.values()]
    lines += [table_line(columns), table_line(["---"] * len(columns))]
    for row in rows.values():
        cells = [
            _joined(with_spread(values_of(_of(row, category), name), name) for name in _CELL)
            for category in categories
        ]
        if mean:
            cells.append(_joined(with_spread(seed_means(row, name), name) for name in _CELL))
        cells += [_published(row)] if paper else []
        cells += [with_spread(seed_means(row, name), name) for name in _MEANS]
        lines.append(table_line([_label(row[0], common), *cells]))
    return "\n".join([*lines, ""])


def _common(results: list[Result]) -> dict[str, str]:
    """Find the changes that all rows share."""
    shared = set.intersection(*(set(result["changes"].items()) for result in results))
    return {name: value for name, value in results[0]["changes"].items() if (name, value) in shared}


def _label(result: Result, common: dict[str, str]) -> str:
    own = {name: value for name, value in result["changes"].items() if name not in common}
    return "; ".join(filter(None, [result["title"], listed(own)]))


def _of(row: list[Result], category: str) -> list[Result]:
    return [result for result in row if result["category"] == category]


def _published(row: list[Result]) -> str:
    """Means of the published figures."""
    preset, dataset = row[0]["preset"], row[0]["dataset"]
    figures = published(preset, dataset)
    means = [published_mean(figures.get(n, {}), categories_of(row), dataset) for n in _CELL]
    return _joined("" if mean is None else f"{mean:.1f}" for mean in means)


def _joined(cells: Iterable[str]) -> str:
    """Figures of a cell, up to the last that is there."""
    figures = list(cells)
    while figures and not figures[-1]:
        figures.pop()
    return " / ".join(figure or "-" for figure in figures)
