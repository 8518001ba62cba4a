"""Results that do not depend on what else is in the batch: which kernels compute, and in what shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import numpy as np
import torch
from torch import nn


class BatchInvariant:
    """A function of a batch that gives every image bitwise what it would get alone, on the CPU.

    Whether a network's kernels round alike in a batch and alone depends on shapes and on the number of
    threads, not on the pixels: it is tried out on the first batch of each size, and images go one by one
    where they don't.

    Parameters
    ----------
    function : callable
        Maps an ndarray of B images to a tuple of tensors whose first axes are B.
    device : torch.device
        Where the function computes; only the CPU is held to the promise.
    """

    def __init__(
        self, function: Callable[[np.ndarray], tuple[torch.Tensor, ...]], device: torch.device
    ) -> None:
        self._function, self._device = function, device
        self._tried: dict[tuple, bool] = {}

    def __call__(self, pixels: np.ndarray) -> tuple[torch.Tensor, ...]:
        if len(pixels) == 1 or self._device.type != "cpu":
            return self._function(pixels)
        key = (len(pixels), pixels.dtype, torch.get_num_threads())
        if self._tried.get(key, False):
            return self._function(pixels)
        alone = [self._function(pixels[i : i + 1]) for i in range(len(pixels))]
        single = tuple(map(torch.cat, zip(*alone, strict=True)))
        if key not in self._tried:
            pairs = zip(single, self._function(pixels), strict=True)
            self._tried[key] = all(torch.equal(*pair) for pair in pairs)
        return single


class _OneDnnConv2d(nn.Conv2d):
    """A convolution that never asks how large the batch is.

    On a CPU, torch sends small or single-image inputs to another kernel than larger batches, and the
    two round differently: the features of an image would depend on its neighbours in the batch.
    """

    padding: tuple[int, ...]

    def _conv_forward(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or x.dtype != torch.float32:
            return super()._conv_forward(x, weight, bias)
        return torch.mkldnn_convolution(
            x, weight, bias, self.padding, self.stride, self.dilation, self.groups
        )


def pin_convolutions(body: nn.Module) -> None:
    """Send all convolutions of a network to one kernel, whatever the size of the batch.

    Parameters
    ----------
    body : torch.nn.Module
        Changed in place; parameters, hooks and names stay what they are.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for module in body.modules():
        if is_plain(module):
            module.__class__ = _OneDnnConv2d


def unpinned(body: nn.Module) -> nn.Module:
    """Give the convolutions of a network back to torch, as before :func:`pin_convolutions`.

    Parameters
    ----------
    body : torch.nn.Module
        Changed in place.

    Returns
    -------
    torch.nn.Module
        `body`.
    """
    for module in body.modules():
        if type(module) is _OneDnnConv2d:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return body


def is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution, and nothing but its weights; a subclass may pad by itself."""
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
