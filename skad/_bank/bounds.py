"""Vectors that are near, proposed at a small part of what an exact search costs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding

from skad._bank._distances import blocks, full_precision
from skad._bank.search import ExactSearch, nearest_rows

# Principal directions in which proposals are looked for. On real features of good parts nearly every
# proposal is the nearest vector itself, or hardly farther.
_DIRECTIONS = 32
# Smaller banks and shorter vectors are searched exactly at the same cost.
_WORTH_IT = 4 * _DIRECTIONS
# Rows whose differences are held at a time, and what float32 may have rounded away of their lengths.
_ROWS = 256
_ROUNDING = 1e-5


class ProposalSearch:
    """Search in the subspace where the vectors spread most.

    Distances are taken in the leading principal directions; of the rest only the lengths of the bank's
    vectors count, as if they were at right angles to the queries'.

    Parameters
    ----------
    exact : ExactSearch
        The vectors, centred.
    """

    def __init__(self, exact: ExactSearch) -> None:
        self._exact = exact
        with torch.no_grad(), full_precision(exact.points):
            self._directions = leading_directions(exact.points, _DIRECTIONS)
            self._points = exact.points @ self._directions
            self._centre = exact.centre @ self._directions

    @staticmethod
    def pays(vectors: torch.Tensor) -> bool:
        """Whether proposals cost less than the search itself; on a GPU the search costs nothing."""
        return vectors.device.type == "cpu" and min(vectors.shape) >= _WORTH_IT

    def candidates(
        self, queries: torch.Tensor, k: int, exclude: torch.Tensor | None = None, every: int = 1
    ) -> torch.Tensor:
        """Row numbers of k different vectors that are near; arguments as for `ExactSearch`.

        `every`: only every so many vectors are looked at, k at least of them not excluded.
        """
        with torch.no_grad(), full_precision(queries):
            projected = queries @ self._directions - self._centre
        points, norms = self._points[::every], self._exact.norms[::every]
        some = None if exclude is None else exclude[::every]
        return every * nearest_rows(projected, points, norms, k, some)


def distances_from_above(
    queries: torch.Tensor, vectors: torch.Tensor, ids: torch.Tensor
) -> NDArray[np.float64]:
    """Euclidean distances of query i to ``vectors[ids[i]]``, rounded up a little.

    Parameters
    ----------
    queries : tensor of shape (q, d), float32
    vectors : tensor of shape (M, d), float32
    ids : tensor of shape (q, k), int64

    Returns
    -------
    ndarray of shape (q, k), float64
        Ascending. In float32, which is twice as fast as `distances_to` and as good for a bound.
    """
    squares = queries.new_empty(ids.shape)
    with torch.no_grad():
        for some in blocks(len(ids), _ROWS):
            away = embedding(ids[some], vectors).sub_(queries[some, None])
            torch.sum(away.mul_(away), dim=2, out=squares[some])
    return np.sort(squares.double().sqrt_().mul_(1 + _ROUNDING).cpu().numpy(), axis=1)


def leading_directions(points: torch.Tensor, n: int) -> torch.Tensor:
    """Find an orthonormal basis close to the n leading principal directions.

    Two rounds of subspace iteration from a fixed start: the same basis for the same points, and close
    enough for proposals.

    Parameters
    ----------
    points : tensor of shape (M, d), float32
        Centred.
    n : int
        At most M and d.

    Returns
    -------
    tensor of shape (d, n), float32
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(points.shape[1], n, generator=generator).to(points)
    basis = torch.linalg.qr(start)[0]
    for _ in range(2):
        basis = torch.linalg.qr(points.T @ (points @ basis))[0]
    return basis
