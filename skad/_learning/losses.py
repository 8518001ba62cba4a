"""Losses that embeddings and reconstructions are trained by."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from skad._learning.similarity import squared_distances
from skad._torch.devices import upcast


def relaxed_contrastive_loss(z: torch.Tensor, omega: torch.Tensor, m: float) -> torch.Tensor:
    """Attract pairs by their similarity, repel them by its complement (Eq. 7 of ReConPatch).

    Distances count relative to the mean of their row, self-distance included; the gradient passes
    through that mean. The loss does not change when z is scaled or moved.

    Parameters
    ----------
    z : torch.Tensor of shape (n, p)
        Embedded and projected patches.
    omega : torch.Tensor of shape (n, n)
        Similarities in [0, 1]; a constant.
    m : float
        Margin of the repulsion, in mean distances.

    Returns
    -------
    torch.Tensor of shape ()
        Self-pairs included, as printed: they add a constant. Finite, with a finite gradient, also
        where patches are identical.

    References
    ----------
    Hyun et al., WACV 2024, Eq. 7; Kim et al., "Embedding Transfer with Label Relaxation for Improved
    Metric Learning", CVPR 2021.
    """
    return _RelaxedContrast.apply(z, omega, m)


class _RelaxedContrast(torch.autograd.Function):
    """Eq. 7 with its gradient written out: half the passes over (n, n) matrices that autograd takes."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, omega: torch.Tensor, m: float) -> torch.Tensor:
        # The product at the end cancels the less the nearer the origin is.
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


def global_cosine_loss(
    target: torch.Tensor, output: torch.Tensor, alpha: float | torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over images of one minus the cosine between whole, flattened feature maps.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)
    alpha : float or torch.Tensor of shape (), default=None
        Level of hard mining: easy positions of `output` get no gradient, norms and products still see
        them. Easy is what lies below mean + alpha x standard deviation of the distances at all
        positions of all images: about 2 % of the positions at -2, half at 0, 84 % at 1. None: every
        position gets its gradient.

    Returns
    -------
    torch.Tensor of shape ()
        In 0..2.

    References
    ----------
    Guo et al., "ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction",
    NeurIPS 2023, Eq. 3 and 5.
    """
    products = _InnerProducts.apply(target, output, alpha)
    return (1 - _cosines(*(each.sum(dim=(1, 2)) for each in products))).mean()


def regional_cosine_loss(
    target: torch.Tensor, output: torch.Tensor, alpha: float | torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over images and positions of one minus the cosine between feature vectors.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)
    alpha : float or torch.Tensor of shape (), default=None
        As for :func:`global_cosine_loss`.

    Returns
    -------
    torch.Tensor of shape ()
        In 0..2.

    References
    ----------
    Guo et al., NeurIPS 2023, Eq. 1, 2 and 5.
    """
    return (1 - _cosines(*_InnerProducts.apply(target, output, alpha))).mean()


def cosine_distances(target: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between the feature vectors at each position.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)

    Returns
    -------
    torch.Tensor of shape (B, h, w)
        In 0..2; 1 where a vector is 0.
    """
    return 1 - _cosines(*_InnerProducts.apply(target, output, None))


class _InnerProducts(torch.autograd.Function):
    """<t, o>, <t, t> and <o, o> at each position: all that a cosine, of vectors or of maps, needs.

    Maps are read once forward and once back, and hard mining is a mask of the small products' gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, target: torch.Tensor, output: torch.Tensor, alpha: float | torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        t, o = upcast(target), upcast(output)
        products = (t * o).sum(dim=1), t.square().sum(dim=1), o.square().sum(dim=1)
        ctx.hard = None
        if alpha is not None:
            distances = 1 - _cosines(*products)
            ctx.hard = distances >= distances.mean() + alpha * distances.std()
        ctx.save_for_backward(target, output)
        return products

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_to: torch.Tensor, d_tt: torch.Tensor, d_oo: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        t, o = (upcast(maps) for maps in ctx.saved_tensors)
        needs_target, needs_output, _ = ctx.needs_input_grad
        d_target = _weighted(o, d_to, t, 2 * d_tt) if needs_target else None
        if ctx.hard is not None:
            d_to, d_oo = d_to * ctx.hard, d_oo * ctx.hard
        d_output = _weighted(t, d_to, o, 2 * d_oo) if needs_output else None
        return d_target, d_output, None


def _weighted(
    x: torch.Tensor, by: torch.Tensor, y: torch.Tensor, and_by: torch.Tensor
) -> torch.Tensor:
    return (x * by[:, None]).addcmul_(y, and_by[:, None])


def _cosines(to: torch.Tensor, tt: torch.Tensor, oo: torch.Tensor) -> torch.Tensor:
    """Cosines from <t, o>, <t, t>, <o, o>; 0 where a vector is 0, as in torch's cosine_similarity."""
    least = 1e-8**2
    return to * tt.clamp_min(least).rsqrt() * oo.clamp_min(least).rsqrt()


def hard_mining_level(
    iteration: int, max_iter: int, alpha: float, alpha_start: float, warmup_fraction: float
) -> float:
    """Level of hard-normal mining at an iteration: a straight line up to `alpha`, then level.

    Parameters
    ----------
    iteration : int
        Counted from 0.
    max_iter : int
        Iterations of the whole training.
    alpha, alpha_start : float
        Last and first level.
    warmup_fraction : float
        Share of the training over which the level rises.

    Returns
    -------
    float
    """
    rise = warmup_fraction * max_iter
    return alpha if iteration >= rise else alpha_start + (alpha - alpha_start) * iteration / rise
