"""What every detector makes of its scores: threshold, predictions, p-values, AUROC.

Nothing here knows images. A detector derives from :class:`BaseDetector`, scores, and hands the scores
of its training images to `_calibrate`.

**One state.** A fit, and a prediction, works on a second self (`_copy`): a prediction takes everything
that it needs at its entry (`_as_fitted`), a fit hands over what it has learned in one assignment
(`_become`). Whatever other threads do, no prediction sees the bank of one state and the threshold of
another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib import metadata
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score
from sklearn.utils.validation import check_is_fitted

from skad._images import refuse_single
from skad._sklearn_compat import CallbackSupportMixin, Interval, StrOptions, _num_samples
from skad._system.pickles import portable
from skad._validation.labels import CodingError, OneClassError, read_both_labels
from skad._validation.warn import warn_user
from skad._version import __version__

if TYPE_CHECKING:
    from typing_extensions import Self

_RECORDED = ("numpy", "scikit-learn", "timm", "torch")


class BaseDetector(CallbackSupportMixin, OutlierMixin, BaseEstimator):
    """What follows from scores: threshold, predictions, p-values, AUROC."""

    _parameter_constraints: dict = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "target_false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "verbose": ["verbose"],
    }

    # Set by an ensemble, whose threshold takes the place of this one's.
    _in_ensemble = False
    # Parameters of which the value at the fit is used until the next: they may be changed before.
    _await_fit: frozenset[str] = frozenset()

    @abstractmethod
    def score_samples(self, X: Any) -> np.ndarray:
        """Score the normality of each image; higher = more normal."""

    @abstractmethod
    def _frozen_params(self) -> dict[str, Any]:
        """Parameters that a fitted detector cannot change."""

    # --------------------------------------------------------------------- state

    def __sklearn_is_fitted__(self) -> bool:
        # Learned attributes alone do not tell: a refit that failed leaves those of the fit before.
        return hasattr(self, "_params_at_fit")

    def _copy(self) -> Self:
        """Make a second self, whose attributes are set without touching those of the first."""
        other = object.__new__(type(self))
        # Room for what a second self finds once and works with to its end.
        other.__dict__ = {**vars(self), "_held": {}}
        return other

    def _become(self, other: Self) -> None:
        """Take over what a second self has learned, all of it at once; parameters stay as they are."""
        learned = {name: value for name, value in vars(other).items() if name != "_held"}
        self.__dict__ = {**learned, **self.get_params(deep=False)}

    @contextmanager
    def _unfitted_on_failure(self) -> Iterator[None]:
        """Surround a fit: where it fails, there is no detector, rather than the one of before."""
        try:
            yield
        except BaseException:
            self.__dict__.pop("_params_at_fit", None)
            raise

    def _as_fitted(self) -> Self:
        """Take the fitted state as it is now: what one prediction works with."""
        if hasattr(self, "_held"):
            return self  # it was taken by the public method that calls this one
        now = self._copy()
        now._check_unchanged()
        return now

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
        if held_out is not None and self.contamination == "auto":
            rate = self.target_false_alarm_rate
            if not self._in_ensemble:
                _warn_if_too_few(len(held_out), rate)
            scores, threshold = -held_out, partial(_conformal_offset, rate=rate)
        else:
            share = 100 * self.contamination
            scores, threshold = -np.asarray(in_sample), partial(np.percentile, q=share)
        self.offset_, self._margin = self._with_margin(scores, float(threshold(scores)))
        lowest, _ = self._with_margin(-peaks, float(threshold(-peaks)))
        self.heatmap_threshold_ = -lowest

    def _with_margin(self, scores: np.ndarray, threshold: float) -> tuple[float, float]:
        """Lower a threshold by rounding where images tie at it: they stay on their side of it.

        Where training images are alike, all of them lie at the threshold, and a processor that rounds
        otherwise than this one would call all like them defective.
        """
        rounding = self._rounding_of(-threshold)
        tied = np.count_nonzero(np.abs(scores - threshold) <= rounding) > 1
        margin = rounding if tied else 0.0
        return threshold - margin, margin

    def _rounding_of(self, anomaly: float) -> float:
        """How far an anomaly score may move where a processor rounds otherwise than this one."""
        return 1e-5 * abs(anomaly)

    def _check_unchanged(self) -> None:
        """Refuse what makes scores wrong; for a second self, which it brings back to what was fitted."""
        check_is_fitted(self)
        now = self._frozen_params()
        changed = [
            name
            for name, value in self._params_at_fit.items()
            if name not in now or not np.array_equal(now[name], value)
        ]
        for name in self._await_fit.intersection(changed):
            changed.remove(name)
            warn_user(
                f"{name}={now[name]!r} takes effect at the next fit: the thresholds belong to "
                f"{name}={self._params_at_fit[name]!r}, which is used until then."
            )
            setattr(self, name, self._params_at_fit[name])
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
        now = self._as_fitted()
        return now.score_samples(X) - now.offset_

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
        now = self._as_fitted()
        if now.calibration_scores_ is None:
            raise ValueError(
                "p-values need scores of good training images that were left out; this detector has "
                "none (fitted on one image, or with validation_fraction=0)."
            )
        # Files of skad 0.1.0 know no margin.
        scores = now.score_samples(X) + getattr(now, "_margin", 0.0)
        lower = np.searchsorted(now.calibration_scores_, scores, side="right")
        return (1 + lower) / (1 + len(now.calibration_scores_))

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
            In 0..1; NaN, with a warning, if y holds one kind of label only, or other numbers than +1
            and -1: a search over parameters goes on, and its table shows where.

        Raises
        ------
        ValueError
            If y has another length, or holds strings, booleans, None or NaN.
        """
        refuse_single(X)
        try:
            labels = read_both_labels(y, _num_samples(X))
        except (OneClassError, CodingError) as error:
            self.score_samples(X)  # what is wrong with X is said all the same
            warn_user(f"the image AUROC is undefined: {error}", UndefinedMetricWarning)
            return float("nan")
        return float(roc_auc_score(labels, self.score_samples(X)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # ---------------------------------------------------------------- pickling

    def __getstate__(self) -> dict[str, Any]:
        state = {name: portable(value) for name, value in super().__getstate__().items()}
        return {**state, "_versions": {"skad": __version__, **_installed()}}

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
    warn_user(
        f"this {name} was pickled with {', '.join(differing)}: compare its scores with known ones "
        "before you rely on it, or fit it again."
    )


def _rank(n: int, rate: float) -> int:
    # The tolerance keeps rates such as 0.05 = 1 / 20 on their rank in floating point.
    return int(rate * (n + 1) + 1e-9)


def _conformal_offset(scores: np.ndarray, rate: float) -> float:
    """Largest threshold whose false-alarm rate is at most `rate` on exchangeable good images.

    A new good image falls below the k-th smallest of n out-of-sample scores with a probability of
    at most k / (n + 1).
    """
    k = min(max(_rank(len(scores), rate), 1), len(scores))
    return float(np.sort(scores)[k - 1])


def _warn_if_too_few(n: int, rate: float) -> None:
    if _rank(n, rate) == 0:
        warn_user(
            f"target_false_alarm_rate={rate:g} cannot be promised from {n} good images: the smallest "
            f"rate is 1 / (n + 1) = {1 / (n + 1):.3g}. The threshold is the lowest of their scores."
        )
