"""From images to the layers of a frozen backbone as they are, for what compares them place by place."""

from __future__ import annotations

import os
from typing import Any

import torch

from skad._features import (
    FeatureStore,
    default_layers,
    folder_of,
    layers_of_strides,
)
from skad._patch_input import PatchInput
from skad._sklearn_compat import HasMethods, StrOptions

# Of layers 1 to 3 of a ResNet.
_STRIDES = (4, 8, 16)


class PyramidInput(PatchInput):
    """Finds the backbone, whose layers are taken as they are: neither averaged nor normalised.

    A mixin in place of :class:`PatchInput`, for estimators with its parameters but those that are
    attributes here.
    """

    _pyramid_constraints: dict = {
        "backbone": [str, torch.nn.Module],
        "weights": [str, os.PathLike, None],
        "layers": ["array-like", StrOptions({"auto"})],
        "memory": [str, os.PathLike, FeatureStore, HasMethods(["cache", "reduce_size"]), None],
    }
    patch_size: Any = 1
    normalize: Any = False
    aggregation = "concat"
    pretrain_dim = 1024
    target_dim = 1024

    def _begin_fit(self) -> None:
        self.feature_spec_ = self._make_spec()
        self._folder_at_fit = folder_of(self.memory)

    def _layers_and_patch_size(self) -> tuple[tuple[int, ...], int]:
        if not isinstance(self.layers, str):
            return super()._layers_and_patch_size()
        return pyramid_layers(self.backbone), 1

    def _deepest_stride(self) -> int:
        return 1  # there are no tiles


def pyramid_layers(backbone: str | torch.nn.Module) -> tuple[int, ...]:
    """Choose the layers of a pyramid: those of strides 4, 8 and 16 where there are such."""
    if not isinstance(backbone, str):
        return default_layers(backbone)
    return layers_of_strides(backbone, _STRIDES) or default_layers(backbone)
