"""ReConPatch's loss with its gradient written out: the same loss in less time; can be deleted.

Autograd takes twice as many passes over (n, n) matrices. Written out, a step of 512 patches on one
CPU thread takes 13 % less time with 384 values per patch, 8 % less with 1,536.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from skad._learning.similarity import squared_distances


def relaxed_contrastive_loss(z: torch.Tensor, omega: torch.Tensor, m: float) -> torch.Tensor:
    """Compute what :func:`skad._learning.losses.relaxed_contrastive_loss` does, faster.

    Parameters
    ----------
    z : torch.Tensor of shape (n, p)
    omega : torch.Tensor of shape (n, n)
    m : float

    Returns
    -------
    torch.Tensor of shape ()
    """
    return _RelaxedContrast.apply(z, omega, m)


class _RelaxedContrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, omega: torch.Tensor, m: float) -> torch.Tensor:
        # The product at the end loses fewer digits near the origin.
        z = z - z.mean(dim=0)
        distances = squared_distances(z).sqrt_()
        means = distances.mean(dim=1, keepdim=True).clamp_min_(torch.finfo(z.dtype).tiny)
        delta = distances / means
        gap = (m - delta).clamp_min_(0)
        attraction = omega * delta
        repulsion = torch.addcmul(gap, omega, gap, value=-1)
        terms = torch.linalg.vecdot(attraction, delta) + torch.linalg.vecdot(repulsion, gap)
        # Towards delta, but for a factor of 2 / n; then towards the distances, through their mean too.
        slope = attraction.sub_(repulsion)
        slope -= torch.linalg.vecdot(slope, delta)[:, None] / len(z)
        slope /= means
        # The root has no derivative at 0: such pairs neither attract nor repel each other.
        slope = slope.div_(distances).masked_fill_(distances == 0, 0)
        slope = slope + slope.T
        ctx.gradient = torch.addmm(slope.sum(dim=1, keepdim=True) * z, slope, z, alpha=-1)
        return terms.sum() / len(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.gradient * (2 * by / len(ctx.gradient)), None, None
