"""A report on a detector: figures, histogram and the worst mistakes as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from skad._callbacks import _StageLines
from skad._contract import BaseDetector
from skad._images import one_call, refuse_single
from skad._route import Route, route_to_detector
from skad._scorers import as_mask, list_masks
from skad._sklearn_compat import _num_samples, _safe_indexing
from skad._validation.labels import read_labels
from skad.inspection._case_pictures import draw_case, draw_scale
from skad.inspection._drawing import as_png, check_matplotlib
from skad.inspection._fitted import check_heatmap, check_number, decode_once, image_source
from skad.inspection._heatmaps import colour_range
from skad.inspection._page import Case, Page, Section, write_page
from skad.inspection._report_content import (
    Findings,
    choose,
    list_parameters,
    list_versions,
    name_file,
    summarise,
    verdict,
)
from skad.inspection._score_histogram import ScoreHistogramDisplay
from skad.inspection._shown import Shown
from skad.metrics import PixelCounts


@one_call()
def report(
    estimator: Any,
    X: Any,
    y: Any = None,
    masks: Sequence[Any] | None = None,
    path: str | os.PathLike[str] = "report.html",
    *,
    title: str | None = None,
    n_examples: int = 6,
) -> Path:
    """Write what a detector makes of images into one HTML file.

    The file holds everything: pictures are inside, nothing is loaded from elsewhere, no script runs.
    It shows a table of figures, the histogram of scores, the worst false alarms and the worst missed
    defects with their heat maps (the closest calls, where there is no mistake), the parameters and
    versions. Without `y`: the most anomalous images.

    Parameters
    ----------
    estimator : fitted detector, or Pipeline that ends with one
    X : images
        n of them, in any form that the detector takes; not those learned from.
    y : array-like of shape (n,), default=None
        +1 good, -1 defective.
    masks : sequence of n arrays of shape (H_i, W_i), paths or None, default=None
        Ground truth; non-zero = defective, None: nothing is (a good image). For the figures of
        pixels, and outlined in the pictures.
    path : path-like, default="report.html"
        The file to write, in a folder that exists. It is replaced as a whole, when all is done.
    title : str, default=None
        None: the class of the detector.
    n_examples : int, default=6
        Images of each kind that are shown at most, at least 1.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    NotFittedError, TypeError
        If the estimator is not fitted, or no detector of skad.
    ValueError
        If labels or masks do not match the images, for labels other than +1 and -1, for a defective
        image without mask, or for images that cannot be used.
    FileNotFoundError
        If the folder of `path`, or the file of a mask, does not exist.
    ImportError
        Without matplotlib.

    Notes
    -----
    Works for any number of images: a few heat maps are in memory at a time. Images that are shown are
    scored once more in the end, unless there are so few that all of them may be. Pixel AUROC and AUPRO
    come from counts in bins 0.05 % wide and agree with :func:`skad.metrics.pixel_auroc` and
    :func:`skad.metrics.aupro` to about four digits.
    A detector that is ``verbose`` reports progress.

    Examples
    --------
    >>> from skad.inspection import report
    >>> report(det, X_test, y_test, masks, "line3.html")  # doctest: +SKIP
    PosixPath('line3.html')
    """
    path = Path(path)
    _check_path(path)
    refuse_single(X)
    route, n = _open_route(estimator), _num_samples(X)
    labels = None if y is None else read_labels(y, n)
    masks = None if masks is None else list_masks(masks)
    _check_masks(masks, labels, n)
    if n_examples < 1:
        raise ValueError(f"n_examples={n_examples} must be at least 1.")
    _check_images(route, X)
    all_shown = n <= (n_examples if labels is None else 2 * n_examples)
    scores, counts, shown = _score(route, X, n, masks, all_shown)
    found = Findings(route.detector, scores, labels, counts)
    sections, scale = _draw_sections(route, X, masks, found, n_examples, shown)
    name = type(route.detector).__name__
    histogram = ScoreHistogramDisplay.from_predictions(
        labels, scores, threshold=route.detector.offset_
    )
    page = Page(
        title=f"{name}: report" if title is None else title,
        subtitle=f"{name}, fitted on {route.detector.n_images_} good images. "
        f"Written on {datetime.now().astimezone():%d %B %Y, %H:%M %Z}.",
        summary=summarise(found),
        histogram=as_png(histogram.figure_, dpi=130),
        scale=scale,
        has_truth=masks is not None,
        sections=sections,
        parameters=list_parameters(estimator),
        versions=list_versions(),
    )
    write_page(page, path)
    return path


def _check_path(path: Path) -> None:
    check_matplotlib()
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"path={str(path)!r}: there is no folder {str(path.parent)!r}. Make it first."
        )
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder: name a file in it.")


def _open_route(estimator: Any) -> Route:
    route = route_to_detector(estimator)
    if not isinstance(route.detector, BaseDetector):
        raise TypeError(f"{type(route.detector).__name__} is no detector of skad.")
    return route


def _check_masks(masks: Sequence[Any] | None, labels: np.ndarray | None, n: int) -> None:
    if masks is None:
        return
    check_number("masks", masks, n)
    for i, mask in enumerate(masks):
        if mask is None and labels is not None and labels[i] == -1:
            raise ValueError(f"image {i} is labelled -1 (defective) but has no mask.")
        if isinstance(mask, str | os.PathLike) and not os.path.exists(mask):
            raise FileNotFoundError(f"mask {i}: there is no file {os.fspath(mask)!r}.")


def _check_images(route: Route, X: Any) -> None:
    """Look over all images before the first is scored; a portion of X would miscount its own."""
    if not route.steps:
        opener = getattr(route.detector, "estimators_", [route.detector])[0]
        image_source(route.detector, X).check(opener._smallest_side())


def _score(
    route: Route, X: Any, n: int, masks: Sequence[Any] | None, all_shown: bool
) -> tuple[np.ndarray, PixelCounts | None, list[Shown]]:
    """Score all images; with masks, count their pixels too. If all may be shown, keep what is seen."""
    scores, counts = np.empty(n), None if masks is None else PixelCounts()
    shown: list[Shown] = []
    progress = _StageLines(route.detector, "report", n)
    for rows, portion in route.portions(X, n):
        images: list[np.ndarray] = []
        if all_shown:
            images, portion = decode_once(route.detector, portion)
        if masks is None and not all_shown:
            scores[rows] = route.detector.score_samples(portion)
        else:
            heatmaps, scores[rows] = route.detector.predict_heatmap(portion, return_scores=True)
            for i, heatmap in zip(range(rows.start, rows.stop), heatmaps, strict=True):
                mask = None if masks is None else as_mask(masks[i], heatmap.shape, f"mask {i}")
                check_heatmap(i, heatmap, mask)
                if counts is not None and mask is not None:
                    counts.update([mask], [heatmap])
                if all_shown:
                    shown.append(Shown.of(images[i - rows.start], heatmap, mask))
        progress.update(rows.stop)
    progress.finish()
    return scores, counts, shown


def _draw_sections(
    route: Route,
    X: Any,
    masks: Sequence[Any] | None,
    found: Findings,
    n_examples: int,
    seen: list[Shown],
) -> tuple[list[Section], bytes]:
    """Choose images, make their heat maps unless they were seen, and draw them on one colour scale."""
    choices = choose(found, n_examples)
    rows = np.concatenate([choice.rows for choice in choices])
    chosen = _safe_indexing(X, rows)
    if seen:
        shown = [seen[i] for i in rows]
    else:
        shown = list(_show(route, chosen, None if masks is None else [masks[i] for i in rows]))
    threshold = route.detector.heatmap_threshold_
    low, high = colour_range(shown, threshold)

    def draw_cases() -> Iterator[Case]:
        for k, (i, picture) in enumerate(zip(rows, shown, strict=True)):
            png = as_png(draw_case(picture, threshold, low, high))
            yield Case(png, f"image {i}{name_file(chosen, k)}", verdict(found, i))

    cases = draw_cases()
    sections = [
        Section(choice.title, choice.text, [next(cases) for _ in choice.rows]) for choice in choices
    ]
    return sections, as_png(draw_scale(threshold, low, high))


def _show(route: Route, X: Any, masks: Sequence[Any] | None) -> Iterator[Shown]:
    """Make heat maps of images, a few at a time, and keep what can be seen of them."""
    for rows, seen in route.portions(X, _num_samples(X)):
        images, seen = decode_once(route.detector, seen)
        heatmaps = route.detector.predict_heatmap(seen)
        for i, image, heatmap in zip(count(rows.start), images, heatmaps, strict=False):
            mask = None if masks is None else as_mask(masks[i], heatmap.shape, f"mask {i}")
            yield Shown.of(image, heatmap, mask)
