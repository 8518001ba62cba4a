"""Similarities between the patches of a batch: Eq. 1 to 6 of ReConPatch.

Everything is a matrix product or an element-wise operation on (n, n) matrices. A patch is its own
nearest neighbour throughout.

References
----------
Hyun et al., "ReConPatch: Contrastive Patch Representation Learning for Industrial Anomaly
Detection", WACV 2024; its expansion by reciprocal neighbours is that of Liao et al.,
arXiv:2210.01908.
"""

from __future__ import annotations

import torch


def squared_distances(z: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances within a batch, differentiable.

    Parameters
    ----------
    z : torch.Tensor of shape (n, p)

    Returns
    -------
    torch.Tensor of shape (n, n)
        At least 0; exactly 0, with zero gradient, on the diagonal and between vectors that differ by
        no more than rounding.
    """
    # Distances do not depend on the origin, but the products below lose fewer digits near it.
    z = z - z.mean(dim=0)
    norms = z.square().sum(dim=1)
    scale = norms[:, None] + norms[None, :]
    squares = torch.addmm(scale, z, z.T, alpha=-2)
    rounding = scale.mul_(torch.finfo(z.dtype).eps * z.shape[1] ** 0.5)
    same = (squares <= rounding).fill_diagonal_(True)  # False for NaN, which is passed on
    return squares.masked_fill_(same, 0)


def pairwise_similarity(squares: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """Gaussian kernel, ``exp(-d / sigma)`` (Eq. 1).

    Parameters
    ----------
    squares : torch.Tensor of shape (n, n)
        Squared distances d.
    sigma : float or torch.Tensor of shape ()
        Bandwidth, in the unit of d: it divides the squared distance and is not squared itself.

    Returns
    -------
    torch.Tensor of shape (n, n)
        In [0, 1]; 1 on the diagonal.
    """
    return torch.exp_(squares / -sigma)


def neighbourhoods(squares: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the sets N_k and N_h of every patch, h = max(1, k // 2), as masks.

    ``N_k(i) = {j : d_ij <= k-th smallest of row i}``, patch i counted in. Where distances tie, a set
    may hold more than k patches: it then does not depend on the order of the batch.

    Parameters
    ----------
    squares : torch.Tensor of shape (n, n)
        Squared distances d.
    k : int
        1 to n.

    Returns
    -------
    full, half : torch.Tensor of shape (n, n), bool
        Row i marks the members of N_k(i) and of N_h(i).
    """
    nearest = squares.topk(k, dim=1, largest=False).values
    half = max(1, k // 2)
    return squares <= nearest[:, k - 1 :], squares <= nearest[:, half - 1 : half]


def contextual_similarity(squares: torch.Tensor, k: int) -> torch.Tensor:
    """Fraction of neighbours in common, averaged over reciprocal neighbours (Eq. 2 to 5).

    The index of R in Eq. 4 is k/2 in both places; an odd k is halved downwards.

    Parameters
    ----------
    squares : torch.Tensor of shape (n, n)
        Squared distances.
    k : int
        Neighbours of a patch, itself counted in; 1 to n.

    Returns
    -------
    torch.Tensor of shape (n, n)
        In [0, 1], symmetric; below 1 on the diagonal where reciprocal neighbours differ.
    """
    near, nearer = (mask.to(squares.dtype) for mask in neighbourhoods(squares, k))
    shared = (near @ near.T).mul_(near).div_(near.sum(dim=1, keepdim=True))  # Eq. 2
    reciprocal = nearer * nearer.T  # Eq. 3
    expanded = (reciprocal @ shared).div_(reciprocal.sum(dim=1, keepdim=True))  # Eq. 4
    return (expanded + expanded.T).div_(2)  # Eq. 5


def similarity(
    z: torch.Tensor, *, k: int, alpha: float, sigma: float | torch.Tensor
) -> torch.Tensor:
    """Similarity of every pair of a batch, ``alpha pairwise + (1 - alpha) contextual`` (Eq. 6).

    Parameters
    ----------
    z : torch.Tensor of shape (n, p)
        Patches as the averaged networks embed and project them.
    k : int
        Neighbours of a patch, itself counted in; 1 to n.
    alpha : float
        In [0, 1].
    sigma : float or torch.Tensor of shape ()
        Bandwidth of the pairwise similarity.

    Returns
    -------
    torch.Tensor of shape (n, n)
    """
    squares = squared_distances(z)
    return contextual_similarity(squares, k).lerp_(pairwise_similarity(squares, sigma), alpha)
