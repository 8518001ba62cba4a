"""From images to patch embeddings by a frozen backbone: for whatever takes patches."""

from __future__ import annotations

import os
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch

from skad._common.progress import say
from skad._common.text import shortened
from skad._common.warn import warn_user
from skad._features import (
    FeatureSpec,
    FeatureStore,
    PatchExtractor,
    StoredExtractor,
    as_feature_store,
    default_image_size,
    default_layers,
    default_normalize,
    default_patch_size,
    is_plain_transformer,
    layer_strides,
    patch_extractor,
)
from skad._image_input import ImageInput
from skad._images import ImageSource, Size, as_size
from skad._sklearn_compat import HasMethods, Interval, StrOptions
from skad._torch.devices import resolve_device


class PatchInput(ImageInput):
    """Finds the backbone, and says what of it is taken.

    A mixin for estimators with the parameters of :class:`ImageInput`, and `backbone`, `weights`,
    `layers`, `patch_size`, `normalize`, `aggregation`, `pretrain_dim`, `target_dim`, `precision`,
    `memory`, `device` and `verbose`. ``fit`` sets `feature_spec_` by :meth:`_make_spec`.

    Parameters
    ----------
    backbone : str or torch.nn.Module
        A model of timm's by its name and tag; "skad_nano", the small backbone whose weights come with
        skad and need no download; or a network of your own whose forward pass takes (B, 3, S, S)
        images (ImageNet mean and standard deviation) and returns feature maps, shallow to deep.
    layers : tuple of int or "auto"
        Layers of the backbone by their numbers, shallow to deep. The first fixes the patch grid, the
        forward pass stops at the last. "auto": those of strides 8 and 16, which are (2, 3) of a ResNet
        as in PatchCore's paper; of a transformer, blocks at a quarter, a half, three quarters and the
        whole of its depth. ``feature_spec_.layers`` is what became of it. Ignored for a network of your
        own.
    patch_size : int or "auto"
        Side p of the neighbourhood that a patch is the mean of, odd. "auto": 3, as in PatchCore's paper;
        1 for a transformer.
    normalize : "auto" or bool
        Bring the vectors of every layer to length 1, after the network's final norm if it is a
        transformer: distances become those of angles (cosine). "auto": for transformers alone.
    aggregation : {"concat", "adaptive"}
        "concat": mean over the neighbourhood, layers concatenated. "adaptive": the official code's
        adaptive average pooling along the flattened (channel, y, x) axis, to `pretrain_dim` values
        per layer, then to `target_dim` in all.
    pretrain_dim : int
        P of the official code; used by ``aggregation="adaptive"`` alone.
    target_dim : int
        T of the official code; used by ``aggregation="adaptive"`` alone.
    image_size : "auto", int or tuple of two ints
        What the network sees, in pixels: the side of a square, or (height, width). "auto": the square
        that the backbone is made for, as timm tells (224 for most); 320 where that is less and the
        images are larger (the median of their shorter sides), unless the backbone takes one size alone.
        224 for a network of your own. ``image_size_`` is what became of it.
    memory : path-like, FeatureStore, joblib.Memory or None
        Folder in which features are kept, so that searches, later fits and scores need not
        run the backbone on images that it has seen; see :class:`skad.FeatureStore`. Does not change the
        scores. May be changed after ``fit``; set it to None for what goes to another machine.
    """

    _patch_constraints: dict = {
        "backbone": [str, torch.nn.Module],
        "weights": [str, os.PathLike, None],
        "layers": ["array-like", StrOptions({"auto"})],
        "patch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "normalize": ["boolean", StrOptions({"auto"})],
        "aggregation": [StrOptions({"concat", "adaptive"})],
        "pretrain_dim": [Interval(Integral, 1, None, closed="left")],
        "target_dim": [Interval(Integral, 1, None, closed="left")],
        "memory": [str, os.PathLike, FeatureStore, HasMethods(["cache", "reduce_size"]), None],
    }
    backbone: Any
    weights: Any
    layers: Any
    patch_size: Any
    normalize: Any
    aggregation: str
    pretrain_dim: int
    target_dim: int
    precision: str
    memory: Any
    device: str
    verbose: int
    feature_spec_: FeatureSpec
    _network: Any

    def _make_spec(self) -> FeatureSpec:
        """Say what decides the embedding of an image, apart from the weights."""
        layers, patch_size = self._layers_and_patch_size()
        if patch_size % 2 == 0:
            raise ValueError(f"patch_size={self.patch_size} must be odd: a patch has a centre.")
        normalize = self.normalize
        if isinstance(normalize, str):
            normalize = default_normalize(self.backbone)
        return FeatureSpec(
            backbone=self.backbone if isinstance(self.backbone, str) else None,
            layers=layers,
            image_size=self.image_size_,
            patch_size=patch_size,
            aggregation=self.aggregation,
            pretrain_dim=int(self.pretrain_dim),
            target_dim=int(self.target_dim),
            precision=self.precision,
            normalize=bool(normalize),
        )

    def _deepest_stride(self) -> int:
        if not isinstance(self.backbone, str):
            return super()._deepest_stride()
        layers = default_layers(self.backbone) if isinstance(self.layers, str) else self.layers
        strides = layer_strides(self.backbone)
        # Layers that there are not are refused where the network is built.
        return max((strides[i] for i in layers if i < len(strides)), default=1)

    def _layers_and_patch_size(self) -> tuple[tuple[int, ...], int]:
        """Tell what "auto" stands for, and warn of blocks of a transformer that have hardly begun."""
        backbone, patch_size = self.backbone, self.patch_size
        if isinstance(patch_size, str):
            patch_size = default_patch_size(backbone)
        if isinstance(self.layers, str):
            return default_layers(backbone), int(patch_size)
        if any(map(np.ndim, self.layers)):
            raise ValueError(
                f"layers={shortened(repr(self.layers))} are shapes, as precomputed features have them: "
                f"the layers of backbone={shortened(repr(backbone))} go by their numbers, or "
                '"auto".'
            )
        layers = tuple(int(layer) for layer in self.layers)
        if isinstance(backbone, str) and layers and is_plain_transformer(backbone):
            depth = len(layer_strides(backbone))
            if max(layers) < depth // 3:
                warn_user(
                    f"layers={layers} are among the first of the {depth} blocks of {backbone!r}, which "
                    f'know little but edges: layers="auto" takes {default_layers(backbone)}.'
                )
        return layers, int(patch_size)

    def _grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image; of a tile, where images differ in their tiles."""
        tiling, grid = self._tiling(), self._network.grid
        if tiling is None or self.geometry_.tiling is not None:
            return grid
        return tiling.grid(*grid)

    def _cell(self) -> tuple[int, int]:
        height, width = self._network.grid
        return self.geometry_.canvas[0] // height, self.geometry_.canvas[1] // width

    def _input_size(self, images: ImageSource) -> Size:
        if not isinstance(self.image_size, str):
            return as_size(self.image_size)
        sides = [min(images.shape(i)) for i in range(len(images))]
        return default_image_size(self.backbone, float(np.median(sides)))

    def _find_network(self) -> PatchExtractor | StoredExtractor:
        extractor = patch_extractor(
            self.feature_spec_, self.backbone, self.weights, resolve_device(self.device)
        )
        if self.memory is None:
            return extractor
        store = as_feature_store(self.memory, getattr(self, "_folder_at_fit", None))
        if store is None:
            return extractor
        return StoredExtractor(extractor, store, partial(say, self) if self.verbose else None)

    def _smallest_side(self) -> int:
        return self._network.smallest_side
