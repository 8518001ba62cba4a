"""Losses that embeddings and reconstructions are trained by."""

from __future__ import annotations

import torch

from skad._learning.similarity import squared_distances
from skad._torch.devices import upcast

# Least squared length that a cosine divides by, as in torch's cosine_similarity.
_LEAST = 1e-8**2


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
    distances = _distances(z)
    means = distances.mean(dim=1, keepdim=True)
    # The mean is 0 where all patches are identical; so are the distances that it divides.
    delta = distances / means.clamp_min(torch.finfo(z.dtype).tiny)
    attraction, repulsion = delta.square(), (m - delta).clamp_min(0).square()
    return (omega * attraction + (1 - omega) * repulsion).sum() / len(z)


def _distances(z: torch.Tensor) -> torch.Tensor:
    """Euclidean distances; at distance 0, where the root has no derivative, the gradient is 0."""
    squares = squared_distances(z)
    same = squares == 0
    return squares.masked_fill(same, 1).sqrt().masked_fill(same, 0)


def global_cosine_loss(
    target: torch.Tensor, output: torch.Tensor, alpha: float | torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over images of one minus the cosine between whole, flattened feature maps.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)
    alpha : float or torch.Tensor of shape (), default=None
        Level of hard mining: easy positions of `output` get no gradient, but still count in the cosine.
        A position is easy where its cosine distance lies below mean + alpha x standard deviation over
        all positions of all images: about 2 % of the positions at -2, half at 0, 84 % at 1. None: every
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
    target, output = upcast(target), upcast(output)
    output = _without_easy_gradients(target, output, alpha)
    return (1 - _cosine(target, output, dim=(1, 2, 3))).mean()


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
    target, output = upcast(target), upcast(output)
    output = _without_easy_gradients(target, output, alpha)
    return (1 - _cosine(target, output, dim=1)).mean()


def discarding_cosine_loss(
    target: torch.Tensor, output: torch.Tensor, share: float, factor: float = 0.1
) -> torch.Tensor:
    """Mean over images of one minus the cosine between whole maps; easy positions hardly count.

    Parameters
    ----------
    target, output : torch.Tensor of shape (B, C, h, w)
        `target` is a constant.
    share : float
        Of all positions of all images, those that are reconstructed best, in [0, 1).
    factor : float, default=0.1
        By which gradients of `output` at these are multiplied; their values count as they are.

    Returns
    -------
    torch.Tensor of shape ()
        In 0..2.

    References
    ----------
    Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection",
    CVPR 2025, section 3.5.
    """
    target, output = upcast(target.detach()), upcast(output)
    with torch.no_grad():
        distances = cosine_distances(target, output)
        n_hard = max(1, int(distances.numel() * (1 - share)))
        easy = distances < distances.flatten().topk(n_hard)[0][-1]
    constant = output.detach()
    output = torch.where(easy[:, None], constant + factor * (output - constant), output)
    return (1 - _cosine(target, output, dim=(1, 2, 3))).mean()


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
    return 1 - _cosine(upcast(target), upcast(output), dim=1)


def _without_easy_gradients(
    target: torch.Tensor, output: torch.Tensor, alpha: float | torch.Tensor | None
) -> torch.Tensor:
    """Stop the gradient of `output` at easy positions (Eq. 5); its values stay."""
    if alpha is None:
        return output
    with torch.no_grad():
        distances = cosine_distances(target, output)
        easy = distances < distances.mean() + alpha * distances.std()
    return torch.where(easy[:, None], output.detach(), output)


def _cosine(x: torch.Tensor, y: torch.Tensor, dim: int | tuple[int, ...]) -> torch.Tensor:
    """Cosine between vectors along `dim`; 0 where one of them is 0."""
    xy, xx, yy = (x * y).sum(dim), x.square().sum(dim), y.square().sum(dim)
    return xy * xx.clamp_min(_LEAST).rsqrt() * yy.clamp_min(_LEAST).rsqrt()


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
        Fraction of the training over which the level rises.

    Returns
    -------
    float
    """
    rise = warmup_fraction * max_iter
    return alpha if iteration >= rise else alpha_start + (alpha - alpha_start) * iteration / rise
