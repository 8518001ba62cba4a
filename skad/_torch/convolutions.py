"""Which kernels convolutions run by on the CPU, where torch's own choice will not do."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from skad._torch.devices import upcast

# Fewer channels make a product thin; more bytes of windows at once would leave the caches.
_MIN_CHANNELS = 128
_WINDOW_BYTES = 8 * 2**20


class _OneDnnConv2d(nn.Conv2d):
    """A convolution that never asks how large the batch is.

    On a CPU, torch sends small or single-image inputs to another kernel than larger batches, and the
    two round differently: the features of an image would depend on its neighbours in the batch.
    """

    padding: tuple[int, ...]

    def _conv_forward(self, x, weight, bias):
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


def use_matmul_gradients(network: nn.Module) -> None:
    """Let convolutions compute the gradients of their weights as matrix products, on the CPU.

    oneDNN takes up to three times as long where the grid is small and channels are many, as at the
    bottleneck of ReContrast. Convolutions of few channels, in groups, dilated or with a bias stay as
    they are; so do all forward passes and the gradients of what was convolved.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place; parameters, hooks and names stay what they are.
    """
    for module in network.modules():
        if (is_plain(module) or type(module) is _OneDnnConv2d) and _fits(module):
            module.__class__ = _MatmulGradConv2d
        elif type(module) is nn.ConvTranspose2d and _fits(module):
            module.__class__ = _MatmulGradConvTranspose2d


def _fits(module: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    return (
        min(module.in_channels, module.out_channels) >= _MIN_CHANNELS
        and module.groups == 1
        and module.bias is None
        and module.dilation == (1, 1)
        and module.output_padding == (0, 0)
    )


class _MatmulGradConv2d(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Convolution.apply(x, self.weight, self.stride, self.padding, False)


class _MatmulGradConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        if output_size is not None:
            return super().forward(x, output_size)
        return _Convolution.apply(x, self.weight, self.stride, self.padding, True)


class _Convolution(torch.autograd.Function):
    """A convolution, transposed or not, as torch's but for the gradient of its weights."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        transposed: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, transposed
        convolve = F.conv_transpose2d if transposed else F.conv2d
        return convolve(x, weight, None, stride, padding)

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, transposed = ctx.geometry
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            d_x = torch.ops.aten.convolution_backward(
                *(gradient, x, weight, None, stride, padding, (1, 1), transposed, (0, 0), 1),
                (True, False, False),
            )[0]
        if ctx.needs_input_grad[1]:
            # A transposed convolution is a convolution from its output to its input.
            fine, coarse = (gradient, x) if transposed else (x, gradient)
            side = (weight.shape[2], weight.shape[3])
            d_weight = weight_gradient(fine, coarse, side, stride, padding)
        return d_x, d_weight, None, None, None


def weight_gradient(
    x: torch.Tensor,
    gradient: torch.Tensor,
    side: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> torch.Tensor:
    """Gradient of a convolution's weights: the product of its outputs' gradients with its windows.

    Parameters
    ----------
    x : torch.Tensor of shape (B, C, H, W)
        What was convolved.
    gradient : torch.Tensor of shape (B, O, h, w)
        Of what came out.
    side, stride, padding : tuples of 2 ints
        Of the kernel: rows and columns.

    Returns
    -------
    torch.Tensor of shape (O, C, *side)
        float32, or of the type of x where that is wider; channels last.
    """
    (top, left), (o, h, w), n_values = padding, gradient.shape[1:], x.shape[1] * side[0] * side[1]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    windows = padded.unfold(1, side[0], stride[0]).unfold(2, side[1], stride[1])
    windows = windows.permute(0, 1, 2, 4, 5, 3)
    n_images = max(1, _WINDOW_BYTES // (h * w * n_values * x.element_size()))
    total = x.new_zeros((o, n_values), dtype=upcast(x[:0]).dtype)
    parts = windows.split(n_images), gradient.permute(0, 2, 3, 1).split(n_images)
    for seen, back in zip(*parts, strict=True):
        seen, back = seen.reshape(-1, n_values), back.reshape(-1, o).T
        if total.dtype == seen.dtype:
            total.addmm_(back, seen)
        else:
            total += back @ seen  # a sum of many must not be rounded to bfloat16 at each step
    return total.view(o, *side, -1).permute(0, 3, 1, 2)
