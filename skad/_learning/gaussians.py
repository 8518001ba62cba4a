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
    total, length = 0, 0
    for j in reversed(range(len(sizes))):
        positions, n = sizes[j]
        length += n
        values = 4 * n_images * n + 4 * n * length
        if j:  # kept for the next finer one
            values += 2 * n_images * length + 3 * length**2
        total += -(-positions // sizes[-1][0]) * values
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
    # (P_j, c_j, n) from here on.
    deviations = [
        (layer - mean).permute(1, 2, 0).contiguous()
        for layer, mean in zip(levels, means, strict=True)
    ]
    scatter = _Scatter.of(deviations, parents)
    steps = _steps(scatter, parents, max(n - 1, 1), regularization)
    gaussians = Gaussians(means, [step.rows() for step in steps][::-1])
    if n == 1:
        return gaussians, None
    count = max(n - 2, 1)
    q = _own_squares(deviations, _steps(scatter, parents, count, regularization), parents)
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
    joined = [deviations[-1]]
    for layer, within in zip(reversed(deviations[:-1]), reversed(parents), strict=True):
        joined.insert(0, torch.cat([joined[0].index_select(1, within), layer], dim=2))
    own = [
        torch.bmm(v.transpose(0, 1), rows.mT).square().sum(dim=2).T
        for v, rows in zip(joined, gaussians.factors, strict=True)
    ]
    return _added_up(own, parents)


def _added_up(own: Tensors, parents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Add up values of all layers, (B, P_j), at the positions of the finest: (B, P_1)."""
    total = own[-1]
    for layer, within in zip(reversed(own[:-1]), reversed(parents), strict=True):
        total = layer + total.index_select(1, within)
    return total


class _Scatter(NamedTuple):
    """Sums of products of deviations; in both lists the finest layer comes first."""

    above: Tensors
    """(P_j, c_j, a_j): of each layer's channels with those of coarser ones."""
    own: Tensors
    """(P_j, c_j, c_j): among themselves."""

    @classmethod
    def of(cls, deviations: Tensors, parents: Sequence[torch.Tensor]) -> _Scatter:
        coarser = deviations[-1][:, :0]
        above: Tensors = []
        for layer, within in zip(reversed(deviations), _within(parents, coarser), strict=True):
            above.insert(0, _times(layer, coarser.mT, within))
            if len(above) < len(deviations):
                coarser = torch.cat([coarser[within], layer], dim=1)
        return cls(above, [layer @ layer.mT for layer in deviations])


class _Step(NamedTuple):
    """What a layer adds to Cholesky factors, of which A is the inverse for coarser layers.

    Its rows of the factors are ``[R, L]``, and of the inverse ``[-L^-1 R A, L^-1]``.
    """

    R: torch.Tensor
    L_inverse: torch.Tensor
    A: torch.Tensor
    within: torch.Tensor
    """In which position of the next layer each position lies."""

    def rows(self) -> torch.Tensor:
        of_coarser = _times(-(self.L_inverse @ self.R), self.A, self.within)
        return torch.cat([of_coarser, self.L_inverse], dim=2)


def _steps(
    scatter: _Scatter, parents: Sequence[torch.Tensor], count: int, regularization: float
) -> Iterator[_Step]:
    """Decompose ``scatter / count + regularization * I``, the coarsest layer first.

    With C the covariances, ``R = C_above A'`` and ``L L' = C_own - R R'``.
    """
    A = scatter.above[-1].new_empty((len(scatter.above[-1]), 0, 0))
    layers = zip(reversed(scatter.above), reversed(scatter.own), _within(parents, A), strict=True)
    for n_coarser, (above, own, within) in enumerate(layers):
        identity = torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
        R = _times(above / count, A.mT, within)
        L = torch.linalg.cholesky(own / count + regularization * identity - R @ R.mT)
        step = _Step(R, torch.linalg.solve_triangular(L, identity, upper=False), A, within)
        yield step
        if n_coarser < len(parents):
            padded = torch.nn.functional.pad(A[within], (0, own.shape[1]))
            A = torch.cat([padded, step.rows()], dim=1)


def _own_squares(
    deviations: Tensors, steps: Iterator[_Step], parents: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Squared distances of the images that the deviations are of, (n, P_1), without rows of inverses."""
    coarser = deviations[-1][:, :0]
    own: Tensors = []
    for layer, step in zip(reversed(deviations), steps, strict=True):
        z = step.L_inverse @ (layer - _times(step.R, coarser, step.within))
        own.insert(0, z.square().sum(dim=1).T)
        if len(own) < len(deviations):
            coarser = torch.cat([coarser[step.within], z], dim=1)
    return _added_up(own, parents)


def _within(parents: Sequence[torch.Tensor], coarsest: torch.Tensor) -> Tensors:
    """Parents of the positions of all layers, the coarsest first, whose positions are their own."""
    return [torch.arange(len(coarsest), device=coarsest.device), *reversed(parents)]


def _times(rows: torch.Tensor, matrices: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
    """Multiply rows (P, c, a) by the matrices (Q, a, b) of their parents: (P, c, b)."""
    n_parents, n_children = len(matrices), len(within) // len(matrices)
    in_turn = torch.arange(n_parents, device=within.device).repeat_interleave(n_children)
    if torch.equal(within, in_turn):  # a product for each parent, without copies of its matrix
        together = rows.reshape(n_parents, n_children * rows.shape[1], rows.shape[2])
        return (together @ matrices).reshape(*rows.shape[:2], matrices.shape[2])
    return rows @ matrices[within]
