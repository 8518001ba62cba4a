"""The scikit-learn contract of detectors that see images; knows no algorithm.

A detector derives from :class:`BaseImageDetector` and fills in three hooks: learn from a source of
good images, score a batch, render a map of patch scores on the network's canvas. Validation, labels
and image coordinates live here; what follows from the scores, in :mod:`skad._contract`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, overload
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.utils.validation import validate_data

from skad._callbacks import FitProgress
from skad._contract import BaseDetector
from skad._images import (
    Geometry,
    ImageBatch,
    ImageSource,
    as_image_source,
    check_kind,
    is_rows,
    iter_batches,
    short_errors,
    warn_of_rows,
)
from skad._sklearn_compat import Interval, Options, StrOptions, _fit_context, with_callbacks
from skad._torch.devices import PRECISIONS
from skad._validation.labels import good_images
from skad.exceptions import FeatureError

if TYPE_CHECKING:
    from typing_extensions import Self

# A backbone that a fitted detector needs stays in memory as long as the detector does: a process builds
# it once, however many others it works with.
_kept_backbones: WeakKeyDictionary[BaseImageDetector, Any] = WeakKeyDictionary()


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
            *("weights", "batch_size", "device", "n_jobs", "verbose"),
            *("random_state", "max_memory", "memory"),
        }
    )
    # Maps would change, and the scores of trained networks with them; their thresholds would not.
    _await_fit = frozenset({"smoothing"})
    _stages: tuple[str, ...] = ()
    weights_digest_: str

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
            Paths, PIL images, encoded images (bytes, open files) or arrays of any sizes, in a list, a
            column of a table or a data set; an array of shape (n, H, W[, C]); or rows of flattened
            images (see ``image_shape``); n images.
        y : array-like of shape (n,), default=None
            Labels +1 (good) and -1 (defective), of any numeric dtype: defective images are left out of
            the training.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError, TypeError
            For images, labels or parameters that cannot be used; the message names the item and the
            remedy.

        Warns
        -----
        UserWarning
            If y holds other numbers than +1 and -1: all images are learned from then.
        TabularDataWarning
            If X is a table of numbers and there is no ``image_shape``: each row is a strip then.
        ImageFileWarning
            If files hold several pages, or Pillow warns of them; once.
        """
        progress = FitProgress(self, len(self._stages), X, y)
        with self._unfitted_on_failure():
            self._become(self._fitted(X, y, progress))
        return self

    def _fitted(self, X: Any, y: Any, progress: FitProgress) -> Self:
        """Learn on a second self: whoever predicts meanwhile finds the state of before."""
        fitted = self._copy()
        images = fitted._open_good(X, y, reset=True)
        if len(images) == 1 and fitted.contamination == "auto":
            raise ValueError(
                "n_samples=1: a threshold from scores of images that were left out needs at least two "
                "good images; pass contamination=<share> to fit on one image (one-shot)."
            )
        with progress.fitting(), naming(images):
            scores = fitted._fit_images(images, progress)
        fitted.n_images_ = len(images)
        fitted._calibrate(scores.out_of_sample, scores.in_sample, scores.peaks)
        if self._in_ensemble:
            fitted._training_scores = scores
        fitted._params_at_fit = fitted._frozen_params()
        return fitted

    def _frozen_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        # A network of the user's own is recognised by what it is and answers: see `_check_weights`.
        # Copies: a list that is changed in place would be compared with itself.
        return {
            name: deepcopy(value)
            for name, value in params.items()
            if name not in self._free_after_fit and (name != "backbone" or isinstance(value, str))
        }

    def _note_weights(self, digest: str, identity: Any) -> None:
        """Take down what the backbone is recognised by; `identity` is None for a model of timm's."""
        self.weights_digest_ = digest
        self.__dict__.pop("_backbone_identity", None)
        if identity is not None:
            self._backbone_identity = identity

    def _difference(self, digest: str, identity: Any) -> str | None:
        """Name what tells a backbone from the one of the fit; None if nothing does."""
        if digest != self.weights_digest_:
            return "weights"
        noted = getattr(self, "_backbone_identity", None)
        return None if noted is None else noted.difference(identity)

    def _check_weights(self, digest: str, identity: Any = None) -> None:
        """Refuse to score with a backbone that was not the one of the fit."""
        difference = self._difference(digest, identity)
        if difference == "weights":
            raise ValueError(
                "the backbone's weights are not those this detector was fitted with: its scores "
                "would be wrong. Pass the original file with set_params(weights=...), or fit again."
            )
        if difference is not None:
            raise ValueError(
                f"the backbone has the weights that this detector was fitted with, but its {difference} "
                "changed: scores would be wrong. Pass the original network with "
                "set_params(backbone=...), or fit again."
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
        now = self._as_fitted()
        return -np.concatenate([scores.image for _, scores in now._iter_scores(X, maps=False)])

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
        now = self._as_fitted()
        maps, scores = [], []
        for batch, result in now._iter_scores(X, maps=True):
            scores.append(-result.image)
            grids: Any = result.grid
            for (height, width), grid in zip(batch.shapes, grids, strict=True):
                canvas = now._render(grid)
                maps.append(now.geometry_.restore(canvas, height, width))
        same = len({heatmap.shape for heatmap in maps}) == 1
        heatmaps = np.stack(maps) if same else maps
        return (heatmaps, np.concatenate(scores)) if return_scores else heatmaps

    @abstractmethod
    def _render(self, grid: np.ndarray) -> np.ndarray:
        """Turn an (h, w) grid of patch scores into an (S, S) float32 map on the canvas."""

    def _iter_scores(self, X: Any, maps: bool) -> Iterator[tuple[ImageBatch, BatchScores]]:
        images = self._open(X, reset=False)
        images.check(self._smallest_side())
        begun: list[tuple[ImageBatch, Callable[[], BatchScores]]] = []
        for batch in self._iter_batches(images):
            begun.append((batch, self._begin_scores(batch, maps)))
            if len(begun) > 1:
                yield _finished(*begun.pop(0), images)
        for before, finish in begun:
            yield _finished(before, finish, images)

    def _begin_scores(self, batch: ImageBatch, maps: bool) -> Callable[[], BatchScores]:
        """Give a device its work on a batch; what is returned waits for the results.

        The next batch is begun before: a GPU never waits for the host.
        """
        return partial(self._score_batch, batch, maps)

    # --------------------------------------------------------------- backbone

    def _find_backbone(self) -> Any:
        """Build what turns images into features, or find it where this process has it already."""
        return None

    def _backbone(self) -> Any:
        """Return what turns images into features, found once for a whole fit or prediction."""
        if not hasattr(self, "_held"):
            return self._find_backbone()
        if "backbone" not in self._held:
            self._held["backbone"] = self._find_backbone()
        return self._held["backbone"]

    def _as_fitted(self) -> Self:
        now = super()._as_fitted()
        if now is not self:
            _kept_backbones[self] = now._backbone()
        return now

    def _become(self, other: Self) -> None:
        _kept_backbones[self] = other._backbone()
        super()._become(other)

    # ----------------------------------------------------------------- images

    def _open_good(self, X: Any, y: Any, *, reset: bool) -> ImageSource:
        """Open the images to learn from."""
        images = self._open(X, reset=reset)
        good = good_images(y, len(images))
        return images if len(good) == len(images) else images.subset(good)

    def _open(self, X: Any, *, reset: bool) -> ImageSource:
        """Take what the user holds; rows go through scikit-learn's own validation."""
        rows = is_rows(X)
        if rows:
            with short_errors():
                X = validate_data(self, X, reset=reset, dtype="numeric")
        elif reset:
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self, name):
                    delattr(self, name)
        if self.image_shape is None and not reset:
            check_kind(rows, fitted_on_rows=hasattr(self, "n_features_in_"))
        elif self.image_shape is None and rows:
            warn_of_rows()
        return as_image_source(X, image_shape=self.image_shape)

    def _iter_batches(self, images: ImageSource) -> Iterator[ImageBatch]:
        return iter_batches(images, self.geometry_, self.batch_size, n_workers=self._n_workers())

    def _n_workers(self) -> int | None:
        """Threads that read images, as `iter_batches` counts them."""
        return {None: None, -1: None, 1: 0}.get(self.n_jobs, self.n_jobs)

    def _make_geometry(self) -> Geometry:
        resize = self.resize if self.geometry == "crop" else None
        return Geometry(self.geometry, self.image_size, resize)


def _finished(
    batch: ImageBatch, finish: Callable[[], BatchScores], images: ImageSource
) -> tuple[ImageBatch, BatchScores]:
    with naming(images):
        return batch, finish()


@contextmanager
def naming(images: ImageSource) -> Iterator[None]:
    """Call the image by its name, of which the backbone cannot say anything."""
    try:
        yield
    except FeatureError as error:
        raise FeatureError(error.largest, error.index, images.describe(error.index)) from error
