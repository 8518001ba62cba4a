"""Dinomaly: a decoder that reconstructs a transformer's features, and fails on what it has not seen."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from skad._common.docstrings import with_inherited_texts
from skad._features import check_tokens, is_plain_transformer, layer_strides, middle_layers
from skad._images import ImageSource, Size, as_size, height_and_width
from skad._learning import (
    DinomalyNetwork,
    DinomalySettings,
    DinomalyTraining,
    build_dinomaly,
    pair_distances,
)
from skad._reconstruction import BaseReconstructionDetector
from skad._sklearn_compat import Interval, StrOptions
from skad._torch.devices import training_precision

# Patches along a side of the default canvas: 392 pixels for patches of 14, as published.
_PATCHES = 28
# Pixels of a patch of a network of the user's own, which does not tell: for the default canvas alone.
_OWN_STRIDE = 14


@with_inherited_texts
class DinomalyDetector(BaseReconstructionDetector):
    """Dinomaly: reconstruction of a vision transformer's features by a decoder that cannot focus.

    A frozen transformer looks at good images. The mean of its middle layers is disturbed by dropout, and
    blocks of linear attention, whose weights spread over the whole image, reconstruct the layers from
    it, in groups. Where the reconstruction of a new image fails, it shows something that good images do
    not. One detector may learn many kinds of parts at once.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="vit_base_patch14_reg4_dinov2.lvd142m"
        A plain vision transformer of timm's by its name and tag (ViT, DeiT, DINOv2, DINOv3, ...); or a
        network of your own whose forward pass returns feature maps of one shape.
    layers : tuple of int or "auto", default="auto"
        The transformer's blocks that are reconstructed, counted from 0, shallow to deep; the decoder has
        as many blocks. "auto": the middle eight of twelve, (2, ..., 9), and of deeper transformers eight
        at the same parts of their depth. Ignored for a network of your own.
    n_groups : int, default=2
        Groups of neighbouring layers whose means are reconstructed. Fewer groups constrain the decoder
        less; as many as there are layers: each of them.
    lr : float, default=2e-3
        Learning rate of StableAdamW, after a rise over 100 steps (a tenth of `max_iter` at most).
    final_lr : float, default=2e-4
        Learning rate at the end, reached along half a cosine.
    weight_decay : float, default=1e-4
        Decoupled weight decay.
    dropout : float, default=0.2
        Share of values that the bottleneck drops in training, in [0, 1).
    discard : float, default=0.9
        Share of the positions, those reconstructed best, whose gradients are divided by ten, in [0, 1).
    discard_iter : int, default=1000
        Steps over which that share rises from 0.
    image_size : int, tuple of two ints or "auto", default="auto"
        Side of the square canvas, or its height and width, in pixels: multiples of the transformer's
        patch. "auto": 28 patches, which are 392 pixels for patches of 14.
    image_score
        0.01 in the paper.
    smoothing
        The authors smooth maps of 256 pixels by a window of 5 x 5, which is as wide as a Gaussian of 2
        pixels here.
    train_precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of products in training. "auto": bfloat16 where the hardware has units for it;
        parameters, sums over tokens and losses stay float32.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of products in scoring.
    random_state : int, RandomState instance or None, default=None
        For the initial decoder, the order of the images, and the noise. On the CPU equal seeds give
        bitwise equal detectors.

    Attributes
    ----------
    network_ : dict of ndarray
        Parameters of bottleneck and decoder, by name.
    layers_ : tuple of int
        Blocks that are reconstructed.
    n_iter_ : int
        Training steps seen, warm starts included.
    loss_curve_ : ndarray of shape (n_iter,), float64
        Loss of every step.
    validation_indices_ : ndarray of int
        Which of the good images were held out of the training, ascending.
    offset_, heatmap_threshold_, n_images_, n_features_in_
        As in :class:`PatchCoreDetector`.
    training_scores_, calibration_scores_
        As in :class:`ReContrastDetector`.
    geometry_, weights_digest_
        What the features of a new image depend on.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If ``fit`` was interrupted (Ctrl-C). The detector is usable then; ``n_iter_`` says what it has
        seen, and ``set_params(warm_start=True).fit(X)`` goes on.

    See Also
    --------
    ReContrastDetector : The same for convolutional networks, one of which adapts.
    PatchCoreDetector : Nothing to train; takes transformers too.

    Notes
    -----
    The published setting is ``image_score=0.01, geometry="crop", image_size=392, resize=448``, one
    detector for all categories of a data set (the benchmark's preset "dinomaly"): image AUROC of 99.6 %
    on MVTec AD and 98.7 % on VisA with the default backbone, by the authors' account. No such figure was
    measured here, for want of the weights; loss, gradients, steps and maps equal those of the public
    code in float64. A training that goes on with a larger `max_iter` takes the rates of that one.

    References
    ----------
    .. [1] J. Guo, S. Lu, W. Zhang, F. Chen, H. Li, H. Liao, "Dinomaly: The Less Is More Philosophy in
       Multi-Class Unsupervised Anomaly Detection", CVPR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import DinomalyDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(12, 64, 64, 3), dtype=np.uint8)
    >>> damaged = good.copy()
    >>> damaged[:, 8:20, 8:20] = 255
    >>> det = DinomalyDetector(
    ...     "vit_tiny_patch16_224", weights=None, image_size=64, max_iter=30, batch_size=4,
    ...     random_state=0, target_false_alarm_rate=0.35,
    ... ).fit(good[:10])
    >>> det.predict(damaged[:2])
    array([-1, -1])
    >>> det.layers_
    (2, 3, 4, 5, 6, 7, 8, 9)
    """

    _doc_link_template = "https://arxiv.org/abs/2405.14325"

    _parameter_constraints: dict = {
        **BaseReconstructionDetector._parameter_constraints,
        "backbone": [str, torch.nn.Module],
        "weights": [str, os.PathLike, None],
        "layers": ["array-like", StrOptions({"auto"})],
        "n_groups": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "final_lr": [Interval(Real, 0, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "discard": [Interval(Real, 0, 1, closed="left")],
        "discard_iter": [Interval(Integral, 0, None, closed="left")],
        "image_size": [
            Interval(Integral, 1, None, closed="left"),
            "array-like",
            StrOptions({"auto"}),
        ],
    }
    _lasting = (*BaseReconstructionDetector._lasting, "layers", "n_groups")

    def __init__(
        self,
        backbone="vit_base_patch14_reg4_dinov2.lvd142m",
        *,
        weights="pretrained",
        layers="auto",
        n_groups=2,
        max_iter=10000,
        batch_size=16,
        lr=2e-3,
        final_lr=2e-4,
        weight_decay=1e-4,
        dropout=0.2,
        discard=0.9,
        discard_iter=1000,
        geometry="squash",
        image_size="auto",
        resize=None,
        tiles=None,
        image_shape=None,
        roi=None,
        image_score="map",
        smoothing=2.0,
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
        self.layers = layers
        self.n_groups = n_groups
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.lr = lr
        self.final_lr = final_lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.discard = discard
        self.discard_iter = discard_iter
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
        if isinstance(self.backbone, str) and not is_plain_transformer(self.backbone):
            raise ValueError(
                f"backbone={self.backbone!r} is no plain vision transformer, whose layers all have one "
                "grid: take one (ViT, DeiT, DINOv2, DINOv3), or ReContrastDetector for a convolutional "
                "network."
            )
        own = not isinstance(self.backbone, str)
        auto = isinstance(self.layers, str)
        self.layers_ = middle_layers(self.backbone) if auto or own else tuple(map(int, self.layers))
        super()._begin_fit()

    def _training(
        self,
        network: Any,
        device: torch.device,
        n_iter: int,
        state: dict[str, np.ndarray] | None,
    ) -> DinomalyTraining:
        settings = DinomalySettings(
            max_iter=int(self.max_iter),
            lr=float(self.lr),
            final_lr=float(self.final_lr),
            weight_decay=float(self.weight_decay),
            discard=float(self.discard),
            discard_iter=int(self.discard_iter),
            seed=self._seed,
            precision=training_precision(device, self.train_precision),
        )
        return DinomalyTraining(network, settings, n_iter, state)

    def _drops_short_batches(self) -> bool:
        return True  # as in the authors' code

    def _remedy(self) -> str:
        return f"Lower lr (now {self.lr:g})"

    # ---------------------------------------------------------------- scoring

    def _distances(self, targets: Any, outputs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(found / len(targets) for found in pair_distances(targets, outputs))

    # --------------------------------------------------------------- networks

    def _layers(self) -> tuple[int, ...]:
        return self.layers_

    def _check_encoder(self) -> None:
        n_layers, _ = self._layers_and_width()
        if self.n_groups > n_layers:
            raise ValueError(
                f"n_groups={self.n_groups} cannot be more than there are layers, {n_layers}."
            )

    def _build(self, generator: torch.Generator | None) -> DinomalyNetwork:
        n_layers, width = self._layers_and_width()
        tokens = self._network.net.tokens
        return build_dinomaly(
            tokens, width, n_layers, int(self.n_groups), float(self.dropout), generator
        )

    def _layers_and_width(self) -> tuple[int, int]:
        """Tell how many layers the encoder returns, and how wide; it refuses what is no transformer."""
        shapes = [shape[1:] for shape in self._network.net.shapes(self.image_size_)]
        check_tokens(shapes)
        return len(shapes), shapes[0][0]

    def _input_size(self, images: ImageSource) -> Size:
        if not isinstance(self.backbone, str) and self.tiles is not None:
            raise ValueError(
                "tiles need a backbone whose patches have a known size: name a transformer of timm's, "
                "or leave tiles=None."
            )
        stride = self._deepest_stride()
        size = as_size(_PATCHES * stride if isinstance(self.image_size, str) else self.image_size)
        for side in height_and_width(size):
            if isinstance(self.backbone, str) and side % stride:
                below = side // stride * stride
                sizes = " or ".join(str(size) for size in (below, below + stride) if size)
                raise ValueError(
                    f"image_size={self.image_size}: {side} is not a multiple of {stride}, the patch of "
                    f"{self.backbone!r}: use {sizes}."
                )
        return size

    def _deepest_stride(self) -> int:
        if not isinstance(self.backbone, str):
            return _OWN_STRIDE
        return layer_strides(self.backbone)[0]

    def _cell(self) -> tuple[int, int]:
        return self._deepest_stride(), self._deepest_stride()

    def _smallest_side(self) -> int:
        return self._deepest_stride()
