"""From images to the layers of a frozen backbone as they are, for what compares them place by place."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from skad._features import (
    FeatureStore,
    default_layers,
    folder_of,
    layers_of_strides,
)
from skad._patch_input import PatchInput
from skad._sklearn_compat import HasMethods, StrOptions
from skad._torch.devices import resolve_device

if TYPE_CHECKING:
    from typing_extensions import Self

# Of layers 1 to 3 of a ResNet.
_STRIDES = (4, 8, 16)


class PyramidInput(PatchInput):
    """Finds the backbone, whose layers are taken as they are: neither averaged nor normalised.

    A mixin in place of :class:`PatchInput`, for detectors with its parameters but those that are
    attributes here. What they learn is brought to the device once, not for every prediction.

    Parameters
    ----------
    image_size : int or tuple of two ints
        What the network sees, in pixels: the side of a square, or (height, width).
        There are no tiles.
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
        self.__dict__.pop("_scorer", None)
        self.feature_spec_ = self._make_spec()
        self._folder_at_fit = folder_of(self.memory)

    @abstractmethod
    def _make_scorer(self, device: torch.device) -> Any:
        """Bring what was learned to a device, as predictions want it there."""

    def _ready_scorer(self) -> Any:
        """Bring what was learned to the device, or take what was brought before."""
        device = resolve_device(self.device)
        known = getattr(self, "_scorer", None)
        if known is None or known[0] != device:
            self._scorer = (device, self._make_scorer(device))
        return self._scorer[1]

    def _as_fitted(self) -> Self:
        now = super()._as_fitted()  # type: ignore[misc]
        if now is not self:
            now._ready_scorer()
            self._scorer = now._scorer  # for the next prediction
        return now

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()  # type: ignore[misc]
        return {name: value for name, value in state.items() if name != "_scorer"}

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


def writable(array: np.ndarray) -> np.ndarray:
    """Copy an array that a worker sees as a read-only memory map, of which torch warns."""
    return array if array.flags.writeable else array.copy()
