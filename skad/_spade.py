"""SPADE: the nearest good images, and the nearest of their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch

from skad._bank import Gallery
from skad._base import BaseImageDetector
from skad._common.docstrings import with_inherited_texts
from skad._common.memory import parse_bytes
from skad._common.progress import FitProgress
from skad._features import (
    Pyramid,
    check_features,
    layer_strides,
)
from skad._images import Frame, ImageBatch, ImageSource
from skad._pyramid_input import PyramidInput, writable
from skad._scoring.plain import mean_of_nearest
from skad._scoring.results import BatchScores, TrainingScores
from skad._sklearn_compat import Interval, RealNotInt, StrOptions
from skad._torch.devices import is_plain_mode

# Length of a rounding error, as a fraction of a vector's: as for PatchCore.
_ROUNDING = {"float32": 1e-3, "bfloat16": 1e-2}


class Described(NamedTuple):
    """What is taken of an image."""

    descriptor: np.ndarray
    """(D,) float32, the mean over the places of the image's layer that count."""
    values: torch.Tensor
    """(n_values,) float32, the layers of the pyramid."""
    counting: np.ndarray
    """(h, w) bool, places of the finest layer that count."""


@with_inherited_texts
class SPADEDetector(PyramidInput, BaseImageDetector):
    """SPADE: distances to the most similar good images, and to the nearest of their pixels.

    A frozen backbone looks at good images, and all of its features are kept. A new image is as anomalous
    as it is far, on the mean, from its k nearest good ones by features that are averaged over the whole
    image. A pixel is as anomalous as the values of its layers are far from the nearest among those of
    all pixels of these k images.

    For small training sets of parts that look different, or lie anywhere: nothing is learned but what
    there is.

    Parameters
    ----------
    layers : tuple of int or "auto", default="auto"
        Layers of the backbone that make the pyramid, shallow to deep; the first fixes the grid of
        pixels, to which the others are brought by their nearest values. "auto": those of strides 4, 8
        and 16, which are (1, 2, 3) of a ResNet, as in the paper; of other networks as in
        :class:`PatchCoreDetector`. Ignored for a network of your own, whose maps are all taken.
    image_layer : int or "auto", default="auto"
        Layer whose mean over the image finds the nearest images. "auto": the last of the network, as in
        the paper; of a network of your own, its last map.
    k : int, default=50
        Images that are retrieved, K of the paper. With ``contamination="auto"`` there must be one
        more to learn from, since every training image is compared with the others.
    kappa : int, default=1
        A pixel's score is the mean distance to this many nearest pixels.
    distance : {"euclidean", "squared"}, default="euclidean"
        What is averaged: distances, or their squares.
    image_score : {"images", "map"} or float, default="images"
        What the score of an image is. "images": the mean distance to its k nearest, as in the paper;
        outlines have a threshold of their own then, which can disagree with the verdict. "map": the
        highest value of its smoothed heat map; an image is defective exactly if something in it is
        outlined. A float in (0, 1]: the mean of this fraction of the map, the most anomalous.
    max_memory : int, str or None, default=None
        Bytes (or "4GB") that features may take. All of them are kept: where they would take more,
        ``fit`` refuses to begin. None: no limit.
    contamination : "auto" or float, default="auto"
        "auto": the threshold keeps `target_false_alarm_rate`, by the score of each training image
        among all others. A float in (0, 0.5]: scikit-learn's percentile of the training scores.
    random_state : int, RandomState instance or None, default=None
        Has no influence: nothing is drawn.

    Attributes
    ----------
    descriptors_ : ndarray of shape (n_images, D), float32
        The means by which images are found.
    features_ : ndarray of shape (n_images, n_values), float32
        The layers of the pyramid, each at its own resolution, one after the other.
    counting_ : ndarray of shape (n_images, h, w), bool
        Pixels of the finest layer that may be found: not those in padding.
    layers_, image_layer_ : tuple of int, int
        What became of `layers` and `image_layer`; () and -1 for a network of your own.
    offset_, heatmap_threshold_, n_images_, n_features_in_, image_size_
        As in :class:`PatchCoreDetector`.
    training_scores_, calibration_scores_
        As in :class:`PatchCoreDetector`; each image is scored without itself.
    geometry_, feature_spec_, weights_digest_
        What the features of a new image depend on.

    See Also
    --------
    PatchCoreDetector : Compares with a coreset of the patches of all images.
    PaDiMDetector : Compares with what is usual at the same place.

    Notes
    -----
    **Time.** Scores of images cost the network alone. A map compares every pixel with all of k images,
    which takes one to six seconds on one core for k = 50 and ResNet-18 at 224 pixels, the more the more
    uniform the texture. ``fit`` makes a map of every training image, from which ``heatmap_threshold_``
    follows.

    **Size.** The detector keeps 1.4 MB for an image of 224 pixels with ResNet-18, and 5.6 MB with
    WideResNet-50; a file as much.

    The published setting is ``geometry="crop", image_size=224, k=50`` with WideResNet-50.

    References
    ----------
    .. [1] N. Cohen, Y. Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences",
       arXiv:2005.02357, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import SPADEDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(12, 64, 64, 3), dtype=np.uint8)
    >>> damaged = good.copy()
    >>> damaged[:, 8:20, 8:20] = 255
    >>> det = SPADEDetector(
    ...     "skad_nano", image_size=64, k=5, target_false_alarm_rate=0.2
    ... ).fit(good[:10])
    >>> det.predict(damaged[:2])
    array([-1, -1])
    >>> det.descriptors_.shape
    (10, 128)
    """

    _doc_link_template = "https://arxiv.org/abs/2005.02357"

    _parameter_constraints: dict = {
        **BaseImageDetector._parameter_constraints,
        **PyramidInput._pyramid_constraints,
        "image_layer": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "k": [Interval(Integral, 1, None, closed="left")],
        "kappa": [Interval(Integral, 1, None, closed="left")],
        "distance": [StrOptions({"euclidean", "squared"})],
        "image_score": [
            StrOptions({"images", "map"}),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "max_memory": [Interval(Integral, 1, None, closed="left"), str, None],
    }
    del _parameter_constraints["tiles"]
    _stages = ("extraction", "calibration")

    def __init__(
        self,
        backbone="wide_resnet50_2.tv_in1k",
        *,
        weights="pretrained",
        layers="auto",
        image_layer="auto",
        k=50,
        kappa=1,
        distance="euclidean",
        geometry="squash",
        image_size=224,
        resize=None,
        image_shape=None,
        roi=None,
        image_score="images",
        smoothing=4.0,
        max_memory=None,
        memory=None,
        contamination="auto",
        target_false_alarm_rate=0.05,
        batch_size=8,
        device="auto",
        precision="float32",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.image_layer = image_layer
        self.k = k
        self.kappa = kappa
        self.distance = distance
        self.geometry = geometry
        self.image_size = image_size
        self.resize = resize
        self.image_shape = image_shape
        self.roi = roi
        self.image_score = image_score
        self.smoothing = smoothing
        self.max_memory = max_memory
        self.memory = memory
        self.contamination = contamination
        self.target_false_alarm_rate = target_false_alarm_rate
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # ---------------------------------------------------------------- fitting

    def _begin_fit(self) -> None:
        self.layers_, _ = super()._layers_and_patch_size()
        self.image_layer_ = -1
        if not isinstance(self.backbone, str):
            self.layers_ = ()
        elif isinstance(self.image_layer, str):
            self.image_layer_ = len(layer_strides(self.backbone)) - 1
        else:
            self.image_layer_ = int(self.image_layer)
        super()._begin_fit()

    def _layers_and_patch_size(self) -> tuple[tuple[int, ...], int]:
        """Ask for the layers of the pyramid and of the image, shallow to deep."""
        if self.image_layer_ < 0:
            return super()._layers_and_patch_size()
        return tuple(sorted({*self.layers_, self.image_layer_})), 1

    def _fit_images(
        self, images: ImageSource, progress: FitProgress, *, grids: bool
    ) -> TrainingScores:
        self._check_numbers(len(images))
        pyramid = self._pyramid()
        self._check_room(len(images) * pyramid.n_values)
        self.features_ = np.empty((len(images), pyramid.n_values), dtype=np.float32)
        self.counting_ = np.empty((len(images), *pyramid.grid), dtype=bool)
        descriptors: list[np.ndarray] = []
        frames: list[Frame] = []
        with progress.stage("extraction", len(images)) as advance:
            for frame, one in self._describe(self._iter_batches(images)):
                self.features_[len(frames)] = one.values.cpu().numpy()
                self.counting_[len(frames)] = one.counting
                descriptors.append(one.descriptor)
                frames.append(frame)
                advance(len(frames))
        self.descriptors_ = np.stack(descriptors)
        self._check_places()
        with progress.stage("calibration", len(images)) as advance:
            found = []
            for i, frame in enumerate(frames):
                found.append(self._score_training(i, frame, grids))
                advance(len(found))
        left_out, in_sample, peaks, kept = zip(*found, strict=True)
        return TrainingScores(
            np.array(left_out) if len(images) > 1 else None,
            np.array(in_sample) if self.contamination != "auto" else None,
            np.array(peaks),
            np.stack(kept) if grids else None,
        )

    def _check_numbers(self, n_images: int) -> None:
        least = self.k if n_images == 1 or self.contamination != "auto" else self.k + 1
        if n_images < least:
            others = "" if least == self.k else ", which leave one fewer to compare an image with"
            raise ValueError(
                f"k={self.k} nearest images cannot be found among {n_images} good images{others}: set "
                f"k={max(1, n_images - (least - self.k))} at most, or fit on more images."
            )

    def _check_places(self) -> None:
        fewest = int(self.counting_.sum(axis=(1, 2)).min())
        if self.kappa > fewest:
            raise ValueError(
                f"kappa={self.kappa} nearest pixels cannot be found: an image has {fewest} of the "
                "finest layer. Set kappa lower."
            )

    def _check_room(self, n_values: int) -> None:
        if self.max_memory is not None and 4 * n_values > parse_bytes(self.max_memory):
            raise ValueError(
                f"max_memory={self.max_memory!r}: the features, all of which are kept, take "
                f"{4 * n_values / 1e6:.1f} MB. Raise it, set a smaller image_size or deeper layers, or "
                "fit on fewer images."
            )

    def _score_training(
        self, i: int, frame: Frame, grids: bool
    ) -> tuple[float, float, float, np.ndarray | None]:
        """Score a training image without itself, and as a new one if that is asked for.

        Returns both scores, the highest value of the map without itself, and its grid if wanted.
        """
        one = Described(
            self.descriptors_[i], torch.from_numpy(self.features_[i]), self.counting_[i]
        )
        in_sample = np.nan
        alone = len(self.descriptors_) == 1
        if alone or self.contamination != "auto":
            in_sample, _ = self._score(one, frame, maps=self.image_score != "images")
        score, grid = self._score(one, frame, without=None if alone else i, maps=True)
        return score, in_sample, self._summary(grid, frame, "map"), grid if grids else None

    # ---------------------------------------------------------------- scoring

    def _score_batches(self, batches: Iterator[ImageBatch], maps: bool) -> Iterator[BatchScores]:
        maps = maps or self.image_score != "images"
        for batch in batches:
            found = [
                self._score(one, frame, maps=maps) for frame, one in self._describe(iter([batch]))
            ]
            scores, grids = zip(*found, strict=True)
            yield BatchScores(np.array(scores), np.stack(grids) if maps else None)

    def _describe(self, batches: Iterator[ImageBatch]) -> Iterator[tuple[Frame, Described]]:
        """Take of image after image what it is found and compared by."""
        pyramid, (of_pyramid, of_image) = self._pyramid(), self._which()
        shape = self._network.layer_shapes[of_image]
        for batch in batches:
            pooled = self._network.pool(batch.pixels)
            check_features(pooled, batch.start)
            layers = self._network.split(pooled)
            taken = pyramid.take([layers[j] for j in of_pyramid])
            on_grid = self.geometry_.footprints(batch.frames, pyramid.grid)
            on_layer = self.geometry_.footprints(batch.frames, shape[:2])
            for i, frame in enumerate(batch.frames):
                places = layers[of_image][i][torch.from_numpy(on_layer[i].mask)]
                descriptor = places.double().mean(dim=0).float().cpu().numpy()
                yield frame, Described(descriptor, taken[i], on_grid[i].mask)

    def _score(
        self, one: Described, frame: Frame, *, maps: bool, without: int | None = None
    ) -> tuple[float, Any]:
        """Score an image, and its pixels if they are to be: Eq. 2 and 5 of the paper."""
        distances = np.linalg.norm(self.descriptors_.astype(np.float64) - one.descriptor, axis=1)
        if without is not None:
            distances[without] = np.inf
        n_others = len(distances) - (without is not None)
        nearest = np.argsort(distances, kind="stable")[: min(self.k, n_others)]
        squared = self.distance == "squared"
        score = float(mean_of_nearest(distances[nearest], squared))
        if not maps:
            return score, None
        grid = np.full(one.counting.shape, np.nan)
        found = self._pixel_distances(one.values, nearest).reshape(*grid.shape, -1)
        grid[one.counting] = mean_of_nearest(found, squared)[one.counting]
        if self.image_score != "images":
            score = self._image_score(grid, frame)
        return score, grid

    def _pixel_distances(self, values: torch.Tensor, nearest: np.ndarray) -> np.ndarray:
        """Distances of all pixels of an image to the nearest of some others: (P_1, kappa)."""
        pyramid, device = self._pyramid(), self._network.device
        features, parents = self._ready_scorer()
        with torch.inference_mode():
            gallery = _kind_of_gallery()(
                pyramid.split(features[torch.from_numpy(nearest).to(device)]),
                torch.from_numpy(self.counting_[nearest]).flatten(1).to(device),
                parents,
            )
            query = [layer[0] for layer in pyramid.split(values.to(device)[None])]
            return gallery.distances(query, int(self.kappa)).cpu().numpy()

    def _make_scorer(self, device: torch.device) -> tuple[torch.Tensor, list[torch.Tensor]]:
        pyramid = self._pyramid()
        if self.features_.shape[1] != pyramid.n_values:
            raise ValueError("features_ do not belong to this backbone and image_size.")
        parents = [torch.from_numpy(own).to(device) for own in pyramid.parents]
        return torch.from_numpy(writable(self.features_)).to(device), parents

    def _which(self) -> tuple[list[int], int]:
        """Tell which of the network's layers make the pyramid, and which is the image's."""
        n_layers, taken = len(self._network.layer_shapes), self.feature_spec_.layers
        if self.image_layer_ < 0:
            return list(range(n_layers)), n_layers - 1
        return [taken.index(layer) for layer in self.layers_], taken.index(self.image_layer_)

    def _pyramid(self) -> Pyramid:
        shapes = self._network.layer_shapes
        return Pyramid([shapes[j] for j in self._which()[0]])

    def _grid(self) -> tuple[int, int]:
        return self._pyramid().grid

    def _rounding_of(self, anomaly: float) -> float:
        # As for PatchCore: an error adds to a distance as the other side of a right angle does.
        vectors = self.descriptors_
        if self.image_score != "images":
            places = int(np.prod(self.counting_.shape[1:]))
            vectors = self.features_ / np.sqrt(places)
        length = float(np.median(np.linalg.norm(vectors, axis=1)))
        error = _ROUNDING[self.precision] * length
        if self.distance == "squared":
            return error**2
        return float(np.hypot(anomaly, error) - anomaly)


def _kind_of_gallery() -> type:
    kind: type = Gallery
    if not is_plain_mode():
        from skad._bank.correspondences import FastGallery as kind
    return kind
