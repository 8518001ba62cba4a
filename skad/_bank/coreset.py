"""Few vectors that cover all: random projection and greedy k-centre.

The selection is the textbook's, center by center; only the order of the arithmetic differs. A plain
loop reads all N vectors for every center and so waits for memory. Here a round takes the rows that
are farthest from all centers, and runs the greedy rule among these few for as long as it provably
equals the rule over all rows. Distances to the centers only ever shrink: a row that was near enough
once is left alone, and catches up with the centers it has missed, in matrix products, when it may be
among the farthest again. Half of the products are never needed.

References
----------
Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, algorithm 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skad._bank._distances import (
    blocks,
    full_precision,
    rounded_centre,
    rows_per_product,
    squared_norms,
)

Progress = Callable[[int], object]

# Largest products that stay in a CPU core's cache with their result.
_ROWS, _CENTERS = 2048, 256
# Centers that rows catch up with before it is asked again who still may be among the farthest.
_BLOCK = 2 * _CENTERS
# Rows that catch up together: far more than a round looks at, so that few attempts find its rows.
# The fraction of all rows that they are, and their least number.
_CANDIDATE_FRACTION, _MIN_CANDIDATES = 1 / 8, 8192
# Below any squared distance: a row that is a center never is the farthest again.
_SELECTED = -1.0


class Traversal(NamedTuple):
    """Centers of `farthest_first`, and how far everything lies from them."""

    rows: NDArray[np.int64]
    """(n_select,), distinct row numbers in the order of selection."""
    center_dist: NDArray[np.float64]
    """(n_select,), descending: the distance of each center to those before it; inf for a first one."""
    radius: float
    """Largest distance of any row to its nearest center."""
    left: NDArray[np.float64]
    """(N,), the distance of every row to its nearest center; 0 for centers. Empty if not asked for."""


def projection_matrix(
    n_features: int, out_dim: int | None, generator: torch.Generator
) -> torch.Tensor | None:
    """Matrix of the random projection psi, or None where vectors are to be kept as they are.

    Parameters
    ----------
    n_features : int
        Length d of the vectors.
    out_dim : int or None
        Length after projection; None projects nothing. Neither does ``out_dim >= d``: projecting
        upwards would only cost time.
    generator : torch.Generator
        On the CPU, so that every device gets the same matrix. Not touched when None is returned.

    Returns
    -------
    tensor of shape (out_dim, d), float32, on the CPU; or None
        Entries independent and uniform in ``(-1/sqrt(d), 1/sqrt(d))``, as in PatchCore's code.
    """
    if out_dim is None or n_features <= out_dim:
        return None
    if out_dim < 1:
        raise ValueError(f"out_dim must be at least 1 or None, got {out_dim}")
    bound = n_features**-0.5
    return torch.empty(out_dim, n_features).uniform_(-bound, bound, generator=generator)


def greedy_k_center(
    X: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    start: int | None = None,
    anchor: ArrayLike | torch.Tensor | None = None,
    block_size: int = 1024,
    overwrite_x: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Greedy k-centre: every center is the row farthest from all centers before it.

    Exact up to rounding: in float64 the centers are those of the plain loop, in float32 rows that
    are equally far to within rounding may come in another order. Among equals the first row wins.

    Parameters
    ----------
    X : tensor or array of shape (N, d), float32 or float64, on any device
    n_select : int
        Number of centers, 1 to N.
    start : int, optional
        First center (the textbook rule). Row 0 when neither `start` nor `anchor` is given.
    anchor : tensor or array of shape (N,), optional
        Euclidean distances to begin with, instead of a first center. They are never discarded: a
        row's distance is the smaller of its anchor and of its distance to any center.
    block_size : int, default=1024
        Rows that a round looks at. Changes the time taken, not the centers.
    overwrite_x : bool, default=False
        Centre `X` in place instead of in a copy, which saves its memory once more.
    progress : callable, optional
        Called once per round with the number of centers so far.

    Returns
    -------
    ndarray of shape (n_select,), int64
        Distinct row numbers in order of selection, also where rows are duplicates.

    Raises
    ------
    ValueError
        If an argument is out of range, both `start` and `anchor` are given, or `X` or `anchor`
        holds NaN or infinite values.

    References
    ----------
    Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.
    """
    return farthest_first(
        X,
        n_select,
        start=start,
        anchor=anchor,
        block_size=block_size,
        overwrite_x=overwrite_x,
        progress=progress,
    ).rows


def farthest_first(
    X: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    start: int | None = None,
    anchor: ArrayLike | torch.Tensor | None = None,
    block_size: int = 1024,
    overwrite_x: bool = False,
    progress: Progress | None = None,
    measure: bool = False,
) -> Traversal:
    """Greedy k-centre as `greedy_k_center`, with all the distances that it comes to know.

    To continue from centers chosen earlier, give their `distance_to_nearest` as `anchor`.

    Parameters
    ----------
    X, start, anchor, block_size, overwrite_x, progress
        As for `greedy_k_center`.
    n_select : int
        Number of centers, 1 to N; with an `anchor` 0 too, which only measures.
    measure : bool, default=False
        Find the distances that are left for all rows, not just the largest.

    Returns
    -------
    Traversal

    Raises
    ------
    ValueError
        As `greedy_k_center`.
    """
    rows = _as_floating(X)
    if anchor is None or n_select != 0:
        check_selection(rows.shape[0], n_select)
    if start is not None and anchor is not None:
        raise ValueError("give either start or anchor, not both")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    min_sq_dist: list[float] = []
    with torch.no_grad(), full_precision(rows):
        cover = _Cover(rows, anchor, overwrite_x)
        if anchor is None:
            cover.add([_checked_start(0 if start is None else start, rows.shape[0])])
            min_sq_dist = [np.inf]
        while len(cover.centers) < n_select:
            found, found_dist = _next_centers(cover, block_size, n_select - len(cover.centers))
            cover.add(found)
            min_sq_dist += found_dist
            if progress is not None:
                progress(len(cover.centers))
        left = _distances(cover.measure()) if measure else np.empty(0)
        radius = float(_distances(cover.largest()))
    # Rows that are taken when nothing is left uncovered have no distance to cover.
    at_selection = np.sqrt(np.maximum(np.asarray(min_sq_dist, dtype=np.float64), 0.0))
    return Traversal(np.asarray(cover.centers, dtype=np.int64), at_selection, radius, left)


def _distances(min_sq_dist: torch.Tensor) -> NDArray[np.float64]:
    return min_sq_dist.double().clamp(min=0).sqrt_().cpu().numpy()


def distance_to_nearest(X: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of every row to the nearest of given centers.

    Parameters
    ----------
    X : tensor of shape (N, d), floating
    centers : tensor of shape (M, d), of the same type, on the same device

    Returns
    -------
    tensor of shape (N,)
        The `anchor` that makes `farthest_first` go on from the centers.
    """
    middle = rounded_centre(centers)
    shifted = centers - middle
    bias = squared_norms(shifted)
    min_sq_dist = X.new_empty(X.shape[0])
    with torch.no_grad(), full_precision(X):
        for block in blocks(X.shape[0], rows_per_product(X.device, _ROWS)):
            points = X[block] - middle
            min_sq_dist[block] = _min_sq_dist_to(points, (points * points).sum(1), shifted, bias)
    return min_sq_dist.sqrt_()


def covering_radius(
    X: ArrayLike | torch.Tensor, selected: ArrayLike, *, block_rows: int = 4096
) -> float:
    """Largest Euclidean distance of any row to its nearest selected row, in float64.

    Parameters
    ----------
    X : tensor or array of shape (N, d)
    selected : array-like of int, shape (n,)
        Row numbers, at least one.
    block_rows : int, default=4096
        Rows measured at a time; bounds the memory.

    Returns
    -------
    float
    """
    rows = _as_floating(X).detach().cpu()
    chosen = torch.as_tensor(np.asarray(selected, dtype=np.int64))
    if chosen.numel() == 0:
        raise ValueError("selected is empty")
    middle = rounded_centre(rows).double()
    centers = rows[chosen].double() - middle
    bias = squared_norms(centers)
    min_sq_dist = torch.empty(rows.shape[0], dtype=torch.float64)
    for block in blocks(rows.shape[0], block_rows):
        points = rows[block].double() - middle
        min_sq_dist[block] = _min_sq_dist_to(points, squared_norms(points), centers, bias)
    min_sq_dist[chosen] = 0.0
    # Differences once more for the row that decides, free of the product's cancellation.
    farthest = rows[int(min_sq_dist.argmax())].double() - middle
    return float(torch.linalg.vector_norm(centers - farthest, dim=1).amin())


class _Cover:
    """All rows, shifted to their mean, each with its squared distance to the nearest center, or a bound.

    `min_sq_dist` accounts for the first `n_seen` centers of each row, and so bounds the squared distance
    to all centers from above.
    """

    def __init__(
        self, rows: torch.Tensor, anchor: ArrayLike | torch.Tensor | None, overwrite: bool
    ) -> None:
        middle = rounded_centre(rows)
        self.points = rows.sub_(middle) if overwrite else rows - middle
        self.norms = squared_norms(self.points)
        self.centers: list[int] = []
        if anchor is None:
            self.min_sq_dist = torch.full_like(self.norms, torch.inf)
        else:
            self.min_sq_dist = _checked_anchor(anchor, self.norms).square()
        self._n_seen = torch.zeros(len(self.norms), dtype=torch.int64, device=self.norms.device)

    def add(self, centers: list[int]) -> None:
        """Take centers in; rows catch up with them when they are asked for."""
        self.centers += centers
        self.min_sq_dist[centers] = _SELECTED
        # Nothing is nearer to a center than it is itself.
        self._n_seen[centers] = len(self.norms)

    def farthest(self, size: int) -> tuple[torch.Tensor, float, int]:
        """Rows with the largest distances in ascending order, and the best of the others.

        Returns the rows, and the squared distance and the number of the best row outside them. Of
        equally far rows the lowest number comes first.
        """
        n_rows = self.min_sq_dist.shape[0]
        if n_rows <= size:
            self.measure()
            return torch.arange(n_rows, device=self.min_sq_dist.device), -torch.inf, n_rows
        threshold = self._settle(size + 1)
        above = (self.min_sq_dist > threshold).nonzero()[:, 0]
        layer = (self.min_sq_dist == threshold).nonzero()[:, 0]
        n_layer = size - above.shape[0]
        rows = torch.cat([above, layer[:n_layer]]).sort().values
        return rows, float(threshold), int(layer[n_layer])

    def largest(self) -> torch.Tensor:
        """Find the largest squared distance."""
        return self._settle(1)

    def measure(self) -> torch.Tensor:
        """Bring the squared distances of all rows up to date."""
        self._catch_up(self.min_sq_dist.amin())
        return self.min_sq_dist

    def _settle(self, n: int) -> torch.Tensor:
        """Bring distances up to date until all as large as the n-th largest are; returns that."""
        n_rows = self.min_sq_dist.shape[0]
        at_least = rows_per_product(self.min_sq_dist.device, _MIN_CANDIDATES)
        n_candidates = min(n_rows, max(n, at_least, int(_CANDIDATE_FRACTION * n_rows)))
        while True:
            candidates = self.min_sq_dist.topk(n_candidates).values
            threshold = candidates[n - 1]
            if not bool((self._behind() & (self.min_sq_dist >= threshold)).any()):
                return threshold
            self._catch_up(candidates[-1])

    def _behind(self) -> torch.Tensor:
        return self._n_seen < len(self.centers)

    def _catch_up(self, floor: torch.Tensor) -> None:
        """Fold missed centers into the rows whose distances are `floor` or more, while they are."""
        step = rows_per_product(self.points.device, _ROWS)
        waiting = (self._behind() & (self.min_sq_dist >= floor)).nonzero()[:, 0]
        # Block by block together: some rows see a few centers once more, which changes nothing.
        n_blocks = self._n_seen[waiting].div(_BLOCK, rounding_mode="floor")
        centers = torch.tensor(self.centers, device=self.min_sq_dist.device)
        active = waiting[:0]
        for number, block in enumerate(blocks(len(centers), _BLOCK)):
            active = torch.cat([active, waiting[n_blocks == number]])
            if not len(active):
                continue
            new = centers[int(self._n_seen[active].min()) : block.stop]
            # index_select fetches rows several times faster than indexing does.
            center_points, bias = self.points.index_select(0, new), self.norms[new]
            for some in active.split(step):
                points = self.points.index_select(0, some)
                nearest = _min_sq_dist_to(points, self.norms[some], center_points, bias)
                self.min_sq_dist[some] = torch.minimum(self.min_sq_dist[some], nearest)
            self._n_seen[active] = block.stop
            active = active[self.min_sq_dist[active] >= floor]


def _next_centers(cover: _Cover, size: int, budget: int) -> tuple[list[int], list[float]]:
    """Next centers, in order, with their squared distances, among the `size` farthest rows.

    Distances only ever shrink. So while the best row inside is at least as far as the best row
    outside was at the beginning of the round, it is the farthest row of all.
    """
    rows, rival_sq_dist, rival_row = cover.farthest(size)
    points, norms = cover.points[rows], cover.norms[rows]
    between = torch.addmm(norms, points, points.T, alpha=-2).add_(norms[:, None]).clamp_(min=0)
    # One small step per center: numpy on the CPU beats any device's launch times.
    distances, min_sq_dist = between.cpu().numpy(), cover.min_sq_dist[rows].cpu().numpy()
    numbers = rows.tolist()
    centers: list[int] = []
    at_selection: list[float] = []
    while len(centers) < budget:
        best = int(min_sq_dist.argmax())
        if min_sq_dist[best] < rival_sq_dist or (
            min_sq_dist[best] == rival_sq_dist and numbers[best] > rival_row
        ):
            break
        centers.append(numbers[best])
        at_selection.append(float(min_sq_dist[best]))
        np.minimum(min_sq_dist, distances[best], out=min_sq_dist)
        min_sq_dist[best] = _SELECTED
    return centers, at_selection


def _min_sq_dist_to(
    points: torch.Tensor, norms: torch.Tensor, centers: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Squared distance of each point to its nearest center; `bias`: the centers' squared norms."""
    step = rows_per_product(points.device, _CENTERS)
    best = points.new_full((points.shape[0],), torch.inf)
    for some in blocks(centers.shape[0], step):
        product = torch.addmm(bias[some], points, centers[some].T, alpha=-2)
        torch.minimum(best, product.amin(1), out=best)
    return best.add_(norms).clamp_(min=0)


def _as_floating(X: ArrayLike | torch.Tensor) -> torch.Tensor:
    rows = torch.as_tensor(X)
    if rows.ndim != 2 or rows.shape[0] == 0:
        raise ValueError(f"expected a non-empty array of shape (N, d), got {tuple(rows.shape)}")
    keeps_its_type = rows.dtype in (torch.float32, torch.float64)
    return rows if keeps_its_type else rows.float()


def check_selection(n_rows: int, n_select: int) -> None:
    """Refuse to select more rows than there are, or none."""
    if not 1 <= n_select <= n_rows:
        raise ValueError(f"n_select must be between 1 and the {n_rows} rows, got {n_select}")


def _checked_start(start: int, n_rows: int) -> int:
    if not 0 <= start < n_rows:
        raise ValueError(f"start must be a row number below {n_rows}, got {start}")
    return start


def _checked_anchor(anchor: ArrayLike | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    values = torch.as_tensor(anchor).to(like)
    if values.shape != like.shape:
        raise ValueError(f"anchor must have shape {tuple(like.shape)}, got {tuple(values.shape)}")
    if not bool(((values >= 0) & values.isfinite()).all()):
        raise ValueError("anchor must hold finite distances of at least 0")
    return values
