"""From scores to verdicts, as scikit-learn and a plant ask for them; knows no algorithm.

**One state.** A fit, and a prediction, works on a snapshot of the detector (`_snapshot`): a prediction
takes everything that it needs at its entry (`_as_fitted`), a fit hands over what it has learned in one
assignment (`_become`). Whatever other threads do, no prediction sees the bank of one state and the
threshold of another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, overload

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
from skad._scoring.regions import Region, Regions, regions_of
from skad._scoring.results import MappedImage
from skad._scoring.thresholds import margin_at_ties, threshold_for_rate, warn_if_too_few
from skad._sklearn_compat import CallbackSupportMixin, Interval, StrOptions, _num_samples

if TYPE_CHECKING:
    from typing_extensions import Self

MEANWHILE = (
    "another thread has fitted this detector meanwhile: {done}. Call again, one call at a time."
)
# Attributes that only a snapshot has.
_OF_SNAPSHOTS = frozenset({"_is_snapshot", "_network"})


class BaseDetector(CallbackSupportMixin, OutlierMixin, BaseEstimator):
    """What follows from scores: threshold, predictions, p-values, AUROC."""

    # Parameters of which the value at the fit is used until the next: they may be changed before.
    _await_fit: frozenset[str] = frozenset()

    contamination: Any
    target_false_alarm_rate: float
    _params_at_fit: dict[str, Any]
    # Parameters that states of older versions lack, and what those versions did.
    _absent_means: Mapping[str, Any] = {}

    _parameter_constraints: dict = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "target_false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def score_samples(self, X: Any) -> np.ndarray:
        """Score the normality of each image; higher = more normal."""

    @abstractmethod
    def _iter_maps(self, X: Any) -> Iterator[MappedImage]:
        """Score image after image, and render the map of each."""

    @abstractmethod
    def _frozen_params(self) -> dict[str, Any]:
        """Parameters that a fitted detector cannot change."""

    def _has_one_threshold(self) -> bool:
        """Whether the score of an image is the highest value of its map: one threshold does then."""
        return getattr(self, "image_score", "patch") == "map"

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

    def _measure_fresh(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Measure anomaly scores, and highest values of maps, of images that were not learned from."""
        measured = [(found.score, found.peak) for found in self._iter_maps(X)]
        if len(measured) < 2:
            raise ValueError(
                f"n_samples={len(measured)}: a threshold needs at least two fresh good images."
            )
        scores, peaks = np.array(measured).T
        return scores, peaks

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

    def _calibrate(
        self,
        held_out: np.ndarray | None,
        in_sample: np.ndarray | None,
        peaks: np.ndarray,
        *,
        warn: bool = True,
    ) -> None:
        """Set thresholds from anomaly scores, and peaks of heat maps, of good images.

        Where a score is NaN, the image does not count.
        """
        if held_out is not None:
            counts = ~np.isnan(held_out)
            held_out, peaks = held_out[counts], peaks[counts]
        self.calibration_scores_ = None if held_out is None else np.sort(-held_out)
        self._calibration_peaks = np.sort(peaks)
        if self.contamination == "auto":
            self._keep_rate(warn=warn)
        else:
            percentile = partial(np.percentile, q=100 * self.contamination)
            self._set_thresholds(-np.asarray(in_sample), percentile)

    def _keep_rate(self, *, warn: bool = True) -> None:
        """Set thresholds from the calibration scores."""
        scores, rate = np.asarray(self.calibration_scores_), self.target_false_alarm_rate
        if warn:
            warn_if_too_few(len(scores), rate)
        self._set_thresholds(scores, partial(threshold_for_rate, rate=rate))

    def _set_thresholds(self, scores: np.ndarray, rule: Callable[[np.ndarray], float]) -> None:
        self.offset_, self._margin = self._with_margin(scores, float(rule(scores)))
        lowest = self.offset_
        if not self._has_one_threshold():
            normal = -self._calibration_peaks
            lowest, _ = self._with_margin(normal, float(rule(normal)))
        self.heatmap_threshold_ = -lowest

    def _with_margin(self, scores: np.ndarray, threshold: float) -> tuple[float, float]:
        """Lower a threshold by rounding where images tie at it; also return by how much."""
        margin = margin_at_ties(scores, threshold, self._rounding_of(-threshold))
        return threshold - margin, margin

    def _rounding_of(self, anomaly: float) -> float:
        """How far an anomaly score may move where a processor rounds otherwise than this one."""
        return 1e-5 * abs(anomaly)

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

        The fraction of out-of-sample training scores that are at least as anomalous, the image itself
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
                "p-values need scores of good training images that were held out; this detector has "
                "none (fitted on one image, or with validation_fraction=0)."
            )
        return now._p_values_of(now.score_samples(X))

    def _p_values_of(self, scores: np.ndarray) -> np.ndarray:
        """P-values of images that were scored, where there are calibration scores."""
        known = np.asarray(self.calibration_scores_)
        lower = np.searchsorted(known, scores + self._margin, side="right")
        return (1 + lower) / (1 + len(known))

    @overload
    def predict_heatmap(self, X: Any) -> np.ndarray | list[np.ndarray]: ...
    @overload
    def predict_heatmap(
        self, X: Any, return_scores: bool
    ) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]: ...

    @one_call()
    def predict_heatmap(self, X: Any, return_scores: bool = False) -> Any:
        """Anomaly of each pixel, in the coordinates of the images as given.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.
        return_scores : bool, default=False
            Also return ``score_samples(X)``, from the same pass over the images.

        Returns
        -------
        maps : ndarray of shape (n, H, W), float32, or list of n such arrays of shape (H_i, W_i)
            Higher = more anomalous; a list if the images differ in size. NaN where the geometry
            ``"crop"`` did not look. Images with an EXIF orientation count as displayed.
        scores : ndarray of shape (n,), float64
            Only with ``return_scores=True``.

        Notes
        -----
        Maps take 4 bytes per pixel of all images; where a detector has ``max_memory``, more than that is
        refused before work starts. :meth:`predict_regions` takes no such arrays.

        The map is computed on the canvas that the network sees, and interpolated at the pixels of the
        image. With ``image_score="map"`` the score is minus the highest value on the canvas: between
        pixels of a small image it may be missed.
        """
        now = self._as_fitted()
        now._check_room_for_maps(X)
        maps, scores = [], []
        for found in now._iter_maps(X):
            scores.append(-found.score)
            maps.append(found.heatmap())
        same = len({heatmap.shape for heatmap in maps}) == 1
        heatmaps = np.stack(maps) if same else maps
        return (heatmaps, np.array(scores)) if return_scores else heatmaps

    def _check_room_for_maps(self, X: Any) -> None:
        """Refuse before any work what would take more memory than a user allows."""

    @one_call()
    def predict_regions(self, X: Any, *, min_area: float = 0) -> Regions:
        """Find what is defective in each image: the regions above the threshold.

        With ``image_score="map"`` and ``min_area=0``, an image has a region exactly if
        :meth:`predict` calls it defective: both compare one map with one threshold. With another
        `image_score` regions lie above ``heatmap_threshold_``, which is calibrated on its own, and the
        two can disagree.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.
        min_area : float, default=0
            Leave out regions of fewer pixels of the image. What :meth:`predict` says does not change:
            above 0, a defective image may have no region.

        Returns
        -------
        Regions
            For each image a list of :class:`skad.Region`, the highest peak first: bounding box, area,
            centroid, peak, mean, mask and contour, in the coordinates of the image as given.

        Notes
        -----
        Regions are found on the canvas that the network sees and carried to the image: each pixel of
        the image belongs to the canvas pixel in which its centre lies, and a region covers at least
        one pixel. Pixels above the threshold that touch, at a corner at least, make one region. Of it
        remains what reaches half of the way from the median peak of the calibration images to the
        highest value near by: a map is blurred, and blobs above the threshold are wider than defects.
        This shapes regions, and neither adds nor removes one.

        Memory does not grow with the size of images: masks are made when they are asked for.
        """
        now = self._as_fitted()
        found, shapes = [], []
        for image in now._iter_maps(X):
            found.append(now._regions_of(image, min_area))
            shapes.append(image.frame.shape)
        return Regions(found, shapes)

    def _regions_of(self, image: MappedImage, min_area: float = 0) -> list[Region]:
        """Find the regions of an image that was scored."""
        return regions_of(
            image.canvas,
            self.heatmap_threshold_,
            image.geometry,
            image.frame.shape,
            min_area=min_area,
            usual_peak=float(np.median(self._calibration_peaks)),
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
