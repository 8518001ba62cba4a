"""What scoring gives: anomaly scores, higher = more anomalous, as in the papers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class BatchScores(NamedTuple):
    """Anomaly scores of a batch of images."""

    image: np.ndarray
    """(B,) float64, one score per image."""
    grid: np.ndarray | None
    """(B, h, w) float64, one score per patch; NaN where a patch lies in padding. None: not asked for."""


class TrainingScores(NamedTuple):
    """Anomaly scores of the training images, or of the n that were held out."""

    out_of_sample: np.ndarray | None
    """(n,) float64, each image scored by a model that did not see it; None if that is impossible."""
    in_sample: np.ndarray | None
    """Float64, of all training images, as new images are scored; None unless `contamination` is a
    number, which asks for a percentile of them."""
    peaks: np.ndarray
    """(n,) float64, the highest value of each image's map, out of sample where that is possible."""
    grids: np.ndarray | None = None
    """(n, h, w), one score per patch; NaN in padding. None unless they were asked for."""
    rows: np.ndarray | None = None
    """(n,) int, where only a part of the training images was held out: which ones these n are."""
