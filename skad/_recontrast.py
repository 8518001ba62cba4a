"""ReContrast: a network that reconstructs features of good images, and fails on anything else."""

from __future__ import annotations

import os
from numbers import Real
from typing import Any

import numpy as np
import torch

from skad._common.docstrings import with_inherited_texts
from skad._common.text import shortened
from skad._features import layer_strides, layers_of_strides
from skad._images import as_size, height_and_width
from skad._learning import (
    ReContrastNetwork,
    ReContrastSettings,
    ReContrastTraining,
    build_network,
    decoder_design,
    make_stable,
    pair_distances,
)
from skad._reconstruction import BaseReconstructionDetector
from skad._sklearn_compat import Interval, StrOptions
from skad._torch.devices import training_precision

# Of the feature maps that are reconstructed.
_STRIDES = (4, 8, 16)
# The bottleneck works at this stride, and its grid is doubled exactly on the way back.
_STRIDE = 32
_REMEDY = (
    "a CNN of timm's whose stages halve the grid (ResNet, ConvNeXt, RegNet, EfficientNet, ...)"
)


@with_inherited_texts
class ReContrastDetector(BaseReconstructionDetector):
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
    image_size
        Each number is a multiple of 32.
    image_score : "map" or float, default="map"
        What the score of an image is. "map": the highest value of its smoothed heat map, as in the
        paper; an image is defective exactly if something in it is outlined. A float in (0, 1]: the mean
        of this fraction of the map, the most anomalous; 1.0: its mean (the paper for ISIC 2018).
    train_precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the convolutions in training. "auto": bfloat16 where the hardware has units for it,
        about twice as fast; parameters, statistics and losses stay float32.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the convolutions in scoring.
    random_state : int, RandomState instance or None, default=None
        For the initial decoder and the order of the images. On the CPU equal seeds give bitwise equal
        detectors.

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

    _doc_link_template = "https://arxiv.org/abs/2306.02602"

    _parameter_constraints: dict = {
        **BaseReconstructionDetector._parameter_constraints,
        "backbone": [str, torch.nn.Module],
        "weights": [str, os.PathLike, None],
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
    }
    _lasting = ("backbone", "pairs", "train_encoder", "geometry", "image_size", "resize")

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
        super()._begin_fit()

    def _training(
        self,
        network: Any,
        device: torch.device,
        n_iter: int,
        state: dict[str, np.ndarray] | None,
    ) -> ReContrastTraining:
        return ReContrastTraining(network, self._settings(device), n_iter, state)

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

    def _drops_short_batches(self) -> bool:
        # They are part of an epoch in the authors' code, but for the stable variant.
        return self.bn == "stable"

    def _remedy(self) -> str:
        return f"Lower lr (now {self.lr:g}), or use another bn (now {self.bn!r})"

    # ---------------------------------------------------------------- scoring

    def _distances(self, targets: Any, outputs: Any) -> tuple[torch.Tensor, ...]:
        chosen = slice(None)
        if self.pairs == "cross" and self.maps != "both":
            chosen = slice(0, 3) if self.maps == "frozen" else slice(3, 6)
        return pair_distances(targets[chosen], outputs[chosen])

    def _scored_by(self) -> tuple[Any, ...]:
        return (self.maps,)

    # --------------------------------------------------------------- networks

    def _layers(self) -> tuple[int, ...]:
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

    def _check_encoder(self) -> None:
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
        frozen = self._network.net
        channels = frozen.channels or [shape[1] for shape in frozen.shapes(self.image_size_)]
        design = decoder_design(frozen.body, channels)
        trained = frozen.trainable_copy().cpu() if self.train_encoder else None
        if generator is not None and trained is not None and self.bn == "stable":
            # Before a state is loaded: it keeps the pre-trained statistics.
            make_stable(trained)
        return build_network(frozen, trained, design, self.pairs, generator)

    def _deepest_stride(self) -> int:
        return _STRIDES[-1]

    def _smallest_side(self) -> int:
        return self._deepest_stride()
