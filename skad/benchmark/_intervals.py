"""95 % intervals: how figures might have come out with other test images of the same kind."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skad.metrics._thresholds import n_allowed

Interval = tuple[float, float]

RATE = 0.05  # of false alarms, at which the found defects are counted
_REPLICATES = 2000
_Z = 1.959963984540054  # 97.5 % of a normal distribution lie below it


def wilson(fraction: float, n: int) -> Interval:
    """Take Wilson's interval of a fraction of n images.

    Parameters
    ----------
    fraction : float
        In 0..1. May be the mean of several detectors on the same images.
    n : int
        At least 1.

    Returns
    -------
    low, high : float

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    shrunk = (fraction + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    spread = fraction * (1 - fraction) / n + _Z**2 / (4 * n**2)
    half = _Z * float(np.sqrt(spread)) / (1 + _Z**2 / n)
    return max(0.0, shrunk - half), min(1.0, shrunk + half)


def of_mean(fractions: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Combine the intervals of independent fractions to that of their mean.

    Parameters
    ----------
    fractions : sequence of n floats
    intervals : sequence of n (low, high)

    Returns
    -------
    low, high : float

    References
    ----------
    G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures: a general
    approach", Statistics in Medicine 2008.
    """
    values, limits = np.asarray(fractions), np.asarray(intervals)
    below, above = np.linalg.norm(limits - values[:, None], axis=0) / len(values)
    mean = float(values.mean())
    return mean - float(below), mean + float(above)


def percentiles(replicates: np.ndarray) -> Interval:
    """Take the interval that holds the middle 95 % of bootstrap replicates."""
    low, high = np.percentile(replicates, [2.5, 97.5])
    return float(low), float(high)


def resampled(results: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Measure again on bootstrap samples of the test images, the same for all rows of a table.

    Good and defective images are drawn separately, as many as there are. Two rows that were measured
    on the same images get the same draws, so that differences of their replicates are paired.

    Parameters
    ----------
    results : sequence of dict
        Of one row and category, one for each seed; at least one.

    Returns
    -------
    dict of str to ndarray of shape (2000,)
        Figures by name, each replicate the mean over the seeds. Empty if a result holds no scores, or
        if the results are of different images.
    """
    first = results[0]
    if not all(same_images(result, first) for result in results):
        return {}
    y = np.asarray(first["images"]["labels"])
    weights = draws(y, zlib.crc32(os.fsencode(first["category"])))
    of_seeds = [
        weighted_figures(y, np.asarray(result["images"]["scores"]), weights) for result in results
    ]
    return {name: np.mean([figures[name] for figures in of_seeds], axis=0) for name in of_seeds[0]}


def same_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two results hold scores, and those of the same images in the same order."""
    first, second = one.get("images"), other.get("images")
    if not first or not second:
        return False
    return all(first[key] == second[key] for key in ("names", "labels"))


def draws(y: np.ndarray, seed: int) -> np.ndarray:
    """Count how often each image comes in each bootstrap sample.

    Parameters
    ----------
    y : ndarray of shape (n,)
    seed : int

    Returns
    -------
    ndarray of shape (2000, n), int
    """
    rng = np.random.default_rng(seed)
    weights = np.empty((_REPLICATES, len(y)), dtype=np.int64)
    for label in (1, -1):
        n = int(np.sum(y == label))
        weights[:, y == label] = rng.multinomial(n, np.full(n, 1 / n), size=_REPLICATES)
    return weights


def weighted_figures(
    y: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Measure as `skad.metrics` does, with images counted several times or not at all.

    Parameters
    ----------
    y, scores : ndarray of shape (n,)
        As for :func:`skad.metrics.image_auroc`.
    weights : ndarray of shape (r, n), int
        How often each image counts; the same number of good and of defective ones in each row.

    Returns
    -------
    dict of str to ndarray of shape (r,)
        ``image_auroc``, ``average_precision``, ``recall_at_5_percent``.
    """
    order = np.argsort(scores, kind="stable")  # the most anomalous first
    starts = np.unique(scores[order], return_index=True)[1]
    defective = np.add.reduceat(weights[:, order] * (y[order] == -1), starts, axis=1)
    good = np.add.reduceat(weights[:, order] * (y[order] == 1), starts, axis=1)
    found, alarms = defective.cumsum(axis=1), good.cumsum(axis=1)
    n_defective, n_good = found[:, -1], alarms[:, -1]
    called = np.maximum(found + alarms, 1)
    in_reach = np.where(alarms <= n_allowed(RATE, int(n_good[0])), found, 0).max(axis=1)
    return {
        "image_auroc": (good * (found - defective / 2)).sum(axis=1) / (n_good * n_defective),
        "average_precision": (defective * found / called).sum(axis=1) / n_defective,
        "recall_at_5_percent": in_reach / n_defective,
    }
