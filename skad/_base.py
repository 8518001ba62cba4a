"""The scikit-learn contract of detectors that see images; knows no algorithm.

A detector derives from :class:`BaseImageDetector` and fills in three hooks: learn from a source of
good images, score a batch, render a map of patch scores on the network's canvas. Validation, labels
and image coordinates live here; what follows from the scores, in :mod:`skad._contract`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple, overload

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import column_or_1d, validate_data

from skad._callbacks import FitProgress, with_callbacks
from skad._contract import BaseDetector
from skad._devices import PRECISIONS
from skad._images import Geometry, ImageBatch, ImageSource, as_image_source, is_rows, iter_batches


class BatchScores(NamedTuple):
    """Anomaly scores of a batch: higher = more anomalous, as in the papers."""

    image: np.ndarray
    """(B,) float64, one score an image."""
    grid: np.ndarray | None
    """(B, h, w) float64, one score a patch; NaN where a patch lies in padding. None: not asked for."""


class TrainingScores(NamedTuple):
    """Anomaly scores of the training images, or of the n that were left out."""

    out_of_sample: np.ndarray | None
    """(n,) float64, each image scored by a model that did not see it; None if that is impossible."""
    in_sample: np.ndarray | None
    """Float64, of all training images, as the hook for scoring gives them; None unless a percentile
    is asked for."""
    peaks: np.ndarray
    """(n,) float64, the highest value of each image's map, out of sample where that is possible."""
    grids: np.ndarray | None = None
    """(n, h, w), one score a patch; NaN in padding. For an ensemble, which asks for them."""
    rows: np.ndarray | None = None
    """(n,) int, where only a part of the training images was left out: which ones these n are."""


class BaseImageDetector(BaseDetector):
    """Base of the detectors that see images themselves."""

    _parameter_constraints: dict = {
        **BaseDetector._parameter_constraints,
        "image_size": [Interval(Integral, 1, None, closed="left")],
        "geometry": [StrOptions({"squash", "pad", "crop"})],
        "resize": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "smoothing": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Options(Integral, {-1}),
            None,
        ],
        "random_state": ["random_state"],
    }

    # Parameters that may change on a fitted detector without making its scores wrong: where the
    # weights lie (their fingerprint is checked), on what device and in what portions to work.
    _free_after_fit: frozenset[str] = frozenset(
        {
            *("weights", "image_shape", "smoothing", "batch_size", "device"),
            *("n_jobs", "verbose", "random_state", "max_memory", "memory"),
        }
    )
    _stages: tuple[str, ...] = ()
    weights_digest_: str
    # Set by an ensemble, which fuses the patch scores of the training images.
    _wants_grids = False

    # ------------------------------------------------------------------ hooks

    @abstractmethod
    def _fit_images(self, images: ImageSource, progress: FitProgress) -> TrainingScores:
        """Learn from good images and score them."""

    @abstractmethod
    def _score_batch(self, batch: ImageBatch, maps: bool) -> BatchScores:
        """Score the images of a batch; their patches too if there are to be maps."""

    @abstractmethod
    def _grid_shape(self) -> tuple[int, int]:
        """Rows and columns (h, w) of the grid of patch scores."""

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
        good = good_rows(y, len(images))
        images = images if len(good) == len(images) else images.subset(good)
        if len(images) == 1 and self.contamination == "auto":
            raise ValueError(
                "n_samples=1: a threshold from scores of images that were left out needs at least two "
                "good images; pass contamination=<share> to fit on one image (one-shot)."
            )
        progress = FitProgress(self, len(self._stages), X, y)
        with progress.fitting():
            scores = self._fit_images(images, progress)
        self.n_images_ = len(images)
        self._calibrate(scores.out_of_sample, scores.in_sample, scores.peaks)
        if self._wants_grids:
            self._training_scores = scores
        self._params_at_fit = self._frozen_params()
        return self

    def _frozen_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        # A network of the user's own is recognised by the fingerprint of its weights.
        return {
            name: value
            for name, value in params.items()
            if name not in self._free_after_fit and (name != "backbone" or isinstance(value, str))
        }

    def _check_weights(self, digest: str) -> None:
        """Refuse to score with a backbone that was not the one of the fit."""
        if digest != self.weights_digest_:
            raise ValueError(
                "the backbone's weights are not those this detector was fitted with: its scores "
                "would be wrong. Pass the original file with set_params(weights=...), or fit again."
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
            nor on ``batch_size``: on the CPU to the last bit, on a GPU up to rounding.
        """
        return -np.concatenate([scores.image for _, scores in self._iter_scores(X, maps=False)])

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
        for batch, result in self._iter_scores(X, maps=True):
            scores.append(-result.image)
            grids: Any = result.grid
            for (height, width), grid in zip(batch.shapes, grids, strict=True):
                canvas = self._render(grid)
                maps.append(self.geometry_.restore(canvas, height, width))
        same = len({heatmap.shape for heatmap in maps}) == 1
        heatmaps = np.stack(maps) if same else maps
        return (heatmaps, np.concatenate(scores)) if return_scores else heatmaps

    @abstractmethod
    def _render(self, grid: np.ndarray) -> np.ndarray:
        """Turn an (h, w) grid of patch scores into an (S, S) float32 map on the canvas."""

    def _iter_scores(self, X: Any, maps: bool) -> Iterator[tuple[ImageBatch, BatchScores]]:
        self._check_unchanged()
        images = self._open(X, reset=False)
        images.check(self._smallest_side())
        begun: list[tuple[ImageBatch, Callable[[], BatchScores]]] = []
        for batch in self._iter_batches(images):
            begun.append((batch, self._begin_scores(batch, maps)))
            if len(begun) > 1:
                before, finish = begun.pop(0)
                yield before, finish()
        for before, finish in begun:
            yield before, finish()

    def _begin_scores(self, batch: ImageBatch, maps: bool) -> Callable[[], BatchScores]:
        """Give a device its work on a batch; what is returned waits for the results.

        The next batch is begun before: a GPU never waits for the host.
        """
        return partial(self._score_batch, batch, maps)

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
        return iter_batches(images, self.geometry_, self.batch_size, n_workers=self._n_workers())

    def _n_workers(self) -> int | None:
        """Threads that read images, as `iter_batches` counts them."""
        return {None: None, -1: None, 1: 0}.get(self.n_jobs, self.n_jobs)

    def _make_geometry(self) -> Geometry:
        resize = self.resize if self.geometry == "crop" else None
        return Geometry(self.geometry, self.image_size, resize)


def good_rows(y: Any, n: int) -> np.ndarray:
    """Find the images that may be learned from: all but those labelled -1.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        +1 good, -1 defective; every other coding is ignored, {0, 1} with a warning.
    n : int
        Number of images.

    Returns
    -------
    ndarray of shape (n_good,), int

    Raises
    ------
    ValueError
        If labels and images differ in number, or no image is good.
    """
    everything = np.arange(n)
    labels = np.asarray(y)
    if y is None or labels.ndim == 0 or labels.size == 0:
        return everything
    values = set(np.unique(labels.astype(str) if labels.dtype == object else labels).tolist())
    if not values <= {1, -1} or labels.dtype == bool:
        _warn_about_coding(values)
        return everything
    labels = column_or_1d(labels)
    if len(labels) != n:
        raise ValueError(f"y has {len(labels)} labels for {n} images.")
    if not (labels == 1).any():
        raise ValueError(
            "y labels every image -1 (defective): there is no good image to learn from."
        )
    return everything[labels == 1]


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
