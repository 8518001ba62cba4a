"""Bounds of distances at a small part of what an exact search costs: few directions, or few digits."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding

from skad._bank._distances import blocks, full_precision
from skad._bank.memory_bank import LeaveOut, MemoryBank
from skad._bank.search import ExactSearch, check_k, distances_to, nearest_rows
from skad._torch.devices import has_fast_halves

# Principal directions in which proposals are looked for. On real features of good parts nearly every
# proposal is the nearest vector itself, or hardly farther.
_DIRECTIONS = 32
# Smaller banks and shorter vectors are searched exactly at the same cost.
_WORTH_IT = 4 * _DIRECTIONS
# Coarse bounds come from every so many vectors of a bank that is large enough.
_STRIDE = 8
_LARGE = 128 * _STRIDE
# Rows whose differences are held at a time, and what float32 may have rounded away of their lengths.
_ROWS = 256
_ROUNDING = 1e-5

# Half precision: relative error of a number, and what the smallest ones lose absolutely.
_HALF, _SMALLEST = 2.0**-11, 2.0**-24
# Length to which the longest vector of a bank is scaled. Products with queries of up to `_FAR` stay
# below the largest half-precision number, 65,504.
_LENGTH, _FAR = 16.0, 1024.0
_FLOAT_MAX = torch.finfo(torch.float32).max
# Rounding of a product of two vectors, relative to their lengths: cuBLAS may add up partial sums in half
# precision.
_PRODUCT = 8 * _HALF
# Products held at a time.
_PRODUCTS = 1 << 28


def bounds_pay(bank: MemoryBank, device: torch.device) -> bool:
    """Whether `upper_bounds` says something of the bank's search, which then is exact, and costs less.

    On a GPU the search of one image costs nothing.
    """
    large = min(bank.vectors.shape) >= _WORTH_IT
    return bank.index == "auto" and device.type == "cpu" and large


def upper_bounds(
    bank: MemoryBank,
    queries: torch.Tensor,
    k: int,
    *,
    exclude_source: LeaveOut = None,
    coarse: bool = False,
) -> NDArray[np.float64]:
    """Distances that bound those of the bank's search from above, at a small part of its cost.

    Only where `bounds_pay` says so.

    Parameters
    ----------
    bank : MemoryBank
    queries : tensor of shape (q, d), float32
        Patches of one image.
    k, exclude_source
        As for :meth:`MemoryBank.search`.
    coarse : bool, default=False
        Wider bounds, from an eighth of a large bank.

    Returns
    -------
    ndarray of shape (q, k), float64
        Distances to k different vectors of the bank, ascending, so that column j is at least the
        distance to the (j + 1)-th nearest.
    """
    queries = bank.as_queries(queries)
    check_k(k, bank.n_left(exclude_source))
    exact, mask = bank.exact(queries.device), bank.left_out(exclude_source, queries.device)
    key = ("proposals", str(queries.device))
    proposals = bank.prepared.once(key, lambda: ProposalSearch(exact))
    every = _STRIDE if coarse and _can_thin(bank, k, mask) else 1
    ids = proposals.candidates(queries, k, mask, every)
    return distances_from_above(queries, exact.vectors, ids)


def _can_thin(bank: MemoryBank, k: int, mask: torch.Tensor | None) -> bool:
    if len(bank.vectors) < _LARGE:
        return False
    return mask is None or int((~mask[::_STRIDE]).sum()) >= k


def batch_bounds_pay(bank: MemoryBank, device: torch.device) -> bool:
    """Whether `batch_upper_bounds` says something of the bank's search, and costs less."""
    return bank.index == "auto" and has_fast_halves(device)


def batch_upper_bounds(bank: MemoryBank, queries: torch.Tensor, k: int) -> torch.Tensor:
    """Bound the distances of many images from above, without waiting for the device.

    Only where `batch_bounds_pay` says so.

    Parameters
    ----------
    bank : MemoryBank
    queries : tensor of shape (n_images, patches, d), float32
    k : int

    Returns
    -------
    tensor of shape (n_images, patches, k), float32, on the device of the queries
        Column j is at least the distance to the (j + 1)-th nearest.
    """
    queries = bank.as_queries(queries)
    check_k(k, len(bank.vectors))
    exact = bank.exact(queries.device)
    key = ("halves", str(queries.device))
    halves = bank.prepared.once(key, lambda: HalfPrecisionBounds(exact))
    return halves.distances(queries.flatten(0, 1), k).unflatten(0, queries.shape[:2])


def batch_distances(bank: MemoryBank, queries: torch.Tensor, k: int) -> torch.Tensor:
    """Measure the distances to the k nearest vectors, without waiting for the device.

    Arguments and shape as for `batch_upper_bounds`; in no promised order. The search is exact, whatever
    the index of the bank is.
    """
    exact, flat = bank.exact(queries.device), queries.flatten(0, 1)
    check_k(k, len(bank.vectors))
    found = distances_to(flat, exact.vectors, exact.candidates(flat, k))
    return found.unflatten(0, queries.shape[:2])


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


class HalfPrecisionBounds:
    """Bounds from above by one product in half precision, ten times as fast on a GPU.

    Distances between rounded vectors, plus all that rounding can have taken: a hundredth, where a patch
    is as far from the bank as the bank's vectors are from its centre.

    Parameters
    ----------
    exact : ExactSearch
        The vectors, centred.
    """

    def __init__(self, exact: ExactSearch) -> None:
        with torch.no_grad():
            longest = exact.norms.max().sqrt()
            # A bank of one point has no length; any scale does.
            self._scale = torch.where(longest > _LENGTH / _FLOAT_MAX, _LENGTH / longest, 1.0)
            self._shift = -exact.centre * self._scale
            self._points = (exact.points * self._scale).half()
            lengths = torch.linalg.vector_norm(self._points, dim=1, dtype=torch.float32)
            self._norms = lengths.square().half()
            # What float32 loses of a query on the way to the centre.
            self._offset = (
                2 * torch.finfo(torch.float32).eps * torch.linalg.vector_norm(self._shift)
            )

    def distances(self, queries: torch.Tensor, k: int) -> torch.Tensor:
        """Bound the distances to the k nearest vectors.

        Parameters
        ----------
        queries : tensor of shape (q, d), float32
        k : int

        Returns
        -------
        tensor of shape (q, k), float32
            Column j is at least the distance to the (j + 1)-th nearest.
        """
        with torch.no_grad(), full_precision(queries):
            rounded = torch.empty(queries.shape, dtype=torch.half, device=queries.device)
            torch.addcmul(self._shift, queries, self._scale, out=rounded)
            lengths = torch.linalg.vector_norm(rounded, dim=1, keepdim=True, dtype=torch.float32)
            squares = self._lowest(rounded, k).float() + lengths.square()
            # What the arithmetic can have taken from the squares (norms and sums are rounded too), then
            # the rounding of both vectors.
            products = 2 * lengths * _LENGTH
            squares += (_HALF + _PRODUCT) * products + 2 * _HALF * _LENGTH**2
            lost = _HALF * (lengths + _LENGTH) + 2 * _SMALLEST * math.sqrt(queries.shape[1])
            lost += self._offset
            near = squares.clamp_min(0).sqrt() + lost
            # Far beyond the bank products may overflow; the way over its centre is short enough.
            bounds = torch.where(lengths < _FAR, near, lengths + _LENGTH + lost)
            return bounds.mul_(1 + _ROUNDING).div_(self._scale)

    def _lowest(self, rounded: torch.Tensor, k: int) -> torch.Tensor:
        """Find the k lowest ``|v|^2 - 2 q.v`` of each query."""
        best: list[torch.Tensor] = []
        size = max(k, _PRODUCTS // max(1, len(rounded)))
        for some in blocks(len(self._norms), size):
            values = torch.addmm(self._norms[some], rounded, self._points[some].T, alpha=-2)
            best.append(_lowest(values, k))
        return best[0] if len(best) == 1 else _lowest(torch.cat(best, 1), k)


def _lowest(values: torch.Tensor, k: int) -> torch.Tensor:
    if k == 1:
        return values.amin(1, keepdim=True)
    return values.topk(min(k, values.shape[1]), dim=1, largest=False).values


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
