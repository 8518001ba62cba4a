"""What every detector makes of its scores: threshold, predictions, p-values, AUROC.

Nothing here knows images. A detector derives from :class:`BaseDetector`, scores, and hands the scores
of its training images to `_calibrate`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from functools import cache
from importlib import metadata
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skad._callbacks import CallbackSupportMixin
from skad._version import __version__

_RECORDED = ("numpy", "scikit-learn", "timm", "torch")


class BaseDetector(CallbackSupportMixin, OutlierMixin, BaseEstimator):
    """What follows from scores: threshold, predictions, p-values, AUROC."""

    _parameter_constraints: dict = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "target_false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def score_samples(self, X: Any) -> np.ndarray:
        """Score the normality of each image; higher = more normal."""

    @abstractmethod
    def _frozen_params(self) -> dict[str, Any]:
        """Parameters that a fitted detector cannot change."""

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit on the good images of X, then predict all of X.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.
        y : array-like of shape (n,), default=None
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n,)
            +1 good, -1 defective.
        """
        return self.fit(X, y).predict(X)

    def _calibrate(
        self, held_out: np.ndarray | None, in_sample: np.ndarray | None, peaks: np.ndarray
    ) -> None:
        """Set thresholds from anomaly scores, and peaks of heat maps, of the training images."""
        self.calibration_scores_ = None if held_out is None else np.sort(-held_out)
        if self.calibration_scores_ is not None and self.contamination == "auto":
            rate = self.target_false_alarm_rate
            _warn_if_too_few(len(self.calibration_scores_), rate)
            self.offset_ = _conformal_offset(self.calibration_scores_, rate)
            self.heatmap_threshold_ = -_conformal_offset(-peaks, rate)
        else:
            share = 100 * self.contamination
            self.offset_ = float(np.percentile(-np.asarray(in_sample), share))
            self.heatmap_threshold_ = -float(np.percentile(-peaks, share))

    def _check_unchanged(self) -> None:
        check_is_fitted(self, "_params_at_fit")
        now = self._frozen_params()
        changed = [
            name
            for name, value in self._params_at_fit.items()
            if name not in now or not np.array_equal(now[name], value)
        ]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} changed after fit: the threshold and the learned state no "
                f"longer belong together. Call fit again, or set back "
                + ", ".join(f"{name}={self._params_at_fit[name]!r}" for name in changed)
                + "."
            )

    def decision_function(self, X: Any) -> np.ndarray:
        """Signed distance to the threshold.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n,), float64
            ``score_samples(X) - offset_``; negative = defective.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Tell good from defective images.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n,), int
            +1 good, -1 defective.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def anomaly_p_value(self, X: Any) -> np.ndarray:
        """Conformal p-value of each image among the good training images.

        The share of out-of-sample training scores that are at least as anomalous, the image itself
        counted in. Calling an image defective when its value is at most 0.01 raises at most 1 % false
        alarms, as long as good images keep coming from where the training images came from.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n,), float64
            In (0, 1]; the smallest possible value is
            ``1 / (len(calibration_scores_) + 1)``.

        Raises
        ------
        ValueError
            If the detector was fitted on a single image.
        """
        self._check_unchanged()
        if self.calibration_scores_ is None:
            raise ValueError(
                "p-values need scores of good training images that were left out; this detector has "
                "none (fitted on one image, or with validation_fraction=0)."
            )
        scores = self.score_samples(X)
        lower = np.searchsorted(self.calibration_scores_, scores, side="right")
        return (1 + lower) / (1 + len(self.calibration_scores_))

    def score(self, X: Any, y: Any) -> float:
        """Image AUROC: the chance that a good image scores higher than a defective one.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.
        y : array-like of shape (n,)
            +1 good, -1 defective.

        Returns
        -------
        float
            In 0..1; NaN, with a warning, if y holds anything else than +1 and -1, or one of them
            only: a search over parameters then fails loudly instead of preferring the worst.
        """
        labels = np.asarray(y)
        if set(np.unique(labels).tolist()) != {-1, 1}:
            warnings.warn(
                "the image AUROC needs labels +1 (good) and -1 (defective), both present; y holds "
                f"{np.unique(labels)[:5].tolist()}. For 1 = defective pass np.where(y == 1, -1, 1).",
                UndefinedMetricWarning,
                stacklevel=2,
            )
            self.score_samples(X)  # what is wrong with X is said all the same
            return float("nan")
        return float(roc_auc_score(labels, self.score_samples(X)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # ---------------------------------------------------------------- pickling

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_versions": {"skad": __version__, **_installed()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        _warn_of_other_versions(type(self).__name__, state.pop("_versions", {}))
        super().__setstate__(state)


@cache
def _installed() -> dict[str, str]:
    return {name: metadata.version(name) for name in _RECORDED}


def _warn_of_other_versions(name: str, written: dict[str, str]) -> None:
    """Warn if a pickle comes from another skad; libraries alone change scores by rounding at most."""
    if not written or written["skad"] == __version__:
        return
    now = {"skad": __version__, **_installed()}
    differing = [
        f"{lib} {old} (now {now.get(lib)})" for lib, old in written.items() if old != now.get(lib)
    ]
    warnings.warn(
        f"this {name} was pickled with {', '.join(differing)}: compare its scores with known ones "
        "before you rely on it, or fit it again.",
        UserWarning,
        stacklevel=3,
    )


def _rank(n: int, rate: float) -> int:
    # The tolerance keeps rates such as 0.05 = 1 / 20 on their rank in floating point.
    return int(rate * (n + 1) + 1e-9)


def _conformal_offset(scores: np.ndarray, rate: float) -> float:
    """Largest threshold whose false-alarm rate is at most `rate` on exchangeable good images.

    A new good image falls below the k-th smallest of n out-of-sample scores with a probability of
    at most k / (n + 1).
    """
    k = max(_rank(len(scores), rate), 1)
    return float(np.sort(scores)[k - 1])


def _warn_if_too_few(n: int, rate: float) -> None:
    if _rank(n, rate) == 0:
        warnings.warn(
            f"target_false_alarm_rate={rate:g} cannot be promised from {n} good images: the smallest "
            f"rate is 1 / (n + 1) = {1 / (n + 1):.3g}. The threshold is the lowest of their scores.",
            UserWarning,
            stacklevel=4,
        )
