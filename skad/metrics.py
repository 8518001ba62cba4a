"""Metrics of anomaly detection: arrays in, floats out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def pixel_auroc(masks: Iterable[np.ndarray], heatmaps: Iterable[np.ndarray]) -> float:
    """Chance that a defective pixel is called more anomalous than a good one, ties counting half.

    Parameters
    ----------
    masks : iterable of n arrays of shape (H_i, W_i)
        Ground truth; non-zero = defective. Good images have an all-zero mask.
    heatmaps : iterable of n arrays of shape (H_i, W_i)
        Anomaly of each pixel, as ``predict_heatmap`` gives it; higher = more anomalous. Pixels that
        are NaN (outside the crop) are left out.

    Returns
    -------
    float
        In 0..1; NaN if only good or only defective pixels are left.

    Raises
    ------
    ValueError
        If a mask and its heat map differ in shape, or their numbers differ.

    Examples
    --------
    >>> import numpy as np
    >>> pixel_auroc([np.array([[0, 1], [0, 1]])], [np.array([[0.1, 0.9], [0.4, 0.3]])])
    0.75
    """
    good, defective = [], []
    for i, (mask, heatmap) in enumerate(zip(masks, heatmaps, strict=True)):
        mask, heatmap = np.asarray(mask) != 0, np.asarray(heatmap)
        if mask.shape != heatmap.shape:
            raise ValueError(f"mask {i} has shape {mask.shape}, its heat map {heatmap.shape}.")
        seen = ~np.isnan(heatmap)
        good.append(heatmap[seen & ~mask])
        defective.append(heatmap[seen & mask])
    if not good:
        raise ValueError("no masks and heat maps given.")
    return _auroc(np.concatenate(good), np.concatenate(defective))


def discriminability(good: np.ndarray, defective: np.ndarray) -> float:
    """Discriminability index d': distance of two means in pooled standard deviations.

    Parameters
    ----------
    good, defective : array-like of shape (n_good,), (n_defective,)
        Scores of good and of defective images.

    Returns
    -------
    float
        At least 0: |mean difference| / sqrt of the mean of both variances (population variances).
        Infinite if both spreads are zero and the means differ, NaN if they do not.

    Raises
    ------
    ValueError
        If one of them is empty.

    References
    ----------
    Simpson and Fitter, "What is the best index of detectability?", Psychological Bulletin 1973;
    Eq. 12 of ReConPatch.

    Examples
    --------
    >>> discriminability([1.0, 3.0], [6.0, 8.0])
    5.0
    """
    good, defective = np.asarray(good, dtype=float), np.asarray(defective, dtype=float)
    if good.size == 0 or defective.size == 0:
        raise ValueError("d' needs scores of good and of defective images; one of them is empty.")
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((good.var() + defective.var()) / 2)
        return float(np.abs(good.mean() - defective.mean()) / spread)


def _auroc(negative: np.ndarray, positive: np.ndarray) -> float:
    if not len(negative) or not len(positive):
        return float("nan")
    # Searching the few positives among the sorted negatives is cheaper than ranking all together.
    negative, positive = np.sort(negative), np.sort(positive)
    below = np.searchsorted(negative, positive, side="left")
    tied = np.searchsorted(negative, positive, side="right") - below
    return float(np.mean(below + tied / 2) / len(negative))
