"""Scoring images one after the other: an image that cannot be scored stops none of the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skad._common.forks import LOADING
from skad.cli._messages import one_line

if TYPE_CHECKING:
    import numpy as np

# Images that are handed over together: enough to decode ahead and to fill batches.
PORTION = 32


@dataclass(frozen=True)
class Finding:
    """What is known of an image that was scored."""

    path: str
    score: float
    """Higher = more normal, as ``score_samples`` gives it."""
    p_value: float | None
    """None: the detector has no calibration scores."""
    good: bool
    shape: tuple[int, int] | None = None
    """Height and width; of images with a map."""
    regions: Any = None
    """:class:`skad.Regions` of this image alone; of images with a map."""
    heatmap: np.ndarray | None = None
    """(H, W), in the coordinates of the image; only where it was asked for."""
    undrawn: str | None = None
    """Why there is no picture, of images that a worker of a cluster should have drawn."""

    @property
    def verdict(self) -> str:
        """How a file calls it."""
        return "good" if self.good else "defective"


@dataclass(frozen=True)
class Failure:
    """An image that could not be scored."""

    path: str
    error: Exception


def score_images(
    model: Any, paths: Sequence[str], *, regions: bool = False, heatmaps: bool = False
) -> Iterator[Finding | Failure]:
    """Score images, in their order.

    Parameters
    ----------
    model : fitted detector, or an exported one
    paths : sequence of str
    regions, heatmaps : bool, default=False
        Whether they are wanted, which takes longer.

    Yields
    ------
    Finding or Failure
        One for each image, as soon as its portion allows.
    """
    for start in range(0, len(paths), PORTION):
        yield from _score_portion(model, paths[start : start + PORTION], regions, heatmaps)


def _score_portion(
    model: Any, paths: Sequence[str], regions: bool, heatmaps: bool
) -> Iterator[Finding | Failure]:
    """Score some images together; after an error, those that remain one by one."""
    done = 0
    try:
        for finding in _findings(model, paths, regions, heatmaps):
            yield finding
            done += 1
    except Exception as error:
        if len(paths) == 1:
            yield Failure(paths[0], error)
            return
        for path in paths[done:]:
            yield from _score_portion(model, [path], regions, heatmaps)


def _findings(model: Any, paths: Sequence[str], regions: bool, heatmaps: bool) -> Iterator[Finding]:
    if not (regions or heatmaps):
        scores = model.score_samples(list(paths))
        for path, score, p_value in zip(
            paths, scores, _p_values(model, paths, scores), strict=True
        ):
            yield _finding(model, path, score, p_value)
    elif hasattr(model, "_iter_maps"):
        yield from _in_one_pass(model, paths, heatmaps)
    else:
        # One at a time: maps are as large as their images.
        for path in paths:
            yield _by_public_methods(model, path, heatmaps)


def _p_values(model: Any, paths: Sequence[str], scores: np.ndarray) -> Sequence[float | None]:
    """P-values of images that were scored; an exported detector has to score them once more."""
    if model.calibration_scores_ is None:
        return [None] * len(paths)
    if hasattr(model, "_p_values_of"):
        return model._p_values_of(scores)
    return model.anomaly_p_value(list(paths))


def _finding(model: Any, path: str, score: float, p_value: float | None, **of_map: Any) -> Finding:
    good = bool(score - model.offset_ >= 0)
    known = None if p_value is None else float(p_value)
    # 0.0 is added because the best score is minus zero.
    return Finding(path, float(score) + 0.0, known, good, **of_map)


def _in_one_pass(model: Any, paths: Sequence[str], heatmaps: bool) -> Iterator[Finding]:
    """Find scores, regions and maps together, and hold one map at a time."""
    with LOADING:
        import numpy as np

        from skad._scoring.regions import Regions

    now = model._as_fitted()
    for path, found in zip(paths, now._iter_maps(list(paths)), strict=True):
        score = np.array([-found.score])
        shape = found.frame.shape
        yield _finding(
            now,
            path,
            score[0],
            _p_values(now, [path], score)[0],
            shape=shape,
            regions=Regions([now._regions_of(found)], [shape]),
            heatmap=found.heatmap() if heatmaps else None,
        )


def _by_public_methods(model: Any, path: str, heatmaps: bool) -> Finding:
    """Ask an exported detector, which has the public methods alone."""
    regions = model.predict_regions([path])
    heatmap = None
    if heatmaps:
        (heatmap,), scores = model.predict_heatmap([path], return_scores=True)
    else:
        scores = model.score_samples([path])
    return _finding(
        model,
        path,
        scores[0],
        _p_values(model, [path], scores)[0],
        shape=tuple(regions.shapes[0]),
        regions=regions,
        heatmap=heatmap,
    )


def reason(failure: Failure) -> str:
    """Say what is wrong with an image, in one line."""
    text = one_line(failure.error)
    # Errors of skad's name an image by its place in a list, which nobody sees here.
    prefix, found, rest = text.partition(f"({failure.path!r}): ")
    return rest if found and prefix.startswith("image ") else text


def explain(failure: Failure) -> str:
    """Name the image and what is wrong with it, in one line."""
    return f"{os.fspath(failure.path)!r}: {reason(failure)}"
