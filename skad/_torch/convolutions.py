"""Which kernels convolutions run by on the CPU, where torch's own choice will not do."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn


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


def is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution, and nothing but its weights; a subclass may pad by itself."""
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
