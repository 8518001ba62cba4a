"""What scoring gives: anomaly scores, higher = more anomalous, as in the papers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skad._images import Frame, Geometry
from skad._scoring.large_maps import LargeMap, summarise_map
from skad._scoring.maps import fill_padding, on_image, summarise, without_padding


class BatchScores(NamedTuple):
    """Anomaly scores of a batch of images."""

    image: Any
    """(B,) float64, one score per image. None: the highest values of the maps of `grid`."""
    grid: Any
    """(B, h, w) float64, one score per patch; NaN where a patch lies in padding; a list of B such grids
    where images have tiles. None: not asked for."""


class TrainingScores(NamedTuple):
    """Anomaly scores of the training images, or of the n that were held out."""

    out_of_sample: np.ndarray | None
    """(n,) float64, each image scored by a model that did not see it; None if that is impossible."""
    in_sample: np.ndarray | None
    """Float64, of all training images, as new images are scored; None unless `contamination` is a
    number, which asks for a percentile of them."""
    peaks: np.ndarray
    """(n,) float64, the highest value of each image's map, out of sample where that is possible."""
    grids: Any = None
    """(n, h, w), or a list of n grids (h, w) where images have tiles: one score per patch; NaN in
    padding. None unless they were asked for."""
    rows: np.ndarray | None = None
    """(n,) int, where only a part of the training images was held out: which ones these n are."""
    trimmed: np.ndarray | None = None
    """Which of these n never entered the bank; they do not calibrate thresholds. None: none."""

    def calibrating(self) -> np.ndarray | None:
        """Return the scores that thresholds follow from, (n,); NaN for images that were trimmed."""
        if self.out_of_sample is None or self.trimmed is None:
            return self.out_of_sample
        scores = self.out_of_sample.copy()
        scores[self.trimmed] = np.nan
        return scores

    def of_training(self, n_images: int) -> np.ndarray:
        """Out-of-sample normality of every training image, (n_images,); NaN where there is none."""
        scores = np.full(n_images, np.nan)
        if self.out_of_sample is not None:
            scores[slice(None) if self.rows is None else self.rows] = -self.out_of_sample
        return scores


class MappedImage(NamedTuple):
    """An image with its score and its map."""

    canvas: np.ndarray | LargeMap
    """Float64, the map on the canvas that the network sees; NaN where it does not count."""
    geometry: Geometry
    """How the image lies on it."""
    frame: Frame
    """What is known of the image beside its pixels."""
    score: float
    """Anomaly score of the image."""
    peak: float
    """Highest value of the map."""

    @classmethod
    def of(
        cls, canvas: np.ndarray | LargeMap, geometry: Geometry, frame: Frame, score: float
    ) -> MappedImage:
        """Leave out of a map what does not count."""
        if isinstance(canvas, LargeMap):
            return cls(canvas, geometry, frame, score, summarise_map(canvas, "map"))
        pixels = geometry.pixels(*frame)
        peak = summarise(on_image(canvas, pixels), "map")
        return cls(without_padding(canvas, pixels), geometry, frame, score, peak)

    def array(self) -> np.ndarray:
        """Return the map on the canvas as one array, however large it is: (H, W) float64."""
        if not isinstance(self.canvas, LargeMap):
            return self.canvas
        whole = np.empty(self.canvas.shape)
        for block in self.canvas.blocks():
            whole[block.rows, block.columns] = block.values
        return whole

    def heatmap(self) -> np.ndarray:
        """Interpolate the map at the pixels of the image: (H, W) float32, NaN where it was not seen."""
        (height, width), mask = self.frame
        if isinstance(self.canvas, LargeMap):
            found = self.geometry.restore_bands(self.canvas.bands(), height, width)
            if mask is not None:
                # Beside the region lies what does not count: it may weigh in, but never exceed.
                np.minimum(found, np.float32(self.peak), out=found)
                found[~mask.inside] = np.nan
            return found
        canvas = self.canvas.astype(np.float32)
        if mask is None:
            return self.geometry.restore(canvas, height, width)
        found = self.geometry.restore(fill_padding(canvas), height, width)
        found[~mask.inside] = np.nan
        return found
