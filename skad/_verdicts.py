"""From scores to verdicts, as scikit-learn and a plant ask for them; knows no algorithm.

**One state.** A fit, and a prediction, works on a snapshot of the detector (`_snapshot`): a prediction
takes everything that it needs at its entry (`_as_fitted`), a fit hands over what it has learned in one
assignment (`_become`). Whatever other threads do, no prediction sees the bank of one state and the
threshold of another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from skad._common.labels import CodingError, OneClassError, good_images, read_both_labels
from skad._common.pickles import portable, versions, warn_of_other_versions
from skad._common.warn import warn_user
from skad._images import one_call, refuse_single
from skad._scoring.judging import Judge
from skad._sklearn_compat import CallbackSupportMixin, Interval, StrOptions, _num_samples

if TYPE_CHECKING:
    from typing_extensions import Self

MEANWHILE = (
    "another thread has fitted this detector meanwhile: {done}. Call again, one call at a time."
)
# Attributes that only a snapshot has.
_OF_SNAPSHOTS = frozenset({"_is_snapshot", "_network"})


class BaseDetector(CallbackSupportMixin, OutlierMixin, Judge, BaseEstimator):
    """What follows from scores: state, thresholds that move, AUROC; verdicts are a `Judge`'s.

    Parameters
    ----------
    contamination : "auto" or float
        "auto": the threshold keeps `target_false_alarm_rate`, by the scores of training images that were
        held out. A float in (0, 0.5]: scikit-learn's percentile of the training scores.
    target_false_alarm_rate : float
        Fraction of good images that may be called defective, in (0, 1). Setting it on a fitted detector
        by ``set_params`` moves the threshold, as :meth:`calibrate` does.
    verbose : int
        1: one line per stage of ``fit``; 2: also its progress. scikit-learn's callbacks
        (``set_callbacks``, from scikit-learn 1.9) report progress as well.
    """

    # scikit-learn's HTML shows what a docstring says of parameters where it has an address
    # of documentation: the paper's, as long as the project has none of its own.
    _doc_link_module = "skad"

    # Parameters of which the value at the fit is used until the next: they may be changed before.
    _await_fit: frozenset[str] = frozenset()

    _params_at_fit: dict[str, Any]
    # Parameters that states of older versions lack, and what those versions did.
    _absent_means: Mapping[str, Any] = {}

    _parameter_constraints: dict = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "target_false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def _frozen_params(self) -> dict[str, Any]:
        """Parameters that a fitted detector cannot change."""

    # --------------------------------------------------------------------- state

    def __sklearn_is_fitted__(self) -> bool:
        # Learned attributes alone do not tell: a refit that failed leaves those of the fit before.
        return hasattr(self, "_params_at_fit")

    def _snapshot(self) -> Self:
        """Copy the detector as it is now: attributes of the copy are set without touching its own."""
        copied = object.__new__(type(self))
        copied.__dict__ = {**vars(self), "_is_snapshot": True}
        return copied

    def _become(self, learned: Self, **params: Any) -> None:
        """Take over what a snapshot has learned, all at once; other parameters stay as they are."""
        state = {name: value for name, value in vars(learned).items() if name not in _OF_SNAPSHOTS}
        self.__dict__ = {**state, **self.get_params(deep=False), **params}

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
        if hasattr(self, "_is_snapshot"):
            return self  # it was taken by the public method that calls this one
        now = self._snapshot()
        now._check_unchanged()
        return now

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit on the good images of X, and tell which of X are defective.

        With ``contamination="auto"`` a good image is judged by its score in ``training_scores_``, which
        comes from a model that has not seen it, as a new image is; ``fit(X).predict(X)`` would compare
        it with itself, and call hardly anything defective. Images without such a score, and images that
        y calls defective, are judged as :meth:`predict` does. With a number, this is
        ``fit(X, y).predict(X)``.

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
        fitted = self.fit(X, y)
        if fitted.contamination != "auto":
            return fitted.predict(X)
        scores = np.full(_num_samples(X), np.nan)
        scores[good_images(y, len(scores))] = fitted.training_scores_
        if np.isnan(scores).any():
            scores = np.where(np.isnan(scores), fitted.score_samples(X), scores)
        return np.where(scores >= fitted.offset_, 1, -1)

    # ------------------------------------------------------------------ thresholds

    @one_call()
    def calibrate(
        self, X: Any = None, *, target_false_alarm_rate: float | None = None
    ) -> BaseDetector:
        """Move the threshold of a fitted detector, without learning anything else.

        ``offset_``, ``heatmap_threshold_`` and the p-values follow together; scores stay as they are.

        Parameters
        ----------
        X : images, default=None
            Fresh good images, which the detector has not learned from: after a new lamp or camera.
            Their scores become ``calibration_scores_``. None: the calibration scores at hand.
        target_false_alarm_rate : float, default=None
            Another fraction of good images that may be called defective, in (0, 1). None: as it is.

        Returns
        -------
        self : object
            The detector with another threshold.

        Raises
        ------
        ValueError, TypeError
            If there is neither X nor a rate; if X holds fewer than two images, or images that cannot
            be used; if the rate is not in (0, 1), or ``contamination`` is a number, which leaves no
            rate to choose.
        RuntimeError
            If another thread has fitted the detector meanwhile.

        Warns
        -----
        UserWarning
            If the calibration scores are too few for the rate.

        Notes
        -----
        ``set_params(target_false_alarm_rate=rate)`` on a fitted detector does the same as
        ``calibrate(target_false_alarm_rate=rate)``. With ``contamination`` a number, `offset_` becomes
        that percentile of the scores of X.

        Examples
        --------
        >>> import numpy as np
        >>> from skad import PatchCoreDetector
        >>> good = np.random.default_rng(0).integers(90, 110, size=(12, 64, 64, 3), dtype=np.uint8)
        >>> det = PatchCoreDetector(
        ...     "skad_nano", image_size=64, target_false_alarm_rate=0.2, random_state=0
        ... ).fit(good[:8])
        >>> before = det.offset_
        >>> det.calibrate(target_false_alarm_rate=0.5).offset_ > before
        True
        >>> len(det.calibrate(good[8:]).calibration_scores_)
        4
        """
        # Measured by one snapshot, whose parts are snapshots as well; changed on another.
        before, now, moved = vars(self), self._as_fitted(), self._snapshot()
        if target_false_alarm_rate is not None:
            moved.target_false_alarm_rate = target_false_alarm_rate
        elif X is None:
            raise ValueError("calibrate needs fresh good images, or a target_false_alarm_rate.")
        moved._validate_params()
        if target_false_alarm_rate is not None and moved.contamination != "auto":
            raise ValueError(
                f"contamination={moved.contamination!r} sets the threshold to a percentile of scores: "
                'there is no false-alarm rate to choose. Fit with contamination="auto".'
            )
        if X is None:
            moved._follow_rate()
        else:
            moved._calibrate_on_fresh(*now._measure_fresh(X))
        if vars(self) is not before:
            raise RuntimeError(MEANWHILE.format(done="the threshold is that of the new fit"))
        self._become(moved, target_false_alarm_rate=moved.target_false_alarm_rate)
        return self

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        On a fitted detector ``target_false_alarm_rate`` moves the threshold, as :meth:`calibrate` does;
        another device, batch size and the like take effect at once; whatever else shapes scores is an
        error at the next prediction.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self : object
        """
        super().set_params(**params)
        if "target_false_alarm_rate" in params:
            self._follow_set_rate()
        return self

    def _follow_set_rate(self) -> None:
        """Move the threshold of a fitted detector to a rate that was set."""
        if not hasattr(self, "_params_at_fit"):
            return
        moved, before = self._snapshot(), self._params_at_fit["target_false_alarm_rate"]
        if self.target_false_alarm_rate == before:
            return
        try:
            moved._validate_params()
            moved._follow_rate()
        except BaseException:
            self.target_false_alarm_rate = before
            raise
        self._become(moved)

    def _follow_rate(self) -> None:
        """Set thresholds for another rate, on a snapshot."""
        rate = self.target_false_alarm_rate
        self._params_at_fit = {**self._params_at_fit, "target_false_alarm_rate": rate}
        if self._params_at_fit["contamination"] == "auto":
            self._keep_rate()

    def _calibrate_on_fresh(self, scores: np.ndarray, peaks: np.ndarray) -> None:
        """Set thresholds by images that were not learned from, on a snapshot."""
        self._params_at_fit = {
            **self._params_at_fit,
            "target_false_alarm_rate": self.target_false_alarm_rate,
        }
        self._note_fresh(scores, peaks)
        self._calibrate(scores, scores, peaks)

    def _note_fresh(self, scores: np.ndarray, peaks: np.ndarray) -> None:
        """Remember scores of fresh images for what a detector does later."""

    def _check_unchanged(self) -> None:
        """Refuse what makes scores wrong; a snapshot is brought back to what was fitted."""
        if not hasattr(self, "_params_at_fit"):
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
                f"{name}={now[name]!r} takes effect at the next fit: scores and thresholds belong to "
                f"{name}={self._params_at_fit[name]!r}, which is used until then."
            )
            setattr(self, name, self._params_at_fit[name])
        if changed == ["target_false_alarm_rate"]:
            raise ValueError(
                "target_false_alarm_rate was assigned, and the threshold is still the old one: use "
                f"set_params(target_false_alarm_rate={self.target_false_alarm_rate!r}), which moves it."
            )
        if changed:
            raise ValueError(
                f"{', '.join(changed)} changed after fit: the threshold and the learned state no "
                f"longer belong together. Call fit again, or set back "
                + ", ".join(f"{name}={self._params_at_fit[name]!r}" for name in changed)
                + "."
            )

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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # ---------------------------------------------------------------- pickling

    def __getstate__(self) -> dict[str, Any]:
        state = {name: portable(value) for name, value in super().__getstate__().items()}
        return {**state, "_versions": versions()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {**self._absent_means, **state}
        warn_of_other_versions(type(self).__name__, state.pop("_versions", {}))
        super().__setstate__(state)
