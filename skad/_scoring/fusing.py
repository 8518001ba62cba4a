"""Scores and maps of several detectors as one, by modified z-scores (ReConPatch, Eq. 11); NumPy alone.

What an ensemble and an exported file of one have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from skad._images import Frame, Geometry, as_size
from skad._scoring.large_maps import FusedMap, Window, held_if_small, summarise_map
from skad._scoring.maps import ImageScore
from skad._scoring.results import MappedImage

BETA = 1.4826  # 1 / Phi^-1(3/4): beta MAD estimates a standard deviation


class RobustScale(NamedTuple):
    """Centre and spread of one member's scores on good images."""

    median: float
    spread: float

    def z(self, scores: Any) -> Any:
        """Return modified z-scores (Eq. 11)."""
        return (scores - self.median) / self.spread


def robust_scale(scores: np.ndarray) -> RobustScale:
    """Measure the median of scores and beta times their median absolute deviation.

    Parameters
    ----------
    scores : ndarray of any shape
        Out-of-sample scores of good images or patches; NaN are left out.

    Returns
    -------
    RobustScale
        The spread is never 0. Where more than half of the scores are equal, the mean absolute deviation
        takes the place of the median one (times sqrt(pi / 2), which also estimates a standard
        deviation); where all are equal, the median itself does, or 1 if that is 0.

    References
    ----------
    Hyun et al., "ReConPatch", WACV 2024, Eq. 11; Iglewicz and Hoaglin, "How to Detect and Handle
    Outliers", 1993, for the case of many equal scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    scores = scores[~np.isnan(scores)]
    median = float(np.median(scores))
    deviations = np.abs(scores - median)
    # A deviation that is only rounding would make a z-score of any size.
    smallest = 1e-9 * max(abs(median), float(deviations.max()))
    candidates = (
        BETA * float(np.median(deviations)),
        (np.pi / 2) ** 0.5 * float(deviations.mean()),
        abs(median),
    )
    return RobustScale(median, next((c for c in candidates if c > smallest), 1.0))


class Scored(NamedTuple):
    """One image as the members score it."""

    frame: Frame
    images: list[float]
    """None in place of each where only maps were asked for."""
    grids: list[np.ndarray]
    """None in place of each where only image scores were asked for."""


class View(NamedTuple):
    """What fusing needs of a member."""

    geometry: Geometry
    window: Callable[..., Window]
    """Maps a grid of patch scores to what renders rows and columns of its map; not smoothed if
    ``smooth=False``."""
    patch: RobustScale
    image: RobustScale


class Fusing(NamedTuple):
    """How the scores of members become one."""

    members: Sequence[View]
    shares_grid: bool
    """Whether a patch is the same piece of an image to all members."""
    level: str
    """"map" or "image"."""
    image_score: ImageScore

    def mapped(self, scored: Scored) -> MappedImage:
        """Score an image, and render its fused map."""
        canvas = held_if_small(self._overlay(scored))
        if self.level == "image":
            score = self.mean_score(scored.images)
        elif self.image_score != "patch":
            score = summarise_map(canvas, self.image_score)
        elif self.shares_grid:
            score = float(np.nanmax(np.mean(self._z(scored), axis=0)))
        else:
            score = summarise_map(self._overlay(scored, smooth=False), "map")
        geometry, peak = self._geometry_of(scored.frame), summarise_map(canvas, "map")
        return MappedImage(canvas, geometry, scored.frame, score, peak)

    def mean_score(self, images: list[float]) -> float:
        """Average the members' image scores (Eq. 11)."""
        return float(np.mean([m.image.z(s) for m, s in zip(self.members, images, strict=True)]))

    def _z(self, scored: Scored) -> list[np.ndarray]:
        return [m.patch.z(grid) for m, grid in zip(self.members, scored.grids, strict=True)]

    def _overlay(self, scored: Scored, *, smooth: bool = True) -> FusedMap:
        """Average the members' maps: on their common canvas, else on one that shows the whole image."""
        shape, whole = scored.frame.shape, self._geometry_of(scored.frame)
        canvas, windows = whole.canvas_of(*shape), []
        for member, grid in zip(self.members, self._z(scored), strict=True):
            window = member.window(grid, smooth=smooth)
            if not self.shares_grid:
                window = partial(member.geometry.restore_block, window, shape, canvas)
            windows.append(window)
        return FusedMap(windows, canvas, whole.pixels(*scored.frame))

    def _geometry_of(self, frame: Frame) -> Geometry:
        """How an image lies on the canvas of its fused map."""
        if self.shares_grid:
            return self.members[0].geometry
        sizes = [member.geometry.canvas_of(*frame.shape) for member in self.members]
        return Geometry("squash", as_size(np.max(sizes, axis=0)))
