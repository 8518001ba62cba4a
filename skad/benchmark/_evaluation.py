"""Figures of a fitted detector on labelled images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from skad.benchmark._intervals import RATE
from skad.metrics import (
    aupro,
    average_precision,
    discriminability,
    f1_optimal_threshold,
    image_auroc,
    pixel_auroc,
    region_report,
    threshold_at_false_alarm_rate,
    threshold_report,
)
from skad.model_selection._scorers import as_mask, list_masks

_IMAGES_AT_ONCE = 16
# Of defects, in MVTec LOCO AD.
_KINDS = ("structural", "logical")


def evaluate(
    detector: Any,
    X: Sequence[Any],
    y: np.ndarray,
    masks: Sequence[Any] | None = None,
    *,
    map_size: int | None = 256,
    return_scores: bool = False,
) -> Any:
    """Measure a fitted detector on labelled images, in one pass over them.

    Parameters
    ----------
    detector : fitted detector
    X : sequence of n images
    y : ndarray of shape (n,)
        +1 good, -1 defective, both present.
    masks : sequence of n paths, arrays or None, default=None
        Ground truth; None for good images. Pixel figures need a mask for every defective one.
    map_size : int or None, default=256
        Of larger heat maps and masks every second, third, ... pixel is used, so that the longer side has
        about this many: a hundred full maps of MVTec AD would take a gigabyte. None: every pixel.
    return_scores : bool, default=False
        Whether to return the scores of the images too.

    Returns
    -------
    figures : dict of str to float
        ``image_auroc``, ``average_precision``, ``recall_at_5_percent`` (at the highest threshold by
        which at most 5 % of the good images are false alarms), ``f1_optimal``,
        ``accuracy_at_f1_optimal``, ``false_positives_at_f1_optimal``,
        ``false_negatives_at_f1_optimal``, ``false_alarm_rate`` and ``recall`` at the detector's
        threshold, ``d_prime``, ``score_ms`` (milliseconds per image, with decoding and heat map), and
        with masks ``pixel_auroc``, ``aupro`` and ``pixel_f1`` (of the pixels of all images above the
        detector's ``heatmap_threshold_``, together). Fractions lie in 0..1.
    scores : ndarray of shape (n,)
        ``score_samples``; only with `return_scores`.

    Raises
    ------
    ValueError
        For labels other than +1 and -1, or a mask whose size differs from its image's.
    """
    start = time.perf_counter()
    masks = None if masks is None else list_masks(masks)
    with_masks = masks is not None and all(
        mask is not None or label == 1 for mask, label in zip(masks, y, strict=True)
    )
    all_scores, maps, truth = [], [], []
    for first in range(0, len(X), _IMAGES_AT_ONCE):
        part = slice(first, first + _IMAGES_AT_ONCE)
        heatmaps, scores = detector.predict_heatmap(X[part], return_scores=True)
        all_scores.append(scores)
        if with_masks and masks is not None:
            for heatmap, mask in zip(heatmaps, masks[part], strict=True):
                step = _step(heatmap.shape, map_size)
                maps.append(heatmap[::step, ::step].copy())
                truth.append(_truth(mask, heatmap.shape)[::step, ::step].copy())
    seconds = time.perf_counter() - start
    scores = np.concatenate(all_scores)
    figures = image_figures(y, scores, detector.offset_)
    figures["score_ms"] = 1000 * seconds / len(X)
    if with_masks:
        figures |= _pixel_figures(truth, maps, detector.heatmap_threshold_)
    return (figures, scores) if return_scores else figures


def image_figures(y: np.ndarray, scores: np.ndarray, offset: float) -> dict[str, float]:
    """Figures that need no heat map; see :func:`evaluate`."""
    y = np.asarray(y)
    best = f1_optimal_threshold(y, scores)
    own = threshold_report(y, scores, offset)
    return {
        "image_auroc": image_auroc(y, scores),
        "average_precision": average_precision(y, scores),
        "recall_at_5_percent": threshold_at_false_alarm_rate(y, scores, RATE).recall,
        "f1_optimal": best.f1,
        "accuracy_at_f1_optimal": best.accuracy,
        "false_positives_at_f1_optimal": best.false_positives,
        "false_negatives_at_f1_optimal": best.false_negatives,
        "false_alarm_rate": own.false_alarm_rate,
        "recall": own.recall,
        "d_prime": discriminability(scores[y == 1], scores[y == -1]),
    }


def kind_figures(y: np.ndarray, scores: np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    """Image AUROC by kind of defect, for MVTec LOCO AD: each kind with all good images.

    Parameters
    ----------
    y : ndarray of shape (n,)
    scores : ndarray of shape (n,)
    kinds : sequence of n str
        Kind of each image.

    Returns
    -------
    dict of str to float
        ``image_auroc_structural``, ``image_auroc_logical`` and ``image_auroc_mean``, the mean of the
        two; empty if the images are not of these two kinds of defects.
    """
    found = np.asarray(kinds)
    if set(found[np.asarray(y) == -1]) != {f"{kind}_anomalies" for kind in _KINDS}:
        return {}
    figures = {}
    for kind in _KINDS:
        chosen = (np.asarray(y) == 1) | (found == f"{kind}_anomalies")
        figures[f"image_auroc_{kind}"] = image_auroc(y[chosen], scores[chosen])
    return {**figures, "image_auroc_mean": float(np.mean(list(figures.values())))}


def _pixel_figures(
    truth: list[np.ndarray], maps: list[np.ndarray], threshold: float
) -> dict[str, float]:
    # Pixels outside a crop are NaN: they are left out of all three figures.
    seen = (mask & ~np.isnan(heatmap) for mask, heatmap in zip(truth, maps, strict=True))
    return {
        "pixel_auroc": pixel_auroc(truth, maps),
        "aupro": aupro(truth, maps),
        "pixel_f1": region_report(seen, [heatmap > threshold for heatmap in maps]).f1,
    }


def _step(shape: tuple[int, ...], map_size: int | None) -> int:
    return 1 if map_size is None else max(1, round(max(shape) / map_size))


def _truth(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    truth = as_mask(mask, shape)
    if truth.shape != shape:
        raise ValueError(
            f"mask {mask!r} has shape {truth.shape}, its image {shape}: both must have the same size."
        )
    return truth
