"""PaDiM: a Gaussian for every place of the image, scored by Mahalanobis' distance to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from skad._base import BaseImageDetector
from skad._common.docstrings import with_inherited_texts
from skad._common.memory import parse_bytes, temporary_array
from skad._common.progress import Advance, FitProgress
from skad._features import Pyramid, check_features
from skad._images import Frame, ImageBatch, ImageSource
from skad._learning import (
    Gaussians,
    blocks_of,
    fit_gaussians,
    squared_distances,
    values_per_root,
)
from skad._pyramid_input import PyramidInput, writable
from skad._scoring.results import BatchScores, TrainingScores
from skad._sklearn_compat import Interval, StrOptions
from skad._torch.invariance import BatchInvariant

# Channels that the paper takes of layers 1 to 3 of these networks; of others as many as of the first.
_N_FEATURES = {"wide_resnet50_2": 550}
_FEWEST = 100
# Bytes of float64 that a block of positions may take in fit.
_BLOCK = 64 * 2**20
# Images whose distances are computed together: kernels round by the shape, and this one is as fast for
# one image as any.
_TOGETHER = 2
# Length of a rounding error, as a fraction of a vector's: as for PatchCore.
_ROUNDING = {"float32": 1e-3, "bfloat16": 1e-2}

# Maps the channels that were drawn, (B, n_values), to distances (B, P_1).
Distances = Callable[[torch.Tensor], np.ndarray]


@with_inherited_texts
class PaDiMDetector(PyramidInput, BaseImageDetector):
    """PaDiM: Mahalanobis distance to a Gaussian of the good images at every place.

    A frozen backbone looks at good images. At every position of its finest layer in use, the values of
    some channels, drawn at random, have a mean and a covariance over the images. A position of a new
    image is as anomalous as its values are far from that mean, by that covariance.

    For parts that lie in one place in all images: every position learns what is usual there, and
    nothing of what is usual elsewhere.

    Parameters
    ----------
    layers : tuple of int or "auto", default="auto"
        Layers of the backbone by their numbers, shallow to deep. The first fixes the grid of positions;
        the others are brought to it by their nearest values. "auto": those of strides 4, 8 and 16, which
        are (1, 2, 3) of a ResNet, as in the paper; of other networks as in :class:`PatchCoreDetector`.
        Ignored for a network of your own.
    n_features : int or "auto", default="auto"
        Channels that are drawn of all layers together. "auto": 550 of WideResNet-50 and 100 of other
        networks, which are the paper's for its two; all where there are fewer.
    regularization : float, default=0.01
        What is added to the diagonals of the covariances (the paper's epsilon), above 0. It lets fewer
        images than channels do.
    max_memory : int, str or None, default=None
        Bytes (or "4GB") that features and Gaussians may take during ``fit``. Where the features would
        take more, they lie in a temporary file; positions are worked on a block at a time. The result
        is the same. None: features are held in memory.
    contamination : "auto" or float, default="auto"
        "auto": the threshold keeps `target_false_alarm_rate`, by the score of each training image
        among Gaussians of all others. A float in (0, 0.5]: scikit-learn's percentile of the
        training scores.
    random_state : int, RandomState instance or None, default=None
        For the choice of the channels.

    Attributes
    ----------
    channels_ : ndarray of shape (n_features,), int64
        Numbers of the channels, ascending, counted through all layers.
    means_ : list of ndarray of shape (P_j, c_j), float32
        Of each layer: positions, and channels that were drawn of it.
    factors_ : list of ndarray of shape (P_j, c_j, a_j + c_j), float32
        Of each layer: rows of the inverse Cholesky factors of the covariances, with the a_j channels of
        deeper layers first.
    offset_, heatmap_threshold_, n_images_, n_features_in_, image_size_
        As in :class:`PatchCoreDetector`.
    training_scores_, calibration_scores_
        As in :class:`PatchCoreDetector`; each image is scored without itself.
    geometry_, feature_spec_, weights_digest_
        What the features of a new image depend on.

    See Also
    --------
    PatchCoreDetector : Compares a patch with those of all places.
    SPADEDetector : Compares with the most similar images.

    Notes
    -----
    **Thresholds.** With one training image less, means and covariances change by what that image has
    added, and its distance to the others' Gaussians follows from its distance to those of all (Sherman
    and Morrison). So each training image is scored exactly as by a fit without it.

    **Size.** Neighbours that share a position of a coarse layer share what concerns its channels
    alone, which is kept once: some 30 MB for 100 channels of ResNet-18 at 224 pixels, where full
    covariances take 125, and 0.85 GB in place of 3.8 for 550 of WideResNet-50.

    **Places.** Positions mean the same in all images: there are no tiles, whose number may differ from
    image to image. A larger `image_size` shows more. With ``geometry="pad"`` a position is learned from
    all images, those among them where it is padding: give images of one aspect.

    Where the grids of layers are no multiples of each other, each is brought to that of the next finer
    one.

    The published setting is ``geometry="crop", image_size=224`` with ResNet-18 or WideResNet-50.

    References
    ----------
    .. [1] T. Defard, A. Setkov, A. Loesch, R. Audigier, "PaDiM: a Patch Distribution Modeling Framework
       for Anomaly Detection and Localization", ICPR International Workshops 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import PaDiMDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(12, 64, 64, 3), dtype=np.uint8)
    >>> damaged = good.copy()
    >>> damaged[:, 8:20, 8:20] = 255
    >>> det = PaDiMDetector(
    ...     "skad_nano", image_size=64, n_features=30, random_state=0, target_false_alarm_rate=0.2
    ... ).fit(good[:10])
    >>> det.predict(damaged[:2])
    array([-1, -1])
    >>> [factors.shape for factors in det.factors_]
    [(256, 3, 30), (64, 7, 27), (16, 20, 20)]
    """

    _doc_link_template = "https://arxiv.org/abs/2011.08785"

    _parameter_constraints: dict = {
        **BaseImageDetector._parameter_constraints,
        **PyramidInput._pyramid_constraints,
        "n_features": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "regularization": [Interval(Real, 0, None, closed="neither")],
        "max_memory": [Interval(Integral, 1, None, closed="left"), str, None],
    }
    del _parameter_constraints["tiles"]
    _stages = ("extraction", "gaussians", "calibration")
    means_: list[np.ndarray]
    factors_: list[np.ndarray]

    def __init__(
        self,
        backbone="resnet18.tv_in1k",
        *,
        weights="pretrained",
        layers="auto",
        n_features="auto",
        regularization=0.01,
        geometry="squash",
        image_size=224,
        resize=None,
        image_shape=None,
        roi=None,
        image_score="map",
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
        self.n_features = n_features
        self.regularization = regularization
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

    def _fit_images(
        self, images: ImageSource, progress: FitProgress, *, grids: bool
    ) -> TrainingScores:
        self.channels_ = self._draw_channels()
        pyramid = self._pyramid()
        room = self._room(pyramid, len(images))
        held = self._make_room(pyramid, len(images), room)
        with progress.stage("extraction", len(images)) as advance:
            frames = self._extract(images, pyramid, held, advance)
        with progress.stage("gaussians", pyramid.sizes[-1][0]) as advance:
            left_out = self._fit_positions(pyramid, held, room, advance)
        with progress.stage("calibration", len(images)) as advance:
            return self._score_training(left_out, held, frames, grids, advance)

    def _draw_channels(self) -> np.ndarray:
        n_channels = sum(self._network.channels)
        n = self.n_features
        if isinstance(n, str):
            name = self.backbone.split(".")[0] if isinstance(self.backbone, str) else ""
            n = min(_N_FEATURES.get(name, _FEWEST), n_channels)
        if n > n_channels:
            raise ValueError(
                f"n_features={n} cannot be drawn of the {n_channels} channels of "
                f"layers={self.feature_spec_.layers}: take {n_channels} at most, or more layers."
            )
        order = check_random_state(self.random_state).permutation(n_channels)
        return np.sort(order[:n]).astype(np.int64)

    def _pyramid(self) -> Pyramid:
        return Pyramid(self._network.layer_shapes, self.channels_)

    def _room(self, pyramid: Pyramid, n_images: int) -> int | None:
        """Tell how many bytes the features may take beside the Gaussians; None: as many as they do."""
        if self.max_memory is None:
            return None
        sizes = zip(pyramid.sizes, pyramid.lengths, strict=True)
        learned = sum(4 * positions * n * length for (positions, n), length in sizes)
        least = learned + 8 * values_per_root(pyramid.sizes, n_images)
        limit = parse_bytes(self.max_memory)
        if limit < least:
            raise ValueError(
                f"max_memory={self.max_memory!r} is too little for {len(self.channels_)} channels at "
                f"{pyramid.sizes[0][0]} positions of {n_images} images, which take {least / 1e6:.1f} MB "
                "where features lie on disk. Raise it, or set a smaller n_features or image_size."
            )
        return limit - learned

    def _make_room(self, pyramid: Pyramid, n_images: int, room: int | None) -> np.ndarray:
        """Room for the features of all images: on disk, where half of memory is too little."""
        shape = (n_images, pyramid.n_values)
        if room is None or 2 * 4 * n_images * pyramid.n_values <= room:
            return np.empty(shape, dtype=np.float32)
        return temporary_array(shape, "the features", "raise max_memory, or fit on fewer images")

    def _extract(
        self, images: ImageSource, pyramid: Pyramid, held: np.ndarray, advance: Advance
    ) -> list[Frame]:
        frames: list[Frame] = []
        for batch in self._iter_batches(images):
            taken = self._taken(batch, pyramid)
            held[batch.start : batch.start + len(taken)] = taken.cpu().numpy()
            frames += batch.frames
            advance(len(frames))
        return frames

    def _fit_positions(
        self, pyramid: Pyramid, held: np.ndarray, room: int | None, advance: Advance
    ) -> np.ndarray | None:
        """Fit the Gaussians, block by block; return distances of images to those of the others."""
        device, n, sizes = self._network.device, len(held), pyramid.sizes
        self.means_ = [np.empty(size, dtype=np.float32) for size in sizes]
        self.factors_ = [
            np.empty((*size, length), dtype=np.float32)
            for size, length in zip(sizes, pyramid.lengths, strict=True)
        ]
        left_out = np.empty((n, sizes[0][0])) if n > 1 else None
        block_bytes = _BLOCK if room is None else min(_BLOCK, room // 2)
        size = max(1, block_bytes // (8 * values_per_root(sizes, n)))
        layers = pyramid.split(torch.from_numpy(held))
        for block in blocks_of(pyramid.parents, sizes[-1][0], size):
            found, distances = self._fit_block(
                [
                    layer[:, torch.from_numpy(at)].to(device, torch.float64)
                    for layer, at in zip(layers, block.positions, strict=True)
                ],
                [torch.from_numpy(own).to(device) for own in block.parents],
            )
            for mine, theirs in ((self.means_, found.means), (self.factors_, found.factors)):
                for whole, at, part in zip(mine, block.positions, theirs, strict=True):
                    whole[at] = part.cpu().numpy()
            if left_out is not None and distances is not None:
                left_out[:, block.positions[0]] = distances.sqrt().cpu().numpy()
            advance(int(block.positions[-1][-1]) + 1)
        return left_out

    def _fit_block(
        self, levels: list[torch.Tensor], parents: list[torch.Tensor]
    ) -> tuple[Gaussians, torch.Tensor | None]:
        try:
            return fit_gaussians(levels, parents, float(self.regularization))
        except torch.linalg.LinAlgError as error:
            raise ValueError(
                f"regularization={self.regularization} is lost in the covariances of features as large "
                "as the backbone's: raise it, or scale what the backbone returns."
            ) from error

    def _score_training(
        self,
        left_out: np.ndarray | None,
        held: np.ndarray,
        frames: list[Frame],
        grids: bool,
        advance: Advance,
    ) -> TrainingScores:
        """Score the training images without themselves, and as new ones where that is asked for."""
        distances, in_sample = left_out, None
        (_, score), portions = self._ready_scorer(), torch.from_numpy(held)
        if distances is None or self.contamination != "auto":
            new = np.concatenate([score(some) for some in portions.split(int(self.batch_size))])
            in_sample = self._image_scores(self._counting(new, frames), frames)
            distances = new if distances is None else distances
        found = self._counting(distances, frames)
        scores = self._image_scores(found, frames)
        peaks = scores
        if self.image_score != "map":
            peaks = np.array(
                [self._summary(*one, "map") for one in zip(found, frames, strict=True)]
            )
        advance(len(frames))
        kept = found if grids else None
        return TrainingScores(None if left_out is None else scores, in_sample, peaks, kept)

    def _image_scores(self, grids: np.ndarray, frames: list[Frame]) -> np.ndarray:
        return np.array([self._image_score(*one) for one in zip(grids, frames, strict=True)])

    def _counting(self, distances: np.ndarray, frames: list[Frame]) -> np.ndarray:
        """Lay distances out on grids, (B, h, w); NaN where a position does not count."""
        footprints = self.geometry_.footprints(frames, self._grid())
        masks = np.stack([footprint.mask for footprint in footprints])
        return np.where(masks, distances.reshape(masks.shape), np.nan)

    # ---------------------------------------------------------------- scoring

    def _score_batches(self, batches: Iterator[ImageBatch], maps: bool) -> Iterator[BatchScores]:
        pyramid, distances = self._ready_scorer()
        for batch in batches:
            found = distances(self._taken(batch, pyramid))
            yield BatchScores(None, self._counting(found, batch.frames))

    def _taken(self, batch: ImageBatch, pyramid: Pyramid) -> torch.Tensor:
        """Take the channels that were drawn of a batch; others may be what they like."""
        taken = pyramid.take(self._network.split(self._network.pool(batch.pixels)))
        check_features(taken, batch.start)
        return taken

    def _make_scorer(self, device: torch.device) -> tuple[Pyramid, Distances]:
        """Return what takes channels, and what maps them, (B, n_values), to distances (B, P_1)."""
        pyramid = self._pyramid()
        if [mean.shape for mean in self.means_] != pyramid.sizes:
            raise ValueError("means_ and channels_ do not belong to this backbone and image_size.")
        means, factors = (
            [torch.from_numpy(writable(one)).to(device) for one in several]
            for several in (self.means_, self.factors_)
        )
        gaussians = Gaussians(means, factors)
        parents = [torch.from_numpy(own).to(device) for own in pyramid.parents]

        def of_few(taken: Any) -> tuple[torch.Tensor]:
            with torch.inference_mode():
                levels = pyramid.split(_padded(taken))
                squares = squared_distances(levels, gaussians, parents)
                return (squares[: len(taken)],)

        of_images = BatchInvariant(of_few, device)

        def distances(taken: torch.Tensor) -> np.ndarray:
            found = [of_images(some)[0] for some in taken.to(device).split(_TOGETHER)]
            return torch.cat(found).double().sqrt().cpu().numpy()

        return pyramid, distances

    def _rounding_of(self, anomaly: float) -> float:
        # Errors of features point nowhere in particular, and add to a distance as the other side of a
        # right angle does. Factors turn one into their Frobenius norm, on the mean, of its values.
        error = _ROUNDING[self.precision] * self._gain()
        return float(np.hypot(anomaly, error) - anomaly)

    def _gain(self) -> float:
        """Tell what becomes of an error as long as the features, on the mean over positions."""
        # Without a copy, since factors may be large.
        squares = [
            sum(float(np.vdot(one, one)) / len(one) for one in several)
            for several in (self.means_, self.factors_)
        ]
        return float(np.sqrt(squares[0] * squares[1] / len(self.channels_)))


def _padded(taken: torch.Tensor) -> torch.Tensor:
    """Repeat the last image up to the number that is always computed together."""
    missing = _TOGETHER - len(taken)
    return torch.cat([taken, taken[-1:].expand(missing, -1)]) if missing else taken
