"""From scores of good images to a threshold.

All scores here are normality: higher = more normal, as in scikit-learn.
"""

from __future__ import annotations

import numpy as np

from skad._common.forks import LOADING
from skad._common.warn import warn_user

# A fitted threshold is finite whatever the rate and the scores are.
_LEAST_RATE, _LARGEST_LOG = 1e-12, 300.0


def threshold_for_rate(scores: np.ndarray, rate: float) -> float:
    """Find the threshold below which a fraction `rate` of good images falls.

    Of n exchangeable scores and a new one, the new one falls below the k-th smallest with a probability
    of k / (n + 1). So the threshold lies at rank rate * (n + 1), interpolated between two scores: the
    next lower score alone would halve the rate where n is small. Where this rank is below 1, it lies
    beyond all scores: see `fitted_threshold`.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of images that the model has not seen.
    rate : float
        In (0, 1).

    Returns
    -------
    float

    References
    ----------
    R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50,
    1996: definition 6, of Weibull.
    """
    if len(scores) > 1 and _is_beyond(len(scores), rate):
        return fitted_threshold(scores, rate)
    return float(np.quantile(scores, rate, method="weibull"))


def fitted_threshold(scores: np.ndarray, rate: float) -> float:
    """Find the threshold beyond the lowest of few scores: the prediction quantile of a normal law.

    Where anomaly scores are distances, their logarithms are taken as normal: they cannot be negative
    and are skewed. Where some are not positive, the scores themselves are.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        n >= 2.
    rate : float
        In (0, 1).

    Returns
    -------
    float
        Never above the lowest score: n scores say nothing about a threshold among them at such a rate.

    References
    ----------
    A new value of a normal sample lies above ``mean + t sd sqrt(1 + 1 / n)`` with probability `rate`,
    with t the ``1 - rate`` quantile of Student's law of n - 1 degrees of freedom; G. J. Hahn and
    W. Q. Meeker, "Statistical Intervals", 1991, section 4.7.
    """
    anomaly = -scores
    is_logarithmic = anomaly.min() > 0
    values = np.log(anomaly) if is_logarithmic else anomaly
    n = len(values)
    with LOADING:  # the quantile alone: scipy.stats takes a second to import
        from scipy.special import stdtrit
    reach = -stdtrit(n - 1, max(rate, _LEAST_RATE)) * np.sqrt(1 + 1 / n)
    highest = values.mean() + reach * values.std(ddof=1)
    if is_logarithmic:
        highest = np.exp(min(highest, _LARGEST_LOG))
    return -float(max(highest, anomaly.max()))


def warn_if_too_few(n: int, rate: float) -> None:
    """Warn that n images cannot promise a false-alarm rate."""
    if _is_beyond(n, rate):
        warn_user(
            f"target_false_alarm_rate={rate:g} cannot be promised from {n} good images: the smallest "
            f"rate is 1 / (n + 1) = {1 / (n + 1):.3g}. The threshold is estimated from a normal law of "
            "their scores."
        )


def margin_at_ties(scores: np.ndarray, threshold: float, rounding: float) -> float:
    """Tell how far a threshold must give way so that images which tie at it stay on their side.

    Where training images are alike, all of them lie at the threshold, and a processor that rounds
    otherwise than this one would call all like them defective.

    Parameters
    ----------
    scores : ndarray of shape (n,)
    threshold : float
    rounding : float
        By how much another processor may change a score.

    Returns
    -------
    float
        `rounding`, or 0 where at most one score lies at the threshold.
    """
    tied = np.count_nonzero(np.abs(scores - threshold) <= rounding) > 1
    return rounding if tied else 0.0


def _is_beyond(n: int, rate: float) -> bool:
    """Whether even the lowest of n scores is too high a threshold for the rate."""
    # The tolerance keeps rates such as 0.05 = 1 / 20 on their rank in floating point.
    return rate * (n + 1) < 1 - 1e-9
