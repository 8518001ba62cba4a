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
    if regions or heatmaps:
        yield from _in_one_pass(model, paths, heatmaps)
        return
    now = model._as_fitted()
    scores = now.score_samples(list(paths))
    p_values = [None] * len(paths)
    if now.calibration_scores_ is not None:
        p_values = now._p_values_of(scores).tolist()
    for path, score, p_value in zip(paths, scores.tolist(), p_values, strict=True):
        # 0.0 is added because the best score is minus zero.
        yield Finding(path, score + 0.0, p_value, score - now.offset_ >= 0)


def _in_one_pass(model: Any, paths: Sequence[str], heatmaps: bool) -> Iterator[Finding]:
    """Find scores, regions and maps together, and hold one map at a time."""
    with LOADING:
        from skad._scoring.regions import Regions

    for path, found in zip(paths, model.inspect(list(paths)), strict=True):
        yield Finding(
            path,
            found.score + 0.0,
            found.p_value,
            found.verdict > 0,
            shape=found.shape,
            regions=Regions([found.regions], [found.shape]),
            heatmap=found.heatmap() if heatmaps else None,
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
