"""From anomaly scores to the probability of a defect: maps that are fitted on labelled scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression


class SigmoidMap(NamedTuple):
    """The log-odds of a defect as a straight line of the anomaly score."""

    slope: float
    """At least 0."""
    intercept: float

    def log_odds(self, anomalies: np.ndarray) -> np.ndarray:
        """Return the log-odds of a defect, (n,) float64."""
        return self.slope * anomalies + self.intercept

    @property
    def is_flat(self) -> bool:
        """Whether all scores have one probability."""
        return self.slope == 0


class IsotonicMap(NamedTuple):
    """Probabilities that rise with the anomaly score, linear between knots and constant outside."""

    anomalies: np.ndarray
    """(k,) float64, ascending."""
    probabilities: np.ndarray
    """(k,) float64, strictly between 0 and 1, ascending."""

    def log_odds(self, anomalies: np.ndarray) -> np.ndarray:
        """Return the log-odds of a defect, (n,) float64."""
        return logit(np.interp(anomalies, self.anomalies, self.probabilities))

    @property
    def is_flat(self) -> bool:
        """Whether all scores have one probability."""
        return bool(self.probabilities[0] == self.probabilities[-1])


class LabelledScores(NamedTuple):
    """Anomaly scores of images that were not learned from, ready for a regression."""

    anomalies: np.ndarray
    """(n,) float64."""
    targets: np.ndarray
    """(n,) float64: what the map aims at, a little above 0 for good images, below 1 for defects."""
    weights: np.ndarray
    """(n,) float64."""

    @classmethod
    def of(cls, good: np.ndarray, defective: np.ndarray, n_good: int) -> LabelledScores:
        """Join scores of good and of defective images.

        Parameters
        ----------
        good, defective : ndarray of shape (n,), float64
            Anomaly scores.
        n_good : int
            How many good images there are, of which those of `good` are a sample: together they weigh
            as much, so that the share of defective images is that of the labels.

        Returns
        -------
        LabelledScores

        Notes
        -----
        The targets are those of Platt ("Probabilistic outputs for support vector machines", 1999): means
        under a uniform prior, which keep the probabilities away from 0 and 1 where scores separate the
        images, as they often do.
        """
        sides = [
            (good, 1 / (len(good) + 2)),
            (defective, (len(defective) + 1) / (len(defective) + 2)),
        ]
        return cls(
            np.concatenate([scores for scores, _ in sides]),
            np.concatenate([np.full(len(scores), target) for scores, target in sides]),
            np.repeat([n_good / len(good), 1.0], [len(good), len(defective)]),
        )


def fit_sigmoid(scores: LabelledScores) -> SigmoidMap:
    """Fit a logistic map by maximum likelihood; flat where more anomalous images are less defective.

    Parameters
    ----------
    scores : LabelledScores

    Returns
    -------
    SigmoidMap
    """
    anomalies, targets, weights = scores
    flat = SigmoidMap(0.0, float(logit(np.average(targets, weights=weights))))
    spread = float(anomalies.std())
    if spread == 0:
        return flat
    centre = float(anomalies.mean())
    z = (anomalies - centre) / spread
    # A target between 0 and 1 is both labels, each with its share of the weight.
    line = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.append(z, z)[:, None],
        np.repeat([1, 0], len(z)),
        sample_weight=np.append(weights * targets, weights * (1 - targets)),
    )
    slope = float(line.coef_[0, 0]) / spread
    # The likelihood is concave: where its maximum has a negative slope, the best one allowed is 0.
    return SigmoidMap(slope, float(line.intercept_[0]) - slope * centre) if slope > 0 else flat


def fit_isotonic(scores: LabelledScores) -> IsotonicMap:
    """Fit probabilities that rise with the score, by least squares.

    Parameters
    ----------
    scores : LabelledScores

    Returns
    -------
    IsotonicMap
    """
    found = IsotonicRegression().fit(scores.anomalies, scores.targets, sample_weight=scores.weights)
    return IsotonicMap(
        found.X_thresholds_.astype(np.float64), found.y_thresholds_.astype(np.float64)
    )


MAPS: dict[str, Callable[[LabelledScores], SigmoidMap | IsotonicMap]] = {
    "sigmoid": fit_sigmoid,
    "isotonic": fit_isotonic,
}
