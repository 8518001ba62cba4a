"""Batch norms folded into the convolutions before them: the same frozen network in fewer passes."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Side of the image, in pixels, on which a folded network must agree with the original, and how well
# (relative to the largest value of a map; rounding alone takes 1e-6).
_PROBE = 64
_AGREE = 1e-4


def fold_batch_norms(body: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution into its weights.

    Parameters
    ----------
    body : torch.nn.Module
        Frozen, in eval mode; not changed.

    Returns
    -------
    torch.nn.Module
        A folded copy; `body` itself where nothing can be folded, or where the copy does not compute the
        same, which happens if modules run in another order than they are defined in.
    """
    if not any(_pairs(body)):
        return body
    folded = copy.deepcopy(body)
    for parent, name, convolution, norm in list(_pairs(folded)):
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,  # type: ignore[arg-type]
            norm.running_var,  # type: ignore[arg-type]
            norm.eps,
            norm.weight,
            norm.bias,
        )
        setattr(parent, name, nn.Identity())
    return folded if _same(body, folded) else body


def _pairs(body: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Conv2d, nn.BatchNorm2d]]:
    """Yield the parent and name of each batch norm defined right after a convolution, and both."""
    for parent in body.modules():
        before: nn.Module | None = None
        for name, child in parent.named_children():
            if (
                type(child) is nn.BatchNorm2d
                and isinstance(before, nn.Conv2d)
                and before.out_channels == child.num_features
                and child.track_running_stats
                and not (child._forward_hooks or before._forward_hooks)
            ):
                yield parent, name, before, child
            before = child


def _same(body: nn.Module, folded: nn.Module) -> bool:
    """Compare both on an image of noise; networks that refuse its size stay as they are."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, _PROBE, _PROBE, generator=generator)
    image = image.to(next(body.parameters()).device)
    try:
        with torch.inference_mode():
            pairs = list(zip(_maps(body, image), _maps(folded, image), strict=True))
    except (RuntimeError, AssertionError, ValueError):
        return False
    return all(torch.allclose(a, b, rtol=0, atol=_AGREE * float(a.abs().max())) for a, b in pairs)


def _maps(body: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    found = body(image)
    return list(found.values()) if isinstance(found, dict) else list(found)
