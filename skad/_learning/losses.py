"""Losses that embeddings and reconstructions are trained by."""

from __future__ import annotations

import torch
import torch.nn.functional as F

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


def global_cosine_loss(target: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Mean over images of one minus the cosine between whole, flattened feature maps.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)

    Returns
    -------
    torch.Tensor of shape ()
        In 0..2.

    References
    ----------
    Guo et al., "ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction",
    NeurIPS 2023, Eq. 3.
    """
    return (1 - F.cosine_similarity(target.flatten(1), output.flatten(1), dim=1)).mean()


def regional_cosine_loss(target: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Mean over images and positions of one minus the cosine between feature vectors.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)

    Returns
    -------
    torch.Tensor of shape ()
        In 0..2.

    References
    ----------
    Guo et al., NeurIPS 2023, Eq. 1 and 2.
    """
    return cosine_distances(target, output).mean()


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
    return 1 - F.cosine_similarity(target, output, dim=1)


def pass_hard_gradients(
    target: torch.Tensor, output: torch.Tensor, alpha: float | torch.Tensor
) -> torch.Tensor:
    """Stop the gradient at positions that are easy to reconstruct; the values stay.

    Easy is what lies below mean + alpha x standard deviation of the distances at all positions of all
    images of the batch. Norms and products of a loss still see the easy positions.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)
    alpha : float or torch.Tensor of shape ()
        About 2 % of the positions are easy at -2, half at 0, 84 % at 1.

    Returns
    -------
    torch.Tensor of shape (B, C, h, w)
        Equal to `output`.

    References
    ----------
    Guo et al., NeurIPS 2023, Eq. 5.
    """
    with torch.no_grad():
        distances = cosine_distances(target, output)
        easy = distances < distances.mean() + alpha * distances.std()
    return torch.where(easy[:, None], output.detach(), output)


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


def widened(x: torch.Tensor) -> torch.Tensor:
    """Bring bfloat16, which is too coarse for sums over many values, to float32."""
    return x.float() if x.dtype == torch.bfloat16 else x
