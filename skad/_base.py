"""The base of the detectors that see images: fitting, scoring, images and networks; knows no algorithm.

:class:`BaseDetector` makes of scores what scikit-learn and a plant ask for. :class:`BaseImageDetector`
opens images and scores them. A detector derives from it and fills in hooks: fit, score, render.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from skad._common.docstrings import with_inherited_texts
from skad._common.progress import FitProgress
from skad._image_input import ImageInput, naming
from skad._images import (
    Frame,
    ImageBatch,
    ImageSource,
    read_roi,
)
from skad._scoring.heatmaps import Heatmap
from skad._scoring.large_maps import LargeMap, RenderedMap, Window, held_if_small
from skad._scoring.maps import ImageScore, fill_padding, on_image, summarise
from skad._scoring.results import BatchScores, MappedImage, TrainingScores
from skad._sklearn_compat import (
    Interval,
    Options,
    RealNotInt,
    StrOptions,
    _fit_context,
    with_callbacks,
)
from skad._torch.devices import PRECISIONS
from skad._verdicts import BaseDetector

if TYPE_CHECKING:
    from typing_extensions import Self

# A network that a fitted detector needs stays in memory as long as the detector does: a process builds
# it once, however many others it works with.
_kept_networks: WeakKeyDictionary[BaseImageDetector, Any] = WeakKeyDictionary()
OTHER_WEIGHTS = (
    "the backbone's weights are not those this detector was fitted with: its scores would be wrong. "
    "Pass the original file with set_params(weights=...), or fit again."
)


@with_inherited_texts
class BaseImageDetector(ImageInput, BaseDetector):
    """Base of the detectors that see images; derive from it to make one of your own.

    A detector takes its parameters in ``__init__``, as every estimator of scikit-learn does: those that
    the base knows (see Parameters) and its own, whose constraints it adds to
    ``_parameter_constraints``. Then it fills in two hooks, `_fit_images` and `_score_batches`;
    the others have defaults:

    ``_fit_images(images, progress, *, grids)``
        Learn from good images, set attributes with trailing underscores, and return the
        :class:`TrainingScores` from which the thresholds follow. ``self._iter_batches(images)`` streams
        the images; ``progress.stage(name, total)`` reports a stage of those named in ``_stages``.
        `grids` says whether the scores of all patches are wanted as well, which only an ensemble does.
    ``_score_batches(batches, maps)``
        Yield :class:`BatchScores` of batch after batch: the scores of images, and of patches too, if
        `maps`. Where there are no scores of images, they are the highest values of the maps.
    ``_render(grid)``
        Turn an (h, w) grid of patch scores into an (S, S) map of the canvas. Default: bilinear
        up-sampling and a Gaussian, as in the papers.
    ``_find_network()``
        Return what turns images into features; hooks find it as ``self._network``. It has a ``digest``
        and an ``identity``, by which scoring recognises the network of the fit. Default: None.
    ``_begin_fit()``
        Before any work: refuse parameters that do not go together, and set what follows from them alone.
        Default: nothing.
    ``_deepest_stride()``
        Pixels between positions of the deepest layer in use, if it takes `tiles`. Default: 32.
    ``_smallest_side()``
        Pixels below which an image is refused. Default: 1.
    ``_rounding_of(anomaly)``
        How far a score moves where another processor rounds otherwise. Default: 1e-5 of it.

    Hooks run on a snapshot of the detector, whose attributes no other thread changes. They find
    ``self._image_score(grid, shape)``, which scores an image of a height and width by its map.

    Where a detector has a parameter `image_score` and it is "map", the score of an image must be the
    highest value of its map: one threshold serves verdicts, outlines and regions then. Other detectors
    have two, which can disagree.
    :func:`skad.utils.estimator_checks.check_image_detector` checks the result.

    Parameters
    ----------
    image_score : "map" or float
        What the score of an image is. "map": the highest value of its smoothed heat map; an image is
        defective exactly if something in it is outlined. A float in (0, 1]: the mean of this fraction of
        the map, the most anomalous.
    smoothing : float
        Standard deviation of the Gaussian that smooths heat maps, in pixels of the square. A change
        takes effect at the next fit.
    random_state : int, RandomState instance or None
        For what ``fit`` draws.

    Examples
    --------
    A pixel is as anomalous as it is far from the mean of the good images, in standard deviations. A
    training image is scored by the mean and the deviation of the others, which follow from sums.

    >>> import numpy as np
    >>> from skad.base import BaseImageDetector, BatchScores, TrainingScores
    >>> class TemplateDetector(BaseImageDetector):
    ...     _stages = ("template",)
    ...
    ...     def __init__(
    ...         self, *, geometry="squash", image_size=32, resize=None, image_shape=None,
    ...         image_score="map", smoothing=2.0, contamination="auto",
    ...         target_false_alarm_rate=0.05, batch_size=8, device="auto", precision="float32",
    ...         n_jobs=None, random_state=None, verbose=0,
    ...     ):
    ...         params = {**locals()}
    ...         for name in self._get_param_names():
    ...             setattr(self, name, params[name])
    ...
    ...     def _fit_images(self, images, progress, *, grids):
    ...         with progress.stage("template", len(images)) as advance:
    ...             batches = list(self._iter_batches(images))
    ...             X = np.concatenate([self._grey(batch) for batch in batches])
    ...             frames = [frame for batch in batches for frame in batch.frames]
    ...             advance(len(images))
    ...         n, total, squares = len(X), X.sum(0), (X**2).sum(0)
    ...         self.mean_, self.scale_ = self._mean_and_scale(n, total, squares)
    ...         held_out = np.stack([
    ...             self._distances(x, *self._mean_and_scale(n - 1, total - x, squares - x**2))
    ...             for x in X
    ...         ]) if n > 1 else self._distances(X, self.mean_, self.scale_)
    ...         in_sample = self._distances(X, self.mean_, self.scale_)
    ...         scores, whole = (
    ...             np.array([self._image_score(*one) for one in zip(found, frames)])
    ...             for found in (held_out, in_sample)
    ...         )
    ...         return TrainingScores(scores if n > 1 else None, whole, scores, held_out)
    ...
    ...     def _score_batches(self, batches, maps):
    ...         for batch in batches:
    ...             yield BatchScores(
    ...                 None, self._distances(self._grey(batch), self.mean_, self.scale_)
    ...             )
    ...
    ...     def _grey(self, batch):
    ...         scale = 255 if batch.pixels.dtype == np.uint8 else 1
    ...         return batch.pixels.mean(3, dtype=np.float64) / scale
    ...
    ...     def _mean_and_scale(self, n, total, squares):
    ...         mean = total / n
    ...         return mean, np.sqrt(np.maximum(squares / n - mean**2, 0)) + 0.01
    ...
    ...     def _distances(self, X, mean, scale):
    ...         return np.abs(X - mean) / scale
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(30, 32, 32, 3), dtype=np.uint8)
    >>> damaged = good[:2].copy()
    >>> damaged[:, 8:20, 8:20] = 255
    >>> det = TemplateDetector().fit(good)
    >>> det.predict(damaged)
    array([-1, -1])
    >>> det.predict_heatmap(damaged).shape
    (2, 32, 32)
    """

    _parameter_constraints: dict = {
        **BaseDetector._parameter_constraints,
        "image_size": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "geometry": [StrOptions({"squash", "pad", "crop"})],
        "resize": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "tiles": ["array-like", StrOptions({"native"}), None],
        "roi": ["array-like", str, os.PathLike, callable, None],
        "image_score": [
            StrOptions({"map"}),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
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
    # It shapes maps, and scores with them.
    _await_fit = frozenset({"smoothing"})
    _stages: tuple[str, ...] = ()
    weights_digest_: str

    # ------------------------------------------------------------------ hooks

    @abstractmethod
    def _fit_images(
        self, images: ImageSource, progress: FitProgress, *, grids: bool
    ) -> TrainingScores:
        """Learn from good images and score them."""

    @abstractmethod
    def _score_batches(self, batches: Iterator[ImageBatch], maps: bool) -> Iterator[BatchScores]:
        """Score batches of images; their patches too, if there are to be maps."""

    def _render(self, grid: np.ndarray) -> np.ndarray:
        """Turn an (h, w) grid of patch scores into a float64 map of the canvas."""
        return self._heatmap().render(grid)

    def _find_network(self) -> Any:
        """Build what turns images into features, or find it where this process has it already."""
        return None

    def _begin_fit(self) -> None:
        """Refuse parameters that do not go together; set what follows from them alone."""

    # ---------------------------------------------------------------- fitting

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
        self._fit(X, y)
        return self

    @with_callbacks
    def _fit(self, X: Any, y: Any, *, in_ensemble: bool = False) -> TrainingScores:
        """Fit; an ensemble takes the scores, and thresholds of its own in place of the detector's."""
        progress = FitProgress(self, len(self._stages), X, y)
        with self._unfitted_on_failure():
            fitted = self._snapshot()
            scores = fitted._learn(X, y, progress, in_ensemble)
            self._become(fitted)
        return scores

    def _learn(self, X: Any, y: Any, progress: FitProgress, in_ensemble: bool) -> TrainingScores:
        """Learn, on a snapshot: whoever predicts meanwhile finds the state of before."""
        images = self._open_good(X, y, reset=True)
        if len(images) == 1 and self.contamination == "auto":
            raise ValueError(
                "n_samples=1: a threshold from scores of images that were held out needs at least two "
                "good images; pass contamination=<fraction> to fit on one image (one-shot)."
            )
        self.roi_ = read_roi(getattr(self, "roi", None))
        self.geometry_ = self._make_geometry(images)
        self._begin_fit()
        self._network = self._find_network()
        self._check_images(images)
        self._warn_of_shapes(images)
        with progress.fitting(), naming(images):
            scores = self._fit_images(images, progress, grids=in_ensemble)
        self._note_network()
        self.n_images_ = len(images)
        self.training_scores_ = scores.of_training(len(images))
        self._calibrate(scores.calibrating(), scores.in_sample, scores.peaks, warn=not in_ensemble)
        self._params_at_fit = self._frozen_params()
        return scores

    def _frozen_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        # A network of the user's own is recognised by what it is and answers: see `_check_network`.
        # Copies: a list that is changed in place would be compared with itself.
        return {
            name: deepcopy(value)
            for name, value in params.items()
            if name not in self._free_after_fit and (name != "backbone" or isinstance(value, str))
        }

    def _note_network(self) -> None:
        """Take down what the network is recognised by; a model of timm's has no identity."""
        self.__dict__.pop("_backbone_identity", None)
        if self._network is not None:
            self.weights_digest_ = self._network.digest
            if self._network.identity is not None:
                self._backbone_identity = self._network.identity

    def _network_difference(self) -> str | None:
        """Name what tells the network from the one of the fit; None if nothing does."""
        if self._network is None:
            return None
        if self._network.digest != self.weights_digest_:
            return "weights"
        noted = getattr(self, "_backbone_identity", None)
        return None if noted is None else noted.difference(self._network.identity)

    def _check_network(self) -> None:
        """Refuse to score with a network that was not the one of the fit."""
        difference = self._network_difference()
        if difference == "weights":
            raise ValueError(OTHER_WEIGHTS)
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
        return -np.concatenate([result.image for _, result in now._iter_scores(X, maps=False)])

    def _iter_maps(self, X: Any) -> Iterator[MappedImage]:
        for frames, scores in self._iter_scores(X, maps=True):
            grids: Any = scores.grid
            for frame, score, grid in zip(frames, scores.image.tolist(), grids, strict=True):
                yield MappedImage.of(self._map_of(grid, frame), self.geometry_, frame, score)

    def _map_of(self, grid: np.ndarray, frame: Frame) -> np.ndarray | LargeMap:
        """Render the map of an image, or what renders it piece by piece where it is large."""
        if self._renders_otherwise():
            return self._render(grid)
        heatmap, pixels = self._heatmap(), self.geometry_.pixels(*frame)
        return held_if_small(RenderedMap(heatmap, grid, pixels))

    def _window_of(self, grid: np.ndarray, *, smooth: bool = True) -> Window:
        """Return what renders rows and columns of the map of an image."""
        heatmap = self._heatmap() if smooth else self._heatmap()._replace(sigma=0.0)
        if not (smooth and self._renders_otherwise()):
            return partial(heatmap.window, fill_padding(grid).astype(np.float64, copy=False))
        canvas = self._render(grid)
        return lambda rows, columns: canvas[rows, columns]

    def _renders_otherwise(self) -> bool:
        """Whether a subclass has a way of its own from grids to maps."""
        return type(self)._render is not BaseImageDetector._render

    def _heatmap(self) -> Heatmap:
        """Return how grids of patch scores become maps."""
        return Heatmap(self._size_of, float(self.smoothing))

    def _size_of(self, grid: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the canvas on which a grid of patches lies."""
        if self.geometry_.tiling is None:
            return self.geometry_.canvas
        height, width = self._cell()
        return grid[0] * height, grid[1] * width

    def _cell(self) -> tuple[int, int]:
        """Height and width of a patch in pixels, where images have tiles of their own number."""
        return 1, 1

    def _image_score(self, grid: np.ndarray, frame: Frame) -> float:
        """Score an image by the scores of its patches: by its map."""
        return self._summary(grid, frame, getattr(self, "image_score", "map"))

    def _summary(self, grid: np.ndarray, frame: Frame, image_score: ImageScore) -> float:
        """Sum up the map of an image, where it counts, by its highest value or the mean of a share."""
        pixels = self.geometry_.pixels(*frame)
        if self._renders_otherwise():
            return summarise(on_image(self._render(grid), pixels), image_score)
        return self._heatmap().summary(grid, pixels, image_score)

    def _iter_scores(self, X: Any, maps: bool) -> Iterator[tuple[list[Frame], BatchScores]]:
        """Score batch after batch; also yield what is known of its images beside their pixels."""
        images = self._open(X, reset=False)
        self._check_images(images)
        # A detector may take the next batch before it has finished this one.
        begun: deque[list[Frame]] = deque()

        def batches() -> Iterator[ImageBatch]:
            for batch in self._iter_batches(images):
                begun.append(batch.frames)
                yield batch

        with naming(images):
            for scores in self._score_batches(batches(), maps):
                frames = begun.popleft()
                if scores.image is None:
                    grids: Any = scores.grid
                    found = map(self._image_score, grids, frames)
                    scores = scores._replace(image=np.fromiter(found, np.float64, len(frames)))
                yield frames, scores

    def _as_fitted(self) -> Self:
        now = super()._as_fitted()
        if now is not self:
            _kept_networks[self] = now._network = now._find_network()
            now._check_network()
        return now

    def _become(self, learned: Self, **params: Any) -> None:
        if hasattr(learned, "_network"):
            _kept_networks[self] = learned._network
        super()._become(learned, **params)
