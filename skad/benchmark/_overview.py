"""All rows on a data set in one table: the mean over the categories first, then each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skad.benchmark._intervals import (
    Interval,
    of_mean,
    percentiles,
    resampled,
    same_images,
    wilson,
)
from skad.benchmark._published import OtherMethod, published
from skad.benchmark._statistics import (
    Result,
    categories_of,
    grouped,
    listed,
    ours,
    published_mean,
    row_of,
    seed_means,
    table_line,
    values_of,
    with_spread,
)

# In this order; the files hold more.
_COLUMNS = {
    "image_auroc": "image AUROC",
    "image_auroc_structural": "structural",
    "image_auroc_logical": "logical",
    "image_auroc_mean": "mean of both",
    "average_precision": "average precision",
    "recall_at_5_percent": "found at 5 %",
    "false_alarm_rate": "false alarms",
    "recall": "recall",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "pixel_f1": "pixel F1",
    "f1_optimal": "best F1",
    "accuracy_at_f1_optimal": "accuracy there",
    "d_prime": "d'",
    "fit_s": "fit, s",
    "score_ms": "ms per image",
}
_WITH_DIFFERENCE = ("image_auroc", "average_precision", "recall_at_5_percent")
# Fractions of the test images with this label.
_LABELS = {"false_alarm_rate": 1, "recall": -1}
# Of interest beside published figures only.
_OF_PAPERS = ("f1_optimal", "accuracy_at_f1_optimal")


def overview(
    results: list[Result], within: Sequence[str] = (), others: Sequence[OtherMethod] = ()
) -> str:
    """Draw the table.

    Parameters
    ----------
    results : list of dict
        Of one data set, in the order of the rows.
    within : sequence of str, default=()
        A row is compared with the first that has the same values of these parameters; empty: with the
        first of all.
    others : sequence of OtherMethod, default=()
        Shown with their published figures below the first rows, those over all categories.

    Returns
    -------
    str
    """
    rows = [_Row(of_row, _samples(of_row)) for of_row in grouped(results, row_of)]
    categories, common = categories_of(results), _common(results)
    published_lines = _lines_of(others, categories, results)
    labels = _labels(rows, common, named=bool(published_lines))
    groups = [categories, *([c] for c in categories)] if len(categories) > 1 else [categories]
    lines = []
    for group in groups:
        for label, row in zip(labels, rows, strict=True):
            first = _first_like(row, rows, within)
            part = row.on(group)
            if part.results:
                cells = _cells(part, None if first is row else first.on(group))
                lines.append([_title(part, group), label, *cells])
        if group is groups[0]:
            title = _title(rows[0].on(group), group)
            lines += [[title, *line] for line in published_lines]
    return "\n".join([*_heading(rows, common), *_drawn(lines), ""])


def _samples(results: list[Result]) -> dict[str, dict[str, np.ndarray]]:
    return {part[0]["category"]: resampled(part) for part in grouped(results, _category)}


def _category(result: Result) -> str:
    return str(result["category"])


@dataclass(frozen=True)
class _Row:
    """Results of a row, of some categories and all seeds."""

    results: list[Result]
    samples: dict[str, dict[str, np.ndarray]]  # by category and figure; empty where unknown

    def on(self, categories: list[str]) -> _Row:
        return _Row([r for r in self.results if r["category"] in categories], self.samples)

    def by_category(self) -> dict[str, list[Result]]:
        return {part[0]["category"]: part for part in grouped(self.results, _category)}

    def interval(self, name: str) -> Interval | None:
        """95 % interval of the mean over the categories; None where images are not known."""
        parts = self.by_category()
        if not all(self.samples[category] for category in parts):
            return None
        if name in _WITH_DIFFERENCE:
            return percentiles(np.mean([self.samples[c][name] for c in parts], axis=0))
        if name in _LABELS:
            fractions = [float(np.mean(values_of(part, name))) for part in parts.values()]
            labels = [part[0]["images"]["labels"] for part in parts.values()]
            counts = [of_category.count(_LABELS[name]) for of_category in labels]
            return of_mean(fractions, list(map(wilson, fractions, counts)))
        return None

    def paper(self, name: str) -> float | None:
        """Look up the published figure, or the mean of several."""
        dataset = self.results[0]["dataset"]
        figures = published(self.results[0]["preset"], dataset).get(name, {})
        having = categories_of(r for r in self.results if name in r["figures"])
        return published_mean(figures, having, dataset)


def _first_like(row: _Row, rows: list[_Row], within: Sequence[str]) -> _Row:
    def values(one: _Row) -> list[str | None]:
        return [one.results[0]["changes"].get(name) for name in within]

    return next(other for other in rows if values(other) == values(row))


# ---- cells ----------------------------------------------------------------------------------------


def _headers() -> list[str]:
    headers = ["category", "row"]
    for name, title in _COLUMNS.items():
        headers += [title, "difference"] if name in _WITH_DIFFERENCE else [title]
    return headers


def _title(row: _Row, group: list[str]) -> str:
    """Name a category, or say of how many the mean is."""
    if len(group) == 1:
        return group[0]
    n = len(row.by_category())
    return "**mean**" if n == len(group) else f"**mean of {n} of {len(group)}**"


def _cells(row: _Row, first: _Row | None) -> list[str]:
    cells = []
    for name in _COLUMNS:
        cells.append(_figure(row, name))
        if name in _WITH_DIFFERENCE:
            cells.append(_difference(row, first, name) if first else "")
    return cells


def _lines_of(
    others: Sequence[OtherMethod], categories: list[str], results: list[Result]
) -> list[list[str]]:
    """Label and cells of methods that have a published figure where ours is known."""
    lines = []
    for other in others:
        cells: list[str] = []
        for name in _COLUMNS:
            paper = published_mean(other.figures.get(name, {}), categories, results[0]["dataset"])
            is_shown = paper is not None and values_of(results, name)
            cells += [f"({paper:.1f})" if is_shown else ""]
            cells += [""] if name in _WITH_DIFFERENCE else []
        if any(cells):
            lines.append([f"{other.name}, as {other.paper} prints it", *cells])
    return lines


def _figure(row: _Row, name: str) -> str:
    """Mean, spread over seeds, interval, and what the paper prints."""
    values, paper = seed_means(row.results, name), row.paper(name)
    text = with_spread(values, name)
    if not text or (name in _OF_PAPERS and paper is None):
        return ""
    interval = row.interval(name)
    if interval is not None:
        text += " [{:.1f}, {:.1f}]".format(*(_shown(limit) for limit in interval))
    if paper is not None:
        text += f" ({paper:.1f}, {ours(values, name) - paper:+.1f})"
    return text


def _difference(row: _Row, first: _Row, name: str) -> str:
    """Difference on the categories that both have, bold if its interval is on one side of zero."""
    one, other = row.by_category(), first.by_category()
    shared = [c for c in one if c in other and _is_paired(row, first, c)]
    if not shared:
        return ""
    means = [np.mean(values_of(one[c], name)) - np.mean(values_of(other[c], name)) for c in shared]
    replicates = [row.samples[c][name] - first.samples[c][name] for c in shared]
    low, high = percentiles(np.mean(replicates, axis=0))
    text = f"{100 * np.mean(means):+.1f}"
    text = f"**{text}**" if low > 0 or high < 0 else text
    text += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text if len(shared) == len(one) else f"{text}, {len(shared)} of {len(one)}"


def _is_paired(row: _Row, first: _Row, category: str) -> bool:
    """Whether both were measured on the same images."""
    return bool(
        row.samples[category]
        and first.samples[category]
        and same_images(row.by_category()[category][0], first.by_category()[category][0])
    )


# ---- layout ---------------------------------------------------------------------------------------


def _drawn(lines: list[list[str]]) -> list[str]:
    """Draw a table without the columns that are empty."""
    headers = _headers()
    kept = [i for i in range(len(headers)) if any(line[i] for line in lines)]
    drawn = [headers, ["---"] * len(headers), *lines]
    return [table_line(line[i] for i in kept) for line in drawn]


def _heading(rows: list[_Row], common: dict[str, str]) -> list[str]:
    first = rows[0].results[0]
    names = {(row.results[0]["title"], row.results[0]["preset"]) for row in rows}
    title = f"{first['title']} ({first['preset']})" if len(names) == 1 else "All rows"
    lines = [f"## {title} on {first['dataset']}\n"]
    if common:
        everywhere = " in all rows" if len(rows) > 1 else ""
        lines.append(f"Settings changed{everywhere}: {listed(common)}.\n")
    return lines


def _common(results: list[Result]) -> dict[str, str]:
    """Find the changes that all rows share."""
    shared = set.intersection(*(set(result["changes"].items()) for result in results))
    return {name: value for name, value in results[0]["changes"].items() if (name, value) in shared}


def _labels(rows: list[_Row], common: dict[str, str], named: bool) -> list[str]:
    """Name rows by what they do not share; a single one needs no name, unless others are beside it."""
    if len(rows) == 1:
        return [rows[0].results[0]["title"] if named else ""]
    firsts = [row.results[0] for row in rows]
    titles = {first["title"] for first in firsts}
    labels = []
    for first in firsts:
        own = {name: v for name, v in first["changes"].items() if name not in common}
        title = first["title"] if len(titles) > 1 or not own else ""
        labels.append("; ".join(filter(None, [title, listed(own)])))
    return labels


def _shown(limit: float) -> float:
    """Turn a fraction into a percentage to print: rounding may leave a minus before zero."""
    return round(100 * limit, 1) + 0.0
