"""Where accelerators come in: what is fast, or the plain way where SKAD_PLAIN asks for it.

To delete an accelerator, delete its file and the lines here that import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from adamp import AdamP
from torch import nn

from skad._torch.devices import is_plain_mode

Tensors = tuple[torch.Tensor, ...]


def fused(body: nn.Module) -> nn.Module:
    """Fuse the convolutions of a frozen network with what follows them.

    Parameters
    ----------
    body : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        Computes the same, up to rounding.
    """
    if is_plain_mode():
        return body
    from skad._torch.fusing import fuse_convolutions

    return fuse_convolutions(body)


def recorded(function: Callable[..., Tensors], device: torch.device) -> Callable[..., Tensors]:
    """Let a GPU record a function of tensors once and replay it; elsewhere it is called every time.

    Parameters
    ----------
    function : callable
        As for :class:`skad._torch.cuda_graphs.CUDAGraphed`, which says what it must not do.
    device : torch.device
        Where the function computes.

    Returns
    -------
    callable
        Takes tensors on the device or on the host.
    """
    if _records(device):
        from skad._torch.cuda_graphs import CUDAGraphed

        return CUDAGraphed(function, device)
    return lambda *inputs: function(*(x.to(device) for x in inputs))


def adamp(parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """Make an AdamP whose step a GPU can record; elsewhere the package's own, which does less.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
        At least one, all on one device.
    **settings
        As for :class:`adamp.AdamP`.

    Returns
    -------
    torch.optim.Optimizer
    """
    parameters = list(parameters)
    if _records(parameters[0].device):
        from skad._torch.capturable_adamp import CapturableAdamP

        return CapturableAdamP(parameters, **settings)
    return AdamP(parameters, **settings)


def _records(device: torch.device) -> bool:
    return device.type == "cuda" and not is_plain_mode()
