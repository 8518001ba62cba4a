"""A report on a detector: figures, histogram and the worst mistakes in one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from skad._base import BaseDetector
from skad._common.labels import read_labels
from skad._common.progress import _StageLines
from skad._images import one_call, refuse_single
from skad._sklearn_compat import _num_samples, _safe_indexing
from skad.inspection._case_pictures import draw_case, draw_scale
from skad.inspection._checks import check_heatmap, check_number
from skad.inspection._drawing import as_png, check_matplotlib
from skad.inspection._fitted import check_images, decode_once, map_images, open_images
from skad.inspection._page import Case, Page, Section, write_page
from skad.inspection._panels import colour_range
from skad.inspection._report_content import (
    Findings,
    choose,
    list_parameters,
    list_regions,
    list_versions,
    name_file,
    summarise,
    verdict,
)
from skad.inspection._score_histogram import ScoreHistogramDisplay
from skad.inspection._seams import Seams, seams_of
from skad.inspection._shown import Shown
from skad.metrics import PixelCounts
from skad.model_selection._scorers import as_mask, list_masks
from skad.model_selection._unwrap import Unwrapped, unwrap_estimator


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
    seams: bool = False,
) -> Path:
    """Write an HTML report on a fitted detector and a set of images.

    The report is one self-contained file, without scripts. It shows a table of figures, the histogram
    of image scores, the worst false alarms and missed defects with their heat maps (or the closest
    calls if there are none), the parameters and the versions. Without `y`, it shows the most anomalous
    images.

    Parameters
    ----------
    estimator : fitted detector, or Pipeline that ends with one
    X : images
        n images in any form that the detector takes. Not the training images: their scores are too
        good.
    y : array-like of shape (n,), default=None
        +1 good, -1 defective.
    masks : sequence of n arrays of shape (H_i, W_i), paths or None, default=None
        Ground truth: non-zero = defective; None for a good image. Adds the pixel metrics, and
        outlines in the pictures.
    path : path-like, default="report.html"
        The file to write, in an existing folder. An existing file is replaced once the new one is
        complete.
    title : str, default=None
        Title of the page; None: the class of the detector.
    n_examples : int, default=6
        Maximum number of images per section; at least 1.
    seams : bool, default=False
        Draw where tiles meet into the heat maps, for a detector with `tiles`.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    NotFittedError, TypeError
        If the estimator is not fitted, or is not a skad detector.
    ValueError
        If labels or masks do not match the images, if labels are not +1 or -1, if a defective image
        has no mask, if images cannot be used, or if there are no tiles whose seams could be shown.
    FileNotFoundError
        If the folder of `path` or the file of a mask does not exist.
    ImportError
        If matplotlib is missing.

    Notes
    -----
    Memory does not grow with the number of images: only a few heat maps are held at a time. Images
    that are shown are scored a second time at the end, unless there are so few that all may be shown.
    Pixel AUROC and AUPRO come from counts in bins 0.05 % wide and agree with
    :func:`skad.metrics.pixel_auroc` and :func:`skad.metrics.aupro` to about four digits. A
    ``verbose`` detector reports progress.

    Examples
    --------
    >>> from skad.inspection import report
    >>> report(det, X_test, y_test, masks, "line3.html")  # doctest: +SKIP
    PosixPath('line3.html')
    """
    path = Path(path)
    _check_path(path)
    refuse_single(X)
    unwrapped, n = _open_estimator(estimator), _num_samples(X)
    labels = None if y is None else read_labels(y, n)
    masks = None if masks is None else list_masks(masks)
    _check_masks(masks, labels, n)
    if n_examples < 1:
        raise ValueError(f"n_examples={n_examples} must be at least 1.")
    _check_images(unwrapped, X)
    if seams:
        seams_of(unwrapped.detector, (1, 1))  # refuses a detector without tiles
    all_shown = n <= (n_examples if labels is None else 2 * n_examples)
    scores, counts, shown = _score(unwrapped, X, n, masks, all_shown, seams)
    found = Findings(unwrapped.detector, scores, labels, counts)
    sections, scale = _draw_sections(unwrapped, X, masks, found, n_examples, shown, seams)
    name = type(unwrapped.detector).__name__
    histogram = ScoreHistogramDisplay.from_predictions(
        labels, scores, threshold=unwrapped.detector.offset_
    )
    page = Page(
        title=f"{name}: report" if title is None else title,
        subtitle=f"{name}, fitted on {unwrapped.detector.n_images_} good images. "
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
            f"path={str(path)!r}: the folder {str(path.parent)!r} does not exist. Create it first."
        )
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder: name a file in it.")


def _open_estimator(estimator: Any) -> Unwrapped:
    unwrapped = unwrap_estimator(estimator)
    if not isinstance(unwrapped.detector, BaseDetector):
        raise TypeError(
            f"{type(unwrapped.detector).__name__} is not a skad detector: pass one, or a Pipeline "
            "that ends with one."
        )
    return unwrapped


def _check_masks(masks: Sequence[Any] | None, labels: np.ndarray | None, n: int) -> None:
    if masks is None:
        return
    check_number("masks", masks, n)
    for i, mask in enumerate(masks):
        if mask is None and labels is not None and labels[i] == -1:
            raise ValueError(f"image {i} is labelled -1 (defective) but has no mask: pass one.")
        if isinstance(mask, str | os.PathLike) and not os.path.exists(mask):
            raise FileNotFoundError(f"mask {i}: the file {os.fspath(mask)!r} does not exist.")


def _check_images(unwrapped: Unwrapped, X: Any) -> None:
    """Check all images before the first is scored: errors name them by their index in X."""
    if not unwrapped.steps:
        check_images(unwrapped.detector, open_images(unwrapped.detector, X))


def _score(
    unwrapped: Unwrapped,
    X: Any,
    n: int,
    masks: Sequence[Any] | None,
    all_shown: bool,
    seams: bool,
) -> tuple[np.ndarray, PixelCounts | None, list[Shown]]:
    """Score all images, count pixels if there are masks, and keep all pictures if all may be shown."""
    scores, counts = np.empty(n), None if masks is None else PixelCounts()
    shown: list[Shown] = []
    progress = _StageLines(unwrapped.detector, "report", n)
    for where, images in unwrapped.portions(X, n):
        if all_shown:
            decoded, images = decode_once(unwrapped.detector, images)
        if masks is None and not all_shown:
            scores[where] = unwrapped.detector.score_samples(images)
        else:
            heatmaps, scores[where], regions = map_images(unwrapped.detector, images)
            truth = _read_masks(masks, heatmaps, where.start)
            if counts is not None:
                counts.update(truth, heatmaps)
            if all_shown:
                lines = _seams(unwrapped, heatmaps, seams)
                shown += map(Shown.of, decoded, heatmaps, truth, regions, lines)
        progress.update(where.stop)
    progress.finish()
    return scores, counts, shown


def _draw_sections(
    unwrapped: Unwrapped,
    X: Any,
    masks: Sequence[Any] | None,
    found: Findings,
    n_examples: int,
    seen: list[Shown],
    seams: bool,
) -> tuple[list[Section], bytes]:
    """Choose images, compute their heat maps unless `seen`, and draw them on one colour scale."""
    choices = choose(found, n_examples)
    indices = np.concatenate([choice.indices for choice in choices])
    chosen = _safe_indexing(X, indices)
    if seen:
        shown = [seen[i] for i in indices]
    else:
        truth = None if masks is None else [masks[i] for i in indices]
        shown = _show(unwrapped, chosen, truth, seams)
    threshold = unwrapped.detector.heatmap_threshold_
    low, high = colour_range(shown, threshold)

    def draw_cases() -> Iterator[Case]:
        for k, (i, picture) in enumerate(zip(indices, shown, strict=True)):
            png = as_png(draw_case(picture, threshold, low, high))
            name, regions = f"image {i}{name_file(chosen, k)}", list_regions(picture.regions)
            yield Case(png, name, verdict(found, i), regions)

    cases = draw_cases()
    sections = [
        Section(choice.title, choice.text, list(islice(cases, len(choice.indices))))
        for choice in choices
    ]
    return sections, as_png(draw_scale(threshold, low, high))


def _show(unwrapped: Unwrapped, X: Any, masks: Sequence[Any] | None, seams: bool) -> list[Shown]:
    """Compute the heat maps of images, a few at a time, and keep what is drawn of them."""
    shown: list[Shown] = []
    for where, images in unwrapped.portions(X, _num_samples(X)):
        decoded, images = decode_once(unwrapped.detector, images)
        heatmaps, _, regions = map_images(unwrapped.detector, images)
        truth = _read_masks(masks, heatmaps, where.start)
        shown += map(
            Shown.of, decoded, heatmaps, truth, regions, _seams(unwrapped, heatmaps, seams)
        )
    return shown


def _seams(unwrapped: Unwrapped, heatmaps: Sequence[np.ndarray], seams: bool) -> list[Seams | None]:
    """Tell where the tiles of each image meet, if that is to be shown."""
    if not seams:
        return [None] * len(heatmaps)
    return [seams_of(unwrapped.detector, heatmap.shape) for heatmap in heatmaps]


def _read_masks(
    masks: Sequence[Any] | None, heatmaps: Sequence[np.ndarray], start: int
) -> list[np.ndarray | None]:
    """Read the masks of heat maps, of which the first is that of image `start`, and check both."""
    read: list[np.ndarray | None] = []
    for i, heatmap in enumerate(heatmaps, start):
        mask = None if masks is None else as_mask(masks[i], heatmap.shape, f"mask {i}")
        check_heatmap(i, heatmap, mask)
        read.append(mask)
    return read
