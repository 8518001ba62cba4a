"""A Gaussian for every position of a pyramid of layers: PaDiM's model, Eq. 1 and 2 of its paper.

With coarse layers brought to the finest grid by their nearest values, neighbours share what they have
of them. So covariances have the coarse channels first: the rows of their inverse Cholesky factors that
belong to these are the same for all positions that share them, and are kept once. Every layer has
rows of its own, whose products with deviations are computed at its own resolution; the squares of all
add up to Mahalanobis' distance.

References
----------
Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization",
ICPR International Workshops 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

Tensors = list[torch.Tensor]


class Gaussians(NamedTuple):
    """Gaussians at every position; in all lists the finest layer comes first."""

    means: Tensors
    """(P_j, c_j) of each layer."""
    factors: Tensors
    """(P_j, c_j, a_j + c_j): the layer's rows of the inverse Cholesky factors, which concern the a_j
    channels of coarser layers, and its own."""


class Block(NamedTuple):
    """Some positions of the coarsest layer, and all of finer ones that lie in them."""

    positions: list[np.ndarray]
    """Numbers of the positions of each layer; those of one parent one after the other."""
    parents: list[np.ndarray]
    """As of a pyramid, counted within the block."""


def blocks_of(parents: Sequence[np.ndarray], n_coarsest: int, size: int) -> Iterator[Block]:
    """Cut a pyramid into blocks that need nothing of each other.

    Parameters
    ----------
    parents : sequence of ndarray of int64
        For every layer but the last: in which position of the next each of its own lies.
    n_coarsest : int
        Positions of the last layer.
    size : int
        Of these in a block.

    Yields
    ------
    Block
    """
    roots = [np.arange(n_coarsest)]
    for own in reversed(parents):
        roots.insert(0, roots[0][own])
    for start in range(0, n_coarsest, size):
        stop = min(start + size, n_coarsest)
        positions: list[np.ndarray] = [np.arange(start, stop)]
        within: list[np.ndarray] = []
        place = np.empty(n_coarsest, dtype=np.int64)
        for root, own in zip(reversed(roots[:-1]), reversed(parents), strict=True):
            place[positions[0]] = np.arange(len(positions[0]))
            own_positions = np.flatnonzero((root >= start) & (root < stop))
            # Those of one parent one after the other.
            order = np.argsort(place[own[own_positions]], kind="stable")
            positions.insert(0, own_positions[order])
            within.insert(0, place[own[positions[0]]])
            place = np.empty(len(own), dtype=np.int64)
        yield Block(positions, within)


def values_per_root(sizes: Sequence[tuple[int, int]], n_images: int) -> int:
    """Estimate how many float64 values :func:`fit_gaussians` holds for a position of the coarsest layer.

    Parameters
    ----------
    sizes : sequence of (P_j, c_j)
    n_images : int

    Returns
    -------
    int
    """
    total, above = 0, 0
    for positions, n in reversed(sizes):
        length = above + n
        values = 2 * n_images * (n + length) + 4 * n * length + 2 * length**2
        total += -(-positions // sizes[-1][0]) * values
        above = length
    return total


def fit_gaussians(
    levels: Sequence[torch.Tensor], parents: Sequence[torch.Tensor], regularization: float
) -> tuple[Gaussians, torch.Tensor | None]:
    """Fit Gaussians, and score every image by those of the others.

    Parameters
    ----------
    levels : sequence of torch.Tensor of shape (n, P_j, c_j), float64
        The finest layer first.
    parents : sequence of torch.Tensor of int64
    regularization : float
        What is added to the diagonals of covariances.

    Returns
    -------
    gaussians : Gaussians
        float64.
    left_out : torch.Tensor of shape (n, P_1), float64, or None
        Squared Mahalanobis distance of each image to what the others alone give; None of one image.

    Raises
    ------
    torch.linalg.LinAlgError
        If a covariance is so large that the regularization is lost in it.

    Notes
    -----
    Without image i the sum of products S becomes ``S - n / (n - 1) d d'``, with d the image's deviation
    from the mean of all; the deviation from the mean of the others is ``n / (n - 1) d``. By the formula
    of Sherman and Morrison the distance follows from ``q = d' M^-1 d`` alone, where M is the covariance
    that divides S by what the others divide theirs by.
    """
    n = len(levels[0])
    means = [layer.mean(dim=0) for layer in levels]
    deviations = _with_coarser(
        [layer - mean for layer, mean in zip(levels, means, strict=True)], parents
    )
    scatter = [
        # Own channels come last.
        torch.bmm(v[..., v.shape[2] - mean.shape[1] :].permute(1, 2, 0), v.transpose(0, 1))
        for v, mean in zip(deviations, means, strict=True)
    ]
    gaussians = Gaussians(means, _factors(scatter, parents, max(n - 1, 1), regularization))
    if n == 1:
        return gaussians, None
    count = max(n - 2, 1)
    q = _squares(deviations, _factors(scatter, parents, count, regularization), parents)
    weight = n / ((n - 1) * count)
    # Above 0 but for rounding, where the regularization is next to nothing.
    left = (1 - weight * q).clamp_min(torch.finfo(q.dtype).eps)
    return gaussians, (n / (n - 1)) ** 2 * q / left


def squared_distances(
    levels: Sequence[torch.Tensor], gaussians: Gaussians, parents: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Squared Mahalanobis distance at every position.

    Parameters
    ----------
    levels : sequence of torch.Tensor of shape (B, P_j, c_j)
    gaussians : Gaussians
    parents : sequence of torch.Tensor of int64

    Returns
    -------
    torch.Tensor of shape (B, P_1)
    """
    deviations = [layer - mean for layer, mean in zip(levels, gaussians.means, strict=True)]
    return _squares(_with_coarser(deviations, parents), gaussians.factors, parents)


def _with_coarser(levels: Tensors, parents: Sequence[torch.Tensor]) -> Tensors:
    """Put before the channels of each layer those of coarser ones at the same place."""
    joined = [levels[-1]]
    for layer, own in zip(reversed(levels[:-1]), reversed(parents), strict=True):
        joined.insert(0, torch.cat([joined[0].index_select(1, own), layer], dim=2))
    return joined


def _squares(
    deviations: Tensors, factors: Sequence[torch.Tensor], parents: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Sum up the squares of all layers at the positions of the finest: (B, P_1)."""
    own = [
        torch.bmm(v.transpose(0, 1), rows.mT).square().sum(dim=2).T
        for v, rows in zip(deviations, factors, strict=True)
    ]
    total = own[-1]
    for layer, within in zip(reversed(own[:-1]), reversed(parents), strict=True):
        total = layer + total.index_select(1, within)
    return total


def _factors(
    scatter: Tensors, parents: Sequence[torch.Tensor], count: int, regularization: float
) -> Tensors:
    """Invert Cholesky factors of ``scatter / count + regularization * I``, the coarsest layer first.

    With A the inverse factor of the coarser channels and C the covariances, ``R = C_above A'`` are their
    columns of the layer's rows of the factor, and ``C_own - R R'`` is left for its own.
    """
    factors: Tensors = []
    inverse = scatter[-1][:, :0, :0]
    alone = torch.arange(len(inverse), device=inverse.device)
    for layer, own_parents in zip(reversed(scatter), [alone, *reversed(parents)], strict=True):
        n_own, n_above = layer.shape[1], inverse.shape[2]
        of_above, own = (layer / count).split([n_above, n_own], dim=2)
        identity = torch.eye(n_own, dtype=own.dtype, device=own.device)
        R = _times(of_above, inverse.mT, own_parents)
        L = torch.linalg.cholesky(own + regularization * identity - R @ R.mT)
        L_inverse = torch.linalg.solve_triangular(L, identity, upper=False)
        of_above = _times(-(L_inverse @ R), inverse, own_parents)
        factors.insert(0, torch.cat([of_above, L_inverse], dim=2))
        if len(factors) < len(scatter):
            padded = torch.nn.functional.pad(inverse[own_parents], (0, n_own))
            inverse = torch.cat([padded, factors[0]], dim=1)
    return factors


def _times(rows: torch.Tensor, matrices: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
    """Multiply rows (P, c, a) by the matrices (Q, a, a) of their parents."""
    n_parents, n_children = len(matrices), len(parents) // len(matrices)
    in_turn = torch.arange(n_parents, device=parents.device).repeat_interleave(n_children)
    if torch.equal(parents, in_turn):  # a product for each parent, without copies of its matrix
        together = rows.reshape(n_parents, n_children * rows.shape[1], rows.shape[2])
        return (together @ matrices).reshape(rows.shape)
    return rows @ matrices[parents]
