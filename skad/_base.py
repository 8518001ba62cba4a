"""The scikit-learn contract: validation, labels, state, thresholds, p-values; knows no algorithm.

:class:`BaseDetector` makes of scores what scikit-learn and a plant ask for. :class:`BaseImageDetector`
opens images and brings maps back to their coordinates. A detector derives from it and fills in hooks:
fit, score, render.

**One state.** A fit, and a prediction, works on a snapshot of the detector (`_snapshot`): a prediction
takes everything that it needs at its entry (`_as_fitted`), a fit hands over what it has learned in one
assignment (`_become`). Whatever other threads do, no prediction sees the bank of one state and the
threshold of another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skad._common.labels import CodingError, OneClassError, good_images, read_both_labels
from skad._common.pickles import portable, versions, warn_of_other_versions
from skad._common.progress import FitProgress
from skad._common.warn import warn_user
from skad._images import (
    CanvasCache,
    Geometry,
    ImageBatch,
    ImageSource,
    as_image_source,
    is_rows,
    iter_batches,
    refuse_other_kind,
    refuse_single,
    short_errors,
    warn_of_rows,
)
from skad._scoring.heatmaps import render
from skad._scoring.results import BatchScores, TrainingScores
from skad._scoring.thresholds import conformal_threshold, margin_at_ties, warn_if_too_few
from skad._sklearn_compat import (
    CallbackSupportMixin,
    Interval,
    Options,
    StrOptions,
    _fit_context,
    _num_samples,
    with_callbacks,
)
from skad._torch.devices import PRECISIONS
from skad.exceptions import FeatureError

if TYPE_CHECKING:
    from typing_extensions import Self

# A network that a fitted detector needs stays in memory as long as the detector does: a process builds
# it once, however many others it works with.
_kept_networks: WeakKeyDictionary[BaseImageDetector, Any] = WeakKeyDictionary()
OTHER_WEIGHTS = (
    "the backbone's weights are not those this detector was fitted with: its scores would be wrong. "
    "Pass the original file with set_params(weights=...), or fit again."
)
# Attributes that only a snapshot has.
_OF_SNAPSHOTS = frozenset({"_is_snapshot", "_network"})


class BaseDetector(CallbackSupportMixin, OutlierMixin, BaseEstimator):
    """What follows from scores: threshold, predictions, p-values, AUROC."""

    _parameter_constraints: dict = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "target_false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "verbose": ["verbose"],
    }

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

    def _snapshot(self) -> Self:
        """Copy the detector as it is now: attributes of the copy are set without touching its own."""
        copied = object.__new__(type(self))
        copied.__dict__ = {**vars(self), "_is_snapshot": True}
        return copied

    def _become(self, learned: Self) -> None:
        """Take over what a snapshot has learned, all of it at once; parameters stay as they are."""
        state = {name: value for name, value in vars(learned).items() if name not in _OF_SNAPSHOTS}
        self.__dict__ = {**state, **self.get_params(deep=False)}

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
        self,
        held_out: np.ndarray | None,
        in_sample: np.ndarray | None,
        peaks: np.ndarray,
        *,
        warn: bool = True,
    ) -> None:
        """Set thresholds from anomaly scores, and peaks of heat maps, of the training images."""
        self.calibration_scores_ = None if held_out is None else np.sort(-held_out)
        if held_out is not None and self.contamination == "auto":
            rate = self.target_false_alarm_rate
            if warn:
                warn_if_too_few(len(held_out), rate)
            scores, threshold = -held_out, partial(conformal_threshold, rate=rate)
        else:
            percent = 100 * self.contamination
            scores, threshold = -np.asarray(in_sample), partial(np.percentile, q=percent)
        self.offset_, self._margin = self._with_margin(scores, float(threshold(scores)))
        lowest, _ = self._with_margin(-peaks, float(threshold(-peaks)))
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # ---------------------------------------------------------------- pickling

    def __getstate__(self) -> dict[str, Any]:
        state = {name: portable(value) for name, value in super().__getstate__().items()}
        return {**state, "_versions": versions()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        warn_of_other_versions(type(self).__name__, state.pop("_versions", {}))
        super().__setstate__(state)


class BaseImageDetector(BaseDetector):
    """Base of the detectors that see images; derive from it to make one of your own.

    A detector takes its parameters in ``__init__``, as every estimator of scikit-learn does: those that
    the base reads (see Parameters) and its own, whose constraints it adds to
    ``_parameter_constraints``. Then it fills in two hooks, `_fit_images` and `_score_batches`;
    the others have defaults:

    ``_fit_images(images, progress, *, grids)``
        Learn from good images, set attributes with trailing underscores, and return the
        :class:`TrainingScores` from which the thresholds follow. ``self._iter_batches(images)`` streams
        the images; ``progress.stage(name, total)`` reports a stage of those named in ``_stages``.
        `grids` says whether the scores of all patches are wanted as well, which only an ensemble does.
    ``_score_batches(batches, maps)``
        Yield :class:`BatchScores` of batch after batch; the scores of patches too, if `maps`.
    ``_render(grid)``
        Turn an (h, w) grid of patch scores into an (S, S) map of the canvas. Default: bilinear
        up-sampling and a Gaussian, as in the papers.
    ``_find_network()``
        Return what turns images into features; hooks find it as ``self._network``. It has a ``digest``
        and an ``identity``, by which scoring recognises the network of the fit. Default: None.
    ``_begin_fit()``
        Before any work: refuse parameters that do not go together, and set what follows from them alone.
        Default: nothing.
    ``_smallest_side()``
        Pixels below which an image is refused. Default: 1.
    ``_rounding_of(anomaly)``
        How far a score moves where another processor rounds otherwise. Default: 1e-5 of it.

    Hooks run on a snapshot of the detector, whose attributes no other thread changes.
    :func:`skad.utils.estimator_checks.check_image_detector` checks the result.

    Parameters
    ----------
    image_size, geometry, resize, image_shape, smoothing, batch_size, device, precision, n_jobs
        As in :class:`skad.PatchCoreDetector`.
    contamination, target_false_alarm_rate, random_state, verbose
        As in :class:`skad.PatchCoreDetector`.

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
    ...         smoothing=2.0, contamination="auto", target_false_alarm_rate=0.05, batch_size=8,
    ...         device="auto", precision="float32", n_jobs=None, random_state=None, verbose=0,
    ...     ):
    ...         params = {**locals()}
    ...         for name in self._get_param_names():
    ...             setattr(self, name, params[name])
    ...
    ...     def _fit_images(self, images, progress, *, grids):
    ...         with progress.stage("template", len(images)) as advance:
    ...             X = np.concatenate([self._grey(b) for b in self._iter_batches(images)])
    ...             advance(len(images))
    ...         n, total, squares = len(X), X.sum(0), (X**2).sum(0)
    ...         self.mean_, self.scale_ = self._mean_and_scale(n, total, squares)
    ...         held_out = np.stack([
    ...             self._distances(x, *self._mean_and_scale(n - 1, total - x, squares - x**2))
    ...             for x in X
    ...         ]) if n > 1 else self._distances(X, self.mean_, self.scale_)
    ...         peaks = np.array([self._render(grid).max() for grid in held_out])
    ...         in_sample = self._distances(X, self.mean_, self.scale_).max((1, 2))
    ...         return TrainingScores(
    ...             held_out.max((1, 2)) if n > 1 else None, in_sample, peaks, held_out
    ...         )
    ...
    ...     def _score_batches(self, batches, maps):
    ...         for batch in batches:
    ...             grid = self._distances(self._grey(batch), self.mean_, self.scale_)
    ...             yield BatchScores(grid.max((1, 2)), grid)
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
    def _fit_images(
        self, images: ImageSource, progress: FitProgress, *, grids: bool
    ) -> TrainingScores:
        """Learn from good images and score them."""

    @abstractmethod
    def _score_batches(self, batches: Iterator[ImageBatch], maps: bool) -> Iterator[BatchScores]:
        """Score batches of images; their patches too, if there are to be maps."""

    def _render(self, grid: np.ndarray) -> np.ndarray:
        """Turn an (h, w) grid of patch scores into an (S, S) float32 map of the canvas."""
        return render(grid, self.geometry_.image_size, self.smoothing)

    def _find_network(self) -> Any:
        """Build what turns images into features, or find it where this process has it already."""
        return None

    def _begin_fit(self) -> None:
        """Refuse parameters that do not go together; set what follows from them alone."""

    def _smallest_side(self) -> int:
        """Pixels below which an image is refused."""
        return 1

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
        self.geometry_ = self._make_geometry()
        self._begin_fit()
        self._network = self._find_network()
        images.check(self._smallest_side())
        with progress.fitting(), naming(images):
            scores = self._fit_images(images, progress, grids=in_ensemble)
        self._note_network()
        self.n_images_ = len(images)
        self._calibrate(scores.out_of_sample, scores.in_sample, scores.peaks, warn=not in_ensemble)
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
        for shapes, result in now._iter_scores(X, maps=True):
            scores.append(-result.image)
            grids: Any = result.grid
            for (height, width), grid in zip(shapes, grids, strict=True):
                canvas = now._render(grid)
                maps.append(now.geometry_.restore(canvas, height, width))
        same = len({heatmap.shape for heatmap in maps}) == 1
        heatmaps = np.stack(maps) if same else maps
        return (heatmaps, np.concatenate(scores)) if return_scores else heatmaps

    def _iter_scores(
        self, X: Any, maps: bool
    ) -> Iterator[tuple[list[tuple[int, int]], BatchScores]]:
        """Score batch after batch; also yield the heights and widths of its images."""
        images = self._open(X, reset=False)
        images.check(self._smallest_side())
        # A detector may take the next batch before it has finished this one.
        begun: deque[list[tuple[int, int]]] = deque()

        def batches() -> Iterator[ImageBatch]:
            for batch in self._iter_batches(images):
                begun.append(batch.shapes)
                yield batch

        with naming(images):
            for scores in self._score_batches(batches(), maps):
                yield begun.popleft(), scores

    def _as_fitted(self) -> Self:
        now = super()._as_fitted()
        if now is not self:
            _kept_networks[self] = now._network = now._find_network()
            now._check_network()
        return now

    def _become(self, learned: Self) -> None:
        _kept_networks[self] = learned._network
        super()._become(learned)

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
        fitted_on_rows = hasattr(self, "n_features_in_")
        if self.image_shape is None and rows and reset:
            warn_of_rows()
        elif self.image_shape is None and rows != fitted_on_rows:
            refuse_other_kind(rows)
        return as_image_source(X, image_shape=self.image_shape)

    def _iter_batches(
        self,
        images: ImageSource,
        order: np.ndarray | None = None,
        cache: CanvasCache | None = None,
    ) -> Generator[ImageBatch, None, None]:
        """Stream images in batches, on the canvas."""
        # One job reads in the calling thread.
        n_workers = {None: None, -1: None, 1: 0}.get(self.n_jobs, self.n_jobs)
        return iter_batches(
            images, self.geometry_, self.batch_size, n_workers=n_workers, order=order, cache=cache
        )

    def _make_geometry(self) -> Geometry:
        resize = self.resize if self.geometry == "crop" else None
        return Geometry(self.geometry, self.image_size, resize)


@contextmanager
def naming(images: ImageSource) -> Iterator[None]:
    """Call the image by its name, of which the backbone cannot say anything."""
    try:
        yield
    except FeatureError as error:
        raise FeatureError(error.largest, error.index, images.describe(error.index)) from error
