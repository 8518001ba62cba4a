"""Metrics of image scores."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.utils import column_or_1d

from skad._common.labels import read_both_labels
from skad._common.numbers import refuse_masked


def image_auroc(y: np.ndarray, scores: np.ndarray) -> float:
    """Probability that a good image scores higher than a defective one, ties counting half.

    Parameters
    ----------
    y : array-like of shape (n,)
        +1 good, -1 defective, both present.
    scores : array-like of shape (n,)
        ``score_samples`` or ``decision_function``; higher = more normal.

    Returns
    -------
    float
        In 0..1.

    Raises
    ------
    ValueError
        For other labels, NaN, or different lengths.

    Examples
    --------
    >>> from skad.metrics import image_auroc
    >>> image_auroc([1, 1, -1], [0.3, 0.1, 0.2])
    0.5
    """
    y, scores = check_scores(y, scores)
    return float(roc_auc_score(y, scores))


def average_precision(y: np.ndarray, scores: np.ndarray) -> float:
    """Average precision of finding defective images.

    The precision at each defective image found, averaged. scikit-learn's own
    ``scoring="average_precision"`` takes +1 for what is to be found, which are the good images here.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`.

    Returns
    -------
    float
        In 0..1; the fraction of defective images is what chance gives.

    Raises
    ------
    ValueError
        As :func:`image_auroc`.

    Examples
    --------
    >>> from skad.metrics import average_precision
    >>> average_precision([1, 1, -1, -1], [0.4, 0.2, 0.3, 0.1])
    0.8333333333333333
    """
    y, scores = check_scores(y, scores)
    return float(average_precision_score(y == -1, -scores))


def discriminability(good: np.ndarray, defective: np.ndarray) -> float:
    """Discriminability index d': distance of two means in pooled standard deviations.

    Parameters
    ----------
    good, defective : array-like of shape (n_good,), (n_defective,)
        Scores of good and of defective images.

    Returns
    -------
    float
        At least 0: ``|mean difference|`` / sqrt of the mean of both variances (population variances).
        If both variances are zero: infinite where the means differ, else NaN.

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
    >>> from skad.metrics import discriminability
    >>> discriminability([1.0, 3.0], [6.0, 8.0])
    5.0
    """
    refuse_masked(good, "scores of good images")
    refuse_masked(defective, "scores of defective images")
    good, defective = np.asarray(good, dtype=float), np.asarray(defective, dtype=float)
    if good.size == 0 or defective.size == 0:
        raise ValueError("d' needs scores of good and of defective images; one of them is empty.")
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((good.var() + defective.var()) / 2)
        return float(np.abs(good.mean() - defective.mean()) / spread)


def check_scores(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read labels and scores of the same images; both kinds of images, no NaN.

    Parameters
    ----------
    y, scores : array-like of shape (n,)

    Returns
    -------
    y, scores : ndarray of shape (n,)
    """
    refuse_masked(scores, "scores")
    scores = column_or_1d(scores, dtype=np.float64)
    y = read_both_labels(y, len(scores))
    if np.isnan(scores).any():
        raise ValueError(f"scores holds NaN, first at {int(np.isnan(scores).argmax())}.")
    return y, scores
