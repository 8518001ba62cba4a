"""From scores of good images to a threshold.

All scores here are normality: higher = more normal, as in scikit-learn.
"""

from __future__ import annotations

import numpy as np

from skad._common.warn import warn_user


def conformal_threshold(scores: np.ndarray, rate: float) -> float:
    """Find the largest threshold whose false-alarm rate is at most `rate` on exchangeable good images.

    A new good image falls below the k-th smallest of n out-of-sample scores with a probability of
    at most k / (n + 1).

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of images that the model has not seen.
    rate : float
        In (0, 1).

    Returns
    -------
    float
        One of the scores; the lowest where n is too small for the rate.
    """
    k = min(max(_rank(len(scores), rate), 1), len(scores))
    return float(np.sort(scores)[k - 1])


def warn_if_too_few(n: int, rate: float) -> None:
    """Warn that n images cannot promise a false-alarm rate."""
    if _rank(n, rate) == 0:
        warn_user(
            f"target_false_alarm_rate={rate:g} cannot be promised from {n} good images: the smallest "
            f"rate is 1 / (n + 1) = {1 / (n + 1):.3g}. The threshold is the lowest of their scores."
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


def _rank(n: int, rate: float) -> int:
    # The tolerance keeps rates such as 0.05 = 1 / 20 on their rank in floating point.
    return int(rate * (n + 1) + 1e-9)
