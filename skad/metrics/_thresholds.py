"""What a threshold on image scores gives, and the thresholds that would have been best."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skad.metrics._image_metrics import check_scores


class ThresholdReport(NamedTuple):
    """A threshold on ``score_samples``, and what it gives on labelled images."""

    threshold: float
    """On ``score_samples``: images below it are called defective."""
    f1: float
    """F1 of finding defective images."""
    accuracy: float
    """Fraction of images called rightly."""
    false_alarm_rate: float
    """Fraction of good images called defective."""
    recall: float
    """Fraction of defective images called defective."""
    false_positives: int
    """Number of good images called defective."""
    false_negatives: int
    """Number of defective images called good."""


def threshold_report(y: np.ndarray, scores: np.ndarray, threshold: float) -> ThresholdReport:
    """Count the defective images that a threshold finds, and its false alarms.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`, with ``score_samples``.
    threshold : float
        Images that score below it are called defective, those at it good: ``det.offset_`` gives the
        counts of ``predict``.

    Returns
    -------
    ThresholdReport

    Raises
    ------
    TypeError
        If `threshold` is not a number.
    ValueError
        As :func:`image_auroc`, or if `threshold` is NaN.

    Examples
    --------
    >>> from skad.metrics import threshold_report
    >>> report = threshold_report([1, 1, 1, 1, -1, -1], [4.0, 3.0, 2.0, 5.0, 1.0, 2.5], 2.0)
    >>> report.false_alarm_rate, report.recall, report.false_negatives
    (0.0, 0.5, 1)
    """
    y, scores = check_scores(y, scores)
    threshold = _checked_threshold(threshold)
    called, defective = scores < threshold, y == -1
    found, alarms = int((called & defective).sum()), int((called & ~defective).sum())
    missed = int(defective.sum()) - found
    return ThresholdReport(
        threshold=threshold,
        f1=2 * found / (2 * found + alarms + missed),
        accuracy=1 - (alarms + missed) / len(y),
        false_alarm_rate=alarms / int((~defective).sum()),
        recall=found / (found + missed),
        false_positives=alarms,
        false_negatives=missed,
    )


def f1_optimal_threshold(y: np.ndarray, scores: np.ndarray) -> ThresholdReport:
    """Find the threshold with the best F1 of finding defective images, for comparison with papers.

    It is chosen by the labels of the test images. In production there are none: ``offset_`` comes from
    good images alone.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`, with ``score_samples``.

    Returns
    -------
    ThresholdReport
        Of several equally good thresholds, one that calls most images defective; it lies in the middle
        between two scores.

    Raises
    ------
    ValueError
        As :func:`image_auroc`.

    Examples
    --------
    >>> from skad.metrics import f1_optimal_threshold
    >>> best = f1_optimal_threshold([1, 1, 1, -1, -1], [-0.1, -0.2, -0.6, -0.5, -0.9])
    >>> round(best.f1, 2), best.threshold, best.false_positives
    (0.8, -0.35, 1)
    """
    y, scores = check_scores(y, scores)
    candidates = np.unique(scores)[::-1]
    found = np.searchsorted(np.sort(scores[y == -1]), candidates, side="right")
    alarms = np.searchsorted(np.sort(scores[y == 1]), candidates, side="right")
    f1 = 2 * found / (found + alarms + np.sum(y == -1))
    return threshold_report(y, scores, _just_above(candidates[f1.argmax()], candidates))


def threshold_at_full_recall(y: np.ndarray, scores: np.ndarray) -> ThresholdReport:
    """Find the lowest threshold that misses no defective image, and the false alarms that it costs.

    Like that of :func:`f1_optimal_threshold` it is chosen by the labels of the test images, and lies
    between two scores.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`, with ``score_samples``.

    Returns
    -------
    ThresholdReport

    Raises
    ------
    ValueError
        As :func:`image_auroc`.

    Examples
    --------
    >>> from skad.metrics import threshold_at_full_recall
    >>> threshold_at_full_recall([1, 1, 1, -1, -1], [3.0, 2.0, 4.0, 2.5, 1.0]).false_positives
    1
    """
    y, scores = check_scores(y, scores)
    return threshold_report(y, scores, _just_above(scores[y == -1].max(), scores))


def threshold_at_false_alarm_rate(
    y: np.ndarray, scores: np.ndarray, rate: float = 0.05
) -> ThresholdReport:
    """Find the highest threshold with at most that rate of false alarms, and what it finds.

    Like that of :func:`f1_optimal_threshold` it is chosen by the labels of the test images. Its recall
    compares detectors at equal cost: the fraction of defective images found while at most `rate` of the
    good ones are called defective.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`, with ``score_samples``.
    rate : float, default=0.05
        In [0, 1]. Of n good images, at most ``floor(rate * n)`` are called defective; fewer if several
        have the same score.

    Returns
    -------
    ThresholdReport
        The threshold lies in the middle between the scores of two images; where no image can be called
        defective, it is the lowest score.

    Raises
    ------
    ValueError
        As :func:`image_auroc`, and for another rate.

    Examples
    --------
    >>> from skad.metrics import threshold_at_false_alarm_rate
    >>> y, scores = [1, 1, 1, 1, -1, -1, -1], [5.0, 4.0, 3.0, 2.0, 1.0, 2.5, 3.5]
    >>> found = threshold_at_false_alarm_rate(y, scores, rate=0.25)
    >>> found.threshold, found.false_alarm_rate, round(found.recall, 2)
    (2.75, 0.25, 0.67)
    """
    y, scores = check_scores(y, scores)
    good = np.sort(scores[y == 1])
    allowed = n_allowed(rate, len(good))
    called = scores[scores < good[allowed]] if allowed < len(good) else scores
    threshold = _just_above(called.max(), scores) if len(called) else scores.min()
    return threshold_report(y, scores, threshold)


def n_allowed(rate: float, n_good: int) -> int:
    """Count the good images that may be called defective."""
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate!r} must lie in [0, 1].")
    return int(rate * n_good + 1e-9)  # 0.07 * 100 is 7.000000000000001, 0.29 * 100 less than 29


def _checked_threshold(threshold: float) -> float:
    given = np.asarray(threshold)
    if given.ndim or given.dtype.kind not in "iuf":
        raise TypeError(
            f"threshold must be a number, such as det.offset_; got {type(threshold).__name__}."
        )
    if np.isnan(given):
        raise ValueError("threshold is NaN: no score is below it, or above.")
    return float(given)


def _just_above(score: float, scores: np.ndarray) -> float:
    """Return the threshold that calls defective what scores `score` or lower, and nothing else.

    Halfway to the next score, so that rounding on another processor changes no verdict.
    """
    higher = scores[scores > score]
    if not len(higher):
        return float(np.nextafter(score, np.inf))
    following = higher.min()
    middle = score / 2 + following / 2
    # Neighbouring floats have no number between them.
    return float(middle if score < middle <= following else following)
