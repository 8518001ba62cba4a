"""The scikit-learn contract of every detector; knows no algorithm.

A detector derives from :class:`BaseImageDetector` and fills in three hooks: learn from a source of
good images, score a batch, render a map of patch scores on the network's canvas. Validation, labels,
threshold, p-values, image coordinates and the guard against parameters changed after ``fit`` live
here.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple, overload

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from skad._callbacks import CallbackSupportMixin, FitProgress, with_callbacks
from skad._devices import PRECISIONS
from skad._images import Geometry, ImageBatch, ImageSource, as_image_source, is_rows, iter_batches


class BatchScores(NamedTuple):
    """Anomaly scores of a batch: higher = more anomalous, as in the papers."""

    image: np.ndarray
    """(B,) float64, one score an image."""
    grid: np.ndarray
    """(B, h, w) float64, one score a patch; NaN where a patch lies in padding."""


class TrainingScores(NamedTuple):
    """Anomaly scores of the n training images."""

    out_of_sample: np.ndarray | None
    """(n,) float64, each image scored by a model that did not see it; None if that is impossible."""
    in_sample: np.ndarray | None
    """(n,) float64, as the hook for scoring gives them; None unless a percentile is asked for."""
    grids: np.ndarray
    """(n, h, w) float64, one score a patch, out of sample where that is possible; NaN in padding."""


class BaseImageDetector(CallbackSupportMixin, OutlierMixin, BaseEstimator):
    """Base of all image anomaly detectors."""

    _parameter_constraints: dict = {
        "image_size": [Interval(Integral, 1, None, closed="left")],
        "geometry": [StrOptions({"squash", "pad", "crop"})],
        "resize": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "smoothing": [Interval(Real, 0, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "target_false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Options(Integral, {-1}),
            None,
        ],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Parameters that may change on a fitted detector without making its scores wrong: where the
    # weights lie (their fingerprint is checked), on what device and in what portions to work.
    _free_after_fit: frozenset[str] = frozenset(
        {
            *("weights", "image_shape", "smoothing", "batch_size", "device"),
            *("n_jobs", "verbose", "random_state", "max_memory"),
        }
    )
    _stages: tuple[str, ...] = ()

    # ------------------------------------------------------------------ hooks

    @abstractmethod
    def _fit_images(self, images: ImageSource, progress: FitProgress) -> TrainingScores:
        """Learn from good images and score them."""

    @abstractmethod
    def _score_batch(self, batch: ImageBatch) -> BatchScores:
        """Score the images of a batch."""

    @abstractmethod
    def _smallest_side(self) -> int:
        """Pixels below which an image is refused."""

    # ---------------------------------------------------------------- fitting

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> BaseImageDetector:
        """Learn what good parts look like.

        Parameters
        ----------
        X : images
            Paths, PIL images or arrays of any sizes, an array of shape (n, H, W[, C]), or rows of
            flattened images (see ``image_shape``); n images.
        y : array-like of shape (n,), default=None
            Labels +1 (good) and -1 (defective): defective images are left out of the training.
            Anything else is ignored.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError, TypeError
            For images or parameters that cannot be used; the message names the item and the remedy.
        """
        # Whatever fails from here on leaves an unfitted detector, never one with half of a new state.
        self.__dict__.pop("_params_at_fit", None)
        images = self._open(X, reset=True)
        images = _good_images(images, y)
        if len(images) == 1 and self.contamination == "auto":
            raise ValueError(
                "n_samples=1: a threshold from leave-one-image-out scores needs at least two good "
                "images; pass contamination=<share> to fit on one image (one-shot)."
            )
        progress = FitProgress(self, len(self._stages), X, y)
        with progress.fitting():
            scores = self._fit_images(images, progress)
        self.n_images_ = len(images)
        self._calibrate(scores)
        self._training_scores = scores
        self._params_at_fit = self._frozen_params()
        return self

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

    def _calibrate(self, scores: TrainingScores) -> None:
        held_out = scores.out_of_sample
        peaks = np.array([self._render(grid).max() for grid in scores.grids], dtype=np.float64)
        self.calibration_scores_ = None if held_out is None else np.sort(-held_out)
        if self.calibration_scores_ is not None and self.contamination == "auto":
            rate = self.target_false_alarm_rate
            _warn_if_too_few(self.n_images_, rate)
            self.offset_ = _conformal_offset(self.calibration_scores_, rate)
            self.heatmap_threshold_ = -_conformal_offset(-peaks, rate)
        else:
            share = 100 * self.contamination
            self.offset_ = float(np.percentile(-np.asarray(scores.in_sample), share))
            self.heatmap_threshold_ = -float(np.percentile(-peaks, share))

    def _frozen_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        # A network of the user's own is recognised by the fingerprint of its weights.
        return {
            name: value
            for name, value in params.items()
            if name not in self._free_after_fit and (name != "backbone" or isinstance(value, str))
        }

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

    # ---------------------------------------------------------------- scoring

    def score_samples(self, X: Any) -> np.ndarray:
        """Score the normality of each image: minus the anomaly score of the paper.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher = more normal. The score of an image depends neither on the other images of X
            nor on ``batch_size``.
        """
        return -np.concatenate([scores.image for _, scores in self._iter_scores(X)])

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
            In (0, 1]; the smallest possible value is 1 / (n_images_ + 1).

        Raises
        ------
        ValueError
            If the detector was fitted on a single image.
        """
        self._check_unchanged()
        if self.calibration_scores_ is None:
            raise ValueError(
                "p-values need out-of-sample scores of at least two good training images; "
                "this detector was fitted on one."
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

    @overload
    def predict_heatmap(self, X: Any) -> np.ndarray | list[np.ndarray]: ...
    @overload
    def predict_heatmap(
        self, X: Any, return_scores: bool
    ) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]: ...

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
        """
        maps, scores = [], []
        for batch, result in self._iter_scores(X):
            scores.append(-result.image)
            for (height, width), grid in zip(batch.shapes, result.grid, strict=True):
                canvas = self._render(grid)
                maps.append(self.geometry_.restore(canvas, height, width))
        same = len({heatmap.shape for heatmap in maps}) == 1
        heatmaps = np.stack(maps) if same else maps
        return (heatmaps, np.concatenate(scores)) if return_scores else heatmaps

    @abstractmethod
    def _render(self, grid: np.ndarray) -> np.ndarray:
        """Turn an (h, w) grid of patch scores into an (S, S) float32 map on the canvas."""

    def _iter_scores(self, X: Any) -> Iterator[tuple[ImageBatch, BatchScores]]:
        self._check_unchanged()
        images = self._open(X, reset=False)
        images.check(self._smallest_side())
        for batch in self._iter_batches(images):
            yield batch, self._score_batch(batch)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # An ensemble asks for them right after fit; nobody does later.
        return {name: value for name, value in state.items() if name != "_training_scores"}

    # ----------------------------------------------------------------- images

    def _open(self, X: Any, *, reset: bool) -> ImageSource:
        """Take what the user holds; rows go through scikit-learn's own validation."""
        if is_rows(X):
            X = validate_data(self, X, reset=reset, dtype="numeric")
        elif reset:
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self, name):
                    delattr(self, name)
        return as_image_source(X, image_shape=self.image_shape)

    def _iter_batches(self, images: ImageSource) -> Iterator[ImageBatch]:
        n_workers = {None: None, -1: None, 1: 0}.get(self.n_jobs, self.n_jobs)
        return iter_batches(images, self.geometry_, self.batch_size, n_workers=n_workers)

    def _make_geometry(self) -> Geometry:
        resize = self.resize if self.geometry == "crop" else None
        return Geometry(self.geometry, self.image_size, resize)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _good_images(images: ImageSource, y: Any) -> ImageSource:
    """Leave out what y labels -1; every other coding of y is ignored."""
    if y is None:
        return images
    labels = np.asarray(y)
    if labels.ndim == 0 or labels.size == 0:
        return images
    values = set(np.unique(labels.astype(str) if labels.dtype == object else labels).tolist())
    if not values <= {1, -1} or labels.dtype == bool:
        _warn_about_coding(values)
        return images
    labels = column_or_1d(labels)
    if len(labels) != len(images):
        raise ValueError(f"y has {len(labels)} labels for {len(images)} images.")
    good = np.flatnonzero(labels == 1)
    if len(good) == 0:
        raise ValueError(
            "y labels every image -1 (defective): there is no good image to learn from."
        )
    return images if len(good) == len(images) else images.subset(good)


def _warn_about_coding(values: set) -> None:
    if values <= {0, 1} and len(values) == 2:
        warnings.warn(
            "y holds 0 and 1 and is ignored: all images count as good. The coding of labels is "
            "+1 = good, -1 = defective, as everywhere in scikit-learn's outlier detection.",
            UserWarning,
            stacklevel=4,
        )
    elif {-1, 1} <= values and len(values) == 3:
        warnings.warn(
            "y holds +1, -1 and a third value and is ignored: all images count as good. Labels must "
            "be exactly +1 (good) and -1 (defective) to leave defective images out.",
            UserWarning,
            stacklevel=4,
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
