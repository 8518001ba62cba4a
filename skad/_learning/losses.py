"""Losses that embeddings are trained by."""

from __future__ import annotations

import torch

from skad._learning.similarity import squared_distances


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
    squares = squared_distances(z)
    same = squares == 0
    # The root has no derivative at 0: those entries take another way, and no gradient.
    distances = squares.masked_fill(same, 1).sqrt().masked_fill(same, 0)
    means = distances.mean(dim=1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
    delta = distances / means
    attraction = omega * delta.square()
    repulsion = (1 - omega) * (m - delta).clamp_min(0).square()
    return (attraction + repulsion).sum() / len(z)
