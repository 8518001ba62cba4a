"""ReContrast: a network that reconstructs features of good images, and fails on anything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skad._base import BaseImageDetector
from skad._common.interrupts import Interrupt, deferred_interrupt
from skad._common.memory import parse_bytes, temporary_array
from skad._common.progress import Advance, FitProgress
from skad._common.text import shortened
from skad._common.warn import warn_user
from skad._features import (
    BackboneIdentity,
    FeatureNet,
    layer_strides,
    layers_of_strides,
    load_backbone,
)
from skad._images import (
    CanvasCache,
    Frame,
    ImageBatch,
    ImageSource,
    Tile,
    Tiling,
    as_size,
    as_tiles,
    height_and_width,
    stacked,
)
from skad._learning import (
    ReContrastNetwork,
    ReContrastSettings,
    ReContrastTraining,
    build_network,
    decoder_design,
    make_stable,
    pair_distances,
    summed,
)
from skad._scoring.heatmaps import Heatmap, without_padding
from skad._scoring.results import BatchScores, TrainingScores
from skad._scoring.tiled import put_together
from skad._sklearn_compat import Interval, StrOptions
from skad._torch.accelerators import recorded
from skad._torch.devices import autocast, is_plain_mode, resolve_device, training_precision
from skad._torch.invariance import BatchInvariant, pin_convolutions

if TYPE_CHECKING:
    from typing_extensions import Self

# Of the feature maps that are reconstructed.
_STRIDES = (4, 8, 16)
# The bottleneck works at this stride, and its grid is doubled exactly on the way back.
_STRIDE = 32
_REMEDY = (
    "a CNN of timm's whose stages halve the grid (ResNet, ConvNeXt, RegNet, EfficientNet, ...)"
)
# Steps between two looks at the loss: a look makes the CPU wait for the GPU.
_CHECK_EVERY = 50
# What must be as it was for a training to go on.
_LASTING = ("backbone", "pairs", "train_encoder", "geometry", "image_size", "resize")


# Makes maps of canvases.
MakeMaps = Callable[[Any], Sequence[np.ndarray]]


class ReContrastDetector(BaseImageDetector):
    """ReContrast: contrastive reconstruction of features between a frozen and an adapting encoder.

    Two copies of a pre-trained encoder look at every good image: one stays frozen, one adapts. From the
    features of either, a shared bottleneck and decoder reconstruct those of the other. Where the
    reconstruction of a new image fails, it shows something that good images do not.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="wide_resnet50_2.tv_in1k"
        A CNN of timm's by its name and tag, whose stages halve the grid; its feature maps at strides 4,
        8 and 16 are reconstructed. The decoder mirrors a ResNet (ResNet, ResNeXt, WideResNet and their
        like, or "skad_nano", which comes with skad and needs no download); for others (ConvNeXt, RegNet,
        EfficientNet, MobileNet, DenseNet, ...) it has two generic residual blocks per stage, of which no
        figures have been published. A network of your own returns three feature maps (B, C, h, w), at
        these strides; it is mirrored if it has a ResNet's stages ``layer1`` to ``layer3``.
    weights : "pretrained", path-like or None, default="pretrained"
        As in :class:`PatchCoreDetector`.
    max_iter : int, default=2000
        Training steps. 0: the decoder stays as initialised.
    batch_size : int, default=16
        Images per training step, and per forward pass later on; scores do not depend on the latter.
    lr : float, default=2e-3
        Learning rate of AdamW for bottleneck, decoder and heads.
    encoder_lr : float, default=1e-5
        Learning rate of AdamW for the adapting encoder.
    weight_decay : float, default=1e-5
        Decoupled weight decay of AdamW, on all parameters.
    bn : {"eval", "train", "stable"}, default="eval"
        Batch norms of the adapting encoder during training. "eval": pre-trained statistics. "train":
        statistics of the batch, the paper's choice for most categories. "stable": of the batch, but a
        channel whose variance is below min(5e-4, the pre-trained one) keeps the pre-trained one, and
        the optimiser forgets its moments every 500 steps. Other norms, such as ConvNeXt's layer norms,
        have no statistics: there all three are alike, but for the moments. Dropout stays off.
    loss : {"global", "regional"}, default="global"
        Cosine distance between whole feature maps (Eq. 3), or the mean over positions (Eq. 1).
    hard_mining : bool, default=True
        Whether positions that are easy to reconstruct get no gradient (Eq. 5).
    alpha : float, default=1.0
        Easy is what lies below mean + alpha x standard deviation of the batch's distances.
    alpha_start : float, default=-3.0
        Level that alpha rises from, linearly.
    warmup_fraction : float, default=0.1
        Share of the steps over which alpha rises, in [0, 1].
    train_encoder : bool, default=True
        Whether one of the encoders adapts. False: there is the frozen one alone.
    stop_gradient : bool, default=True
        Whether the features to be reconstructed are constants. False: the encoder may make them easy.
    pairs : {"cross", "own"}, default="cross"
        "cross": each encoder's features are reconstructed from the other one's. "own": the (adapting)
        encoder's from themselves, as in reverse distillation.
    maps : {"both", "frozen", "trained"}, default="both"
        Which features' distances make up the heat map: those of the frozen encoder, of the adapting one,
        or all six. Used by ``pairs="cross"`` alone.
    geometry, image_size, resize, tiles, image_shape, roi, smoothing
        As in :class:`PatchCoreDetector`; here `image_size` (default=256), or each of its two numbers, is
        a multiple of 32.
    image_score : "map" or float, default="map"
        What the score of an image is. "map": the highest value of its smoothed heat map, as in the
        paper; an image is defective exactly if something in it is outlined. A float in (0, 1]: the mean
        of this fraction of the map, the most anomalous; 1.0: its mean (the paper for ISIC 2018).
    validation_fraction : float, default=0.2
        Fraction of the good images that are not trained on, in [0, 1): threshold and p-values come from
        their scores. The choice does not depend on `random_state`. 0.0: none, which needs a
        `contamination`.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the last one: from ``n_iter_`` to `max_iter` steps, with the moments
        of the optimiser.
    max_memory : int, str or None, default="1GB"
        Bytes (or "4GB") that resized images may take during ``fit``; the others are read anew in every
        epoch. None: no limit.
    contamination : "auto" or float, default="auto"
        "auto": the threshold keeps `target_false_alarm_rate` on the held-out images. A float
        in (0, 0.5]: scikit-learn's percentile of the scores of all good images.
    target_false_alarm_rate : float, default=0.05
        Fraction of good images that may be called defective, in (0, 1).
    device : str, default="auto"
        "auto" (CUDA where present), "cpu", "cuda", "cuda:1", ... May be changed after ``fit``.
    train_precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the convolutions in training. "auto": bfloat16 where the hardware has units for it,
        about twice as fast; parameters, statistics and losses stay float32.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the convolutions in scoring.
    n_jobs : int or None, default=None
        Threads that read and resize images, as in :class:`PatchCoreDetector`.
    random_state : int, RandomState instance or None, default=None
        For the initial decoder and the order of the images. On the CPU equal seeds give bitwise equal
        detectors.
    verbose : int, default=0
        As in :class:`PatchCoreDetector`.

    Attributes
    ----------
    network_ : dict of ndarray
        Parameters and statistics of adapting encoder, bottleneck, decoder and heads, by name.
    n_iter_ : int
        Training steps seen, warm starts included.
    loss_curve_ : ndarray of shape (n_iter,), float64
        Loss of every step.
    feature_diversity_ : ndarray of shape (n_iter,), float64
        Spread of the adapting encoder's normalised layer-2 features in every step (section 2.3 of the
        paper); a fall towards 0 means that the encoder degenerates.
    validation_indices_ : ndarray of int
        Which of the good images were held out of the training, ascending.
    offset_, heatmap_threshold_, n_images_, n_features_in_
        As in :class:`PatchCoreDetector`.
    training_scores_ : ndarray of shape (n_images,), float64
        ``score_samples`` of the held-out images, in their place among the good images of X; NaN for the
        others, which the network was trained on.
    calibration_scores_ : ndarray or None
        The scores that set the threshold, ascending: those of the held-out images, or of fresh ones (see
        :meth:`calibrate`); None if there was none.
    geometry_, weights_digest_
        What the features of a new image depend on.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If ``fit`` was interrupted (Ctrl-C). The detector is usable then; ``n_iter_`` says what it has
        seen, and ``set_params(warm_start=True).fit(X)`` goes on.

    See Also
    --------
    PatchCoreDetector : Nothing to train; faster to fit.

    Notes
    -----
    The rows of Table 6 of the paper, from reverse distillation (B) to ReContrast:

    ======  ===============================================================================
    A       loss="regional", train_encoder=False, pairs="own", hard_mining=False
    B       train_encoder=False, pairs="own", hard_mining=False
    B + hm  train_encoder=False, pairs="own"
    C       stop_gradient=False, pairs="own", hard_mining=False
    C + cp  stop_gradient=False, hard_mining=False
    D       pairs="own", hard_mining=False
    E - gl  loss="regional", hard_mining=False
    E       hard_mining=False
    ReCon.  none
    ======  ===============================================================================

    Settings of the published tables: MVTec AD 2,000 steps, VisA 3,000, APTOS and OCT2017 1,000 of 32
    images, ISIC 2018 2,000 of 32 with ``image_score=1.0, geometry="crop", image_size=224, resize=256``;
    ``bn="eval"`` for OCT2017 and for toothbrush, leather, grid, tile, wood, screw, cashew and pcb1, else
    "train". One detector for many categories is ``fit`` on the images of all
    (``bn="eval", max_iter=5000, image_score=0.01``); the authors' code for that also has GELU in the
    decoder and a falling learning rate, of which the paper says nothing, and neither does skad.

    The 1 x 1 convolution that the authors' code builds in the bottleneck and never calls is left out,
    so there are fewer parameters than published: by 8.4 million with bottleneck blocks, by 0.5 million
    with basic ones. "stable" follows the paper's appendix; the code divides dead channels by the
    threshold instead of the pre-trained variance, and resets the decoder's moments alone.

    References
    ----------
    .. [1] J. Guo, S. Lu, L. Jia, W. Zhang, H. Li, "ReContrast: Domain-Specific Anomaly Detection via
       Contrastive Reconstruction", NeurIPS 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import ReContrastDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(12, 64, 64, 3), dtype=np.uint8)
    >>> damaged = good.copy()
    >>> damaged[:, 8:20, 8:20] = 255
    >>> det = ReContrastDetector(
    ...     "skad_nano", image_size=64, max_iter=20, batch_size=4, random_state=0,
    ...     target_false_alarm_rate=0.35,
    ... ).fit(good[:10])
    >>> det.predict(damaged[:2])
    array([-1, -1])
    >>> det.n_iter_
    20
    """

    _absent_means = {"roi": None, "tiles": None}
    _parameter_constraints: dict = {
        **BaseImageDetector._parameter_constraints,
        "backbone": [str, torch.nn.Module],
        "weights": [str, os.PathLike, None],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "encoder_lr": [Interval(Real, 0, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "bn": [StrOptions({"eval", "train", "stable"})],
        "loss": [StrOptions({"global", "regional"})],
        "hard_mining": ["boolean"],
        "alpha": [Interval(Real, None, None, closed="neither")],
        "alpha_start": [Interval(Real, None, None, closed="neither")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="both")],
        "train_encoder": ["boolean"],
        "stop_gradient": ["boolean"],
        "pairs": [StrOptions({"cross", "own"})],
        "maps": [StrOptions({"both", "frozen", "trained"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "warm_start": ["boolean"],
        "max_memory": [Interval(Integral, 1, None, closed="left"), str, None],
        "train_precision": [StrOptions({"auto", "float32", "bfloat16"})],
    }
    _free_after_fit = BaseImageDetector._free_after_fit | {"warm_start"}
    _stages = ("training", "calibration")

    def __init__(
        self,
        backbone="wide_resnet50_2.tv_in1k",
        *,
        weights="pretrained",
        max_iter=2000,
        batch_size=16,
        lr=2e-3,
        encoder_lr=1e-5,
        weight_decay=1e-5,
        bn="eval",
        loss="global",
        hard_mining=True,
        alpha=1.0,
        alpha_start=-3.0,
        warmup_fraction=0.1,
        train_encoder=True,
        stop_gradient=True,
        pairs="cross",
        maps="both",
        geometry="squash",
        image_size=256,
        resize=None,
        tiles=None,
        image_shape=None,
        roi=None,
        image_score="map",
        smoothing=4.0,
        validation_fraction=0.2,
        warm_start=False,
        max_memory="1GB",
        contamination="auto",
        target_false_alarm_rate=0.05,
        device="auto",
        train_precision="auto",
        precision="float32",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.lr = lr
        self.encoder_lr = encoder_lr
        self.weight_decay = weight_decay
        self.bn = bn
        self.loss = loss
        self.hard_mining = hard_mining
        self.alpha = alpha
        self.alpha_start = alpha_start
        self.warmup_fraction = warmup_fraction
        self.train_encoder = train_encoder
        self.stop_gradient = stop_gradient
        self.pairs = pairs
        self.maps = maps
        self.geometry = geometry
        self.image_size = image_size
        self.resize = resize
        self.tiles = tiles
        self.image_shape = image_shape
        self.roi = roi
        self.image_score = image_score
        self.smoothing = smoothing
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.max_memory = max_memory
        self.contamination = contamination
        self.target_false_alarm_rate = target_false_alarm_rate
        self.device = device
        self.train_precision = train_precision
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # ---------------------------------------------------------------- fitting

    def _begin_fit(self) -> None:
        for side in height_and_width(as_size(self.image_size)):
            if side % _STRIDE:
                below = side // _STRIDE * _STRIDE
                sizes = " or ".join(str(size) for size in (below, below + _STRIDE) if size)
                raise ValueError(
                    f"image_size={self.image_size}: {side} is not a multiple of {_STRIDE}, which the "
                    f"decoder needs to meet the encoder's grids: use {sizes}."
                )
        if self.pairs == "cross" and not self.train_encoder:
            raise ValueError(
                'pairs="cross" needs two different encoders: use train_encoder=True, or pairs="own".'
            )
        if self.validation_fraction == 0 and self.contamination == "auto":
            raise ValueError(
                "validation_fraction=0 holds no good image out, and scores of images that were trained "
                "on are too good for a threshold; hold some out, or pass contamination=<fraction>."
            )
        if self.max_memory is not None:
            parse_bytes(self.max_memory)

    def _fit_images(
        self, images: ImageSource, progress: FitProgress, *, grids: bool
    ) -> TrainingScores:
        self._check_grids()
        before = self._state_to_resume()
        held = _held_out(len(images), self.validation_fraction)
        rows = np.setdiff1d(np.arange(len(images)), held)

        training = self._start(before)
        with progress.stage("training", self.max_iter) as advance:
            interrupted = self._train(training, images, rows, advance)
        self._keep(training, before)
        self.validation_indices_ = held
        if interrupted:
            warn_user(
                f"fit was interrupted after {self.n_iter_} of {self.max_iter} training steps. The "
                "detector can be used; set_params(warm_start=True).fit(X) goes on.",
                ConvergenceWarning,
            )
        return self._score_training(images, held, progress, grids)

    def _state_to_resume(self) -> dict[str, Any] | None:
        """Take up what the last fit has left, where this one goes on from it."""
        before = getattr(self, "_resumable", None)
        if not self.warm_start or before is None:
            return None
        changed = [name for name in _LASTING if before["params"][name] != _comparable(self, name)]
        # A fit that failed has left no parameters, and what was trained before.
        last = vars(self).get("_params_at_fit", {"tiles": self.tiles})
        if as_tiles(last.get("tiles")) != as_tiles(self.tiles):
            changed.append("tiles")
        if changed or self._network_difference() is not None:
            raise ValueError(
                f"warm_start=True cannot go on with another {' or '.join(changed) or 'backbone'}: set "
                "it back, or use warm_start=False."
            )
        if before["n_iter"] >= self.max_iter:
            warn_user(
                f"max_iter={self.max_iter} training steps have been taken already "
                f"(n_iter_={before['n_iter']}); raise max_iter to train on."
            )
        return before

    def _start(self, before: dict[str, Any] | None) -> ReContrastTraining:
        """Set up network and optimiser, fresh or as the last fit has left them."""
        device = resolve_device(self.device)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self._seed = seed if before is None else before["seed"]
        network = self._build(torch.Generator().manual_seed(self._seed))
        if self.bn == "stable" and network.encoder is not None:
            # Before a state is loaded: it keeps the pre-trained statistics.
            make_stable(network.encoder)
        if before is not None:
            _restore(network, before["network"])
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return ReContrastTraining(
            network,
            self._settings(device),
            n_iter=0 if before is None else before["n_iter"],
            state=None if before is None else before["optimizer"],
        )

    def _settings(self, device: torch.device) -> ReContrastSettings:
        return ReContrastSettings(
            max_iter=int(self.max_iter),
            lr=float(self.lr),
            encoder_lr=float(self.encoder_lr),
            weight_decay=float(self.weight_decay),
            loss=self.loss,
            hard_mining=bool(self.hard_mining),
            alpha=float(self.alpha),
            alpha_start=float(self.alpha_start),
            warmup_fraction=float(self.warmup_fraction),
            stop_gradient=bool(self.stop_gradient),
            bn=self.bn,
            precision=training_precision(device, self.train_precision),
        )

    def _train(
        self, training: ReContrastTraining, images: ImageSource, rows: np.ndarray, advance: Advance
    ) -> bool:
        """Take the steps up to max_iter; tell whether the user has interrupted them."""
        with deferred_interrupt() as interrupt:
            for pixels in self._training_batches(images, rows, training.n_iter, interrupt):
                training.step(torch.from_numpy(pixels))
                if training.n_iter % _CHECK_EVERY == 0 and training.has_diverged():
                    break
                advance(training.n_iter)
        if training.has_diverged():
            raise self._diverged(f"the loss of training step {training.n_iter} is not finite")
        if interrupt.requested and training.n_iter == 0:
            raise KeyboardInterrupt  # there is nothing to keep
        return interrupt.requested and training.n_iter < self.max_iter

    def _diverged(self, seen: str) -> ValueError:
        return ValueError(
            f"{seen}: the training diverged. Lower lr (now {self.lr:g}), or use another bn (now "
            f"{self.bn!r})."
        )

    def _training_batches(
        self, images: ImageSource, rows: np.ndarray, done: int, interrupt: Interrupt
    ) -> Iterator[np.ndarray]:
        """Pixels of the batches of all epochs from step `done` on; their order depends on the seed."""
        cache = CanvasCache(None if self.max_memory is None else parse_bytes(self.max_memory))
        tilings = self._tilings(images)
        # Which image, and which tile of it.
        tiles = np.array(
            [(i, n) for i in rows for n in range(1 if tilings is None else len(tilings[i]))]
        )
        sizes = np.arange(0, len(tiles), self.batch_size)
        # A short last batch is part of an epoch in the authors' code, but for the stable variant.
        if self.bn == "stable" and len(tiles) > self.batch_size:
            sizes = sizes[: len(tiles) // self.batch_size]
        while done < self.max_iter:
            epoch, skipped = divmod(done, len(sizes))
            order = tiles[np.random.default_rng([self._seed, epoch]).permutation(len(tiles))]
            end = min(len(tiles), len(sizes) * self.batch_size)
            order = order[skipped * self.batch_size : end]
            stream = self._iter_batches(images, order[:, 0], cache)
            for batch in stream:
                if interrupt.requested or done == self.max_iter:
                    stream.close()
                    return
                done += 1
                if tilings is None:
                    yield batch.pixels
                else:
                    chosen = order[batch.start : batch.start + len(batch.pixels)]
                    yield _cut(batch.pixels, [tilings[i][n] for i, n in chosen])

    def _keep(self, training: ReContrastTraining, before: dict[str, Any] | None) -> None:
        """Take the result over as arrays, and what a warm start would need."""
        network = training.network
        self.network_ = {
            name: tensor.detach().cpu().contiguous().numpy().copy()
            for name, tensor in network.state_dict().items()
        }
        curves = [
            torch.stack(c).cpu().numpy() if c else np.empty(0)
            for c in (training.losses, training.diversity)
        ]
        if before is not None:
            curves = [np.concatenate(pair) for pair in zip(before["curves"], curves, strict=True)]
        self.loss_curve_, self.feature_diversity_ = (c.astype(np.float64) for c in curves)
        self.n_iter_ = training.n_iter
        self.__dict__.pop("_scorer", None)
        self.__dict__.pop("_resumable", None)
        if self.warm_start or training.n_iter < self.max_iter:
            self._resumable = {
                "params": {name: _comparable(self, name) for name in _LASTING},
                "digest": self._network.digest,
                "network": self.network_,
                "optimizer": training.state(),
                "n_iter": training.n_iter,
                "seed": self._seed,
                "curves": [self.loss_curve_, self.feature_diversity_],
            }

    def _score_training(
        self, images: ImageSource, held: np.ndarray, progress: FitProgress, grids: bool
    ) -> TrainingScores:
        """Score what was held out, and where a percentile is asked for, everything."""
        mapped = images.subset(held) if len(held) else images
        all_too = self.contamination != "auto" and len(held) > 0
        kept = self._make_grids(len(mapped)) if grids else None
        with progress.stage("calibration", len(mapped) + all_too * len(images)) as advance:
            scores, peaks = self._score_all(mapped, advance, kept=kept)
            if not len(held):
                return TrainingScores(None, scores, peaks, kept)
            in_sample = self._score_all(images, advance, len(held))[0] if all_too else None
        return TrainingScores(scores, in_sample, peaks, kept, held)

    def _score_all(
        self,
        images: ImageSource,
        advance: Advance,
        done: int = 0,
        kept: np.ndarray | list[np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of images and the highest values of their maps; the maps themselves go to `kept`."""
        scores, peaks = np.empty((2, len(images)))
        for batch in self._iter_batches(images):
            at = slice(batch.start, batch.start + len(batch.frames))
            (found,) = self._score_batches(iter([batch]), maps=True)
            grids: Any = found.grid
            scores[at] = found.image
            peaks[at] = [
                self._summary(grid, frame, "map")
                for grid, frame in zip(grids, batch.frames, strict=True)
            ]
            if kept is not None:
                kept[at] = grids  # a list grows
            advance(done + at.stop)
        return scores, peaks

    def _rounding_of(self, anomaly: float) -> float:
        # Measured between kernels of CPUs: 7e-7.
        return {"float32": 1e-5, "bfloat16": 5e-3}[self.precision] * abs(anomaly)

    def _make_grids(self, n: int) -> np.ndarray | list[np.ndarray]:
        """Room for maps, on disk: the number of images must not decide about memory.

        In a list where images have canvases of their own.
        """
        if self.geometry_.tiling is not None:
            return []
        return temporary_array(
            (n, *self.geometry_.canvas), "the maps of good images", "or fit on fewer images"
        )

    # ---------------------------------------------------------------- scoring

    def _score_batches(self, batches: Iterator[ImageBatch], maps: bool) -> Iterator[BatchScores]:
        distances = self._ready_scorer()
        for batch in batches:
            grids = [grid.astype(np.float64) for grid in distances(batch.pixels)]
            if not all(np.isfinite(grid).all() for grid in grids):
                # In fit: the step that broke the network was the last, and its loss was the one before.
                raise self._diverged("the trained network scores images as NaN or infinite")
            yield self._score_maps(grids, batch.frames)

    def _score_maps(self, grids: list[np.ndarray], frames: list[Frame]) -> BatchScores:
        """(B,) scores, and what their maps come from, not smoothed: maps, or grids; NaN in padding."""
        image = np.empty(len(grids))
        for i, frame in enumerate(frames):
            grids[i] = self._counting(grids[i], frame)
            image[i] = self._image_score(grids[i], frame)
        return BatchScores(image, grids)

    def _counting(self, grid: np.ndarray, frame: Frame) -> np.ndarray:
        """Leave out of a grid what does not count."""
        if self._tiling() is None:
            return without_padding(grid, self.geometry_.pixels(*frame))
        height, width = self.geometry_.canvas
        cell = self._cell()[0]
        (footprint,) = self.geometry_.footprints([frame], (height // cell, width // cell))
        return np.where(footprint.mask, grid, np.nan)

    def _heatmap(self) -> Heatmap:
        return super()._heatmap()._replace(align_corners=self._tiling() is not None)

    def _cell(self) -> tuple[int, int]:
        return _STRIDES[0], _STRIDES[0]

    def _ready_scorer(self) -> MakeMaps:
        """Build the network that scores, or take the one that was built before.

        It maps (B, H, W, 3) canvases to B maps (H, W), float32 summed cosine distances, not smoothed.
        """
        device = resolve_device(self.device)
        key = (self._network.net, str(device), self.precision, self.maps, is_plain_mode())
        if getattr(self, "_scorer", (None,))[0] != key:
            self._scorer = (key, self._make_scorer(device))
        return self._scorer[1]

    def _as_fitted(self) -> Self:
        now = super()._as_fitted()
        if now is not self:
            now._ready_scorer()
            self._scorer = now._scorer  # for the next prediction
        return now

    def _make_scorer(self, device: torch.device) -> MakeMaps:
        network = self._build(None)
        _restore(network, self.network_)
        pin_convolutions(network)
        network = network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        chosen = slice(None)
        if self.pairs == "cross" and self.maps != "both":
            chosen = slice(0, 3) if self.maps == "frozen" else slice(3, 6)

        def distances(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with torch.inference_mode(), autocast(device, self.precision):
                targets, outputs = network(pixels)
            with torch.inference_mode():
                return pair_distances(targets[chosen], outputs[chosen])

        run = recorded(distances, device)
        tiling = self._tiling()
        if tiling is not None:
            of_tiles = BatchInvariant(lambda pixels: run(torch.from_numpy(pixels)), device)
            return lambda canvases: [_stitched(of_tiles, tiling, canvas) for canvas in canvases]

        def maps(pixels: np.ndarray) -> tuple[torch.Tensor]:
            with torch.inference_mode():
                return (summed(run(torch.from_numpy(pixels)), self.geometry_.canvas),)

        of_images = BatchInvariant(maps, device)
        return lambda pixels: list(of_images(pixels)[0].cpu().numpy())

    # --------------------------------------------------------------- networks

    def _find_network(self) -> Encoder:
        size = self.image_size_
        device = resolve_device(self.device)
        net = load_backbone(self.backbone, self.weights, self._layers(), device, image_size=size)
        return Encoder(net, net.digest, net.identity(size))

    def _layers(self) -> tuple[int, ...]:
        """Layers of a network of timm's that are reconstructed, by their strides."""
        if not isinstance(self.backbone, str):
            return (1, 2, 3)  # names of its maps that nothing depends on
        layers = layers_of_strides(self.backbone, _STRIDES)
        if layers is None:
            strides = ", ".join(map(str, sorted(set(layer_strides(self.backbone)))))
            raise ValueError(
                f"backbone={shortened(self.backbone)!r} has feature maps at strides {strides}; "
                f"ReContrast's decoder needs one at each of {_STRIDES}. Use {_REMEDY}; for transformers "
                "whose blocks have one stride there is DinomalyDetector."
            )
        return layers

    def _check_grids(self) -> None:
        """Refuse an encoder that answers on other grids than the decoder's, or than it describes."""
        height, width = height_and_width(self.image_size_)
        shapes = self._network.net.shapes(self.image_size_)
        wanted = [(height // stride, width // stride) for stride in _STRIDES]
        if [shape[2:] for shape in shapes] != wanted:
            raise ValueError(
                f"ReContrast's backbone must return three feature maps at strides {_STRIDES}, shallow "
                f"to deep: of {height} x {width} pixels, maps of shape (1, channels, height, width) "
                f"with {', '.join(f'{h} x {w}' for h, w in wanted)} positions. It returned "
                f"{shortened(', '.join(map(str, shapes)))}. Return such maps alone, or use {_REMEDY}."
            )

    def _build(self, generator: torch.Generator | None) -> ReContrastNetwork:
        """Build the network on the CPU, around the frozen encoder that this process shares."""
        frozen = self._network.net
        channels = frozen.channels or [shape[1] for shape in frozen.shapes(self.image_size_)]
        design = decoder_design(frozen.body, channels)
        trained = frozen.trainable_copy().cpu() if self.train_encoder else None
        return build_network(frozen, trained, design, self.pairs, generator)

    def _deepest_stride(self) -> int:
        return _STRIDES[-1]

    def _smallest_side(self) -> int:
        return self._deepest_stride()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_scorer"}


class Encoder(NamedTuple):
    """The frozen encoder, and what it is recognised by."""

    net: FeatureNet
    digest: str
    identity: BackboneIdentity | None


def _cut(canvases: Any, tiles: list[Tile]) -> np.ndarray:
    """Cut one tile out of each canvas; floats if any is."""
    cut = [canvas[tile.rows, tile.columns] for canvas, tile in zip(canvases, tiles, strict=True)]
    return stacked(cut)


def _stitched(
    network: Callable[[np.ndarray], tuple[torch.Tensor, ...]], tiling: Tiling, canvas: Any
) -> np.ndarray:
    """Score a canvas seen tile by tile: layers are put together, and meet on the grid of the first.

    Not on the canvas, as where it is seen at once: that has sixteen times as many values.
    """
    with torch.inference_mode():
        layers = put_together(network, tiling.of(canvas.shape), canvas)
        return summed(layers, tuple(layers[0].shape[1:]))[0].cpu().numpy()


def _comparable(detector: ReContrastDetector, name: str) -> Any:
    value = getattr(detector, name)
    return None if isinstance(value, torch.nn.Module) else value  # its digest is compared


def _held_out(n: int, fraction: float) -> np.ndarray:
    """Choose images to hold out: always the same ones, so that ensembles share them.

    Those of a smaller fraction are among those of a larger one.
    """
    n_held = min(max(round(fraction * n), 1), n - 1) if fraction > 0 else 0
    return np.sort(np.random.RandomState(0).permutation(n)[:n_held])


def _restore(network: torch.nn.Module, arrays: dict[str, np.ndarray]) -> None:
    try:
        network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    except RuntimeError as error:  # from a file that is not what skad writes
        first = str(error).splitlines()[1].strip()
        raise ValueError(f"network_ does not belong to this backbone: {first}") from error
