"""Which patches a memory bank keeps, and which it takes in when good images are added.

The rules ("greedy", "approximate", "random") choose among patches that are there together, and go on
when others come. Of what came earlier only the bank itself is left then. So that the greedy rule can
still say how well all patches ever seen are covered, it hands a `Cover` on from call to call.

References
----------
Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985: the greedy rule is at most
twice as far from any row as the best choice of equally many centres.

Charikar, Chekuri, Feder, Motwani, "Incremental clustering and dynamic information retrieval", STOC 1997:
the doubling algorithm, at most eight times as far, for a fixed number of centres.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skad._bank._distances import blocks, rows_per_product
from skad._bank.coreset import (
    Progress,
    Traversal,
    check_selection,
    distance_to_nearest,
    farthest_first,
)

METHODS = ("greedy", "approximate", "random")
# Rows whose distances to the start rows are taken together.
_ROWS = 2048


class Cover(NamedTuple):
    """How well a coreset covers all rows ever seen."""

    radius: float
    """No row was ever seen that lies farther than this from the coreset, up to rounding."""
    net_size: int
    """The first vectors of the coreset, which alone cover every row to within twice `net_scale`. 0: all
    of them do; a coreset that grows needs no net."""
    net_scale: float
    """The net's vectors lie at least this far apart, and it is at most four times the best radius."""


class Coreset(NamedTuple):
    """Rows that were chosen."""

    rows: NDArray[np.int64]
    """Distinct row numbers."""
    cover: Cover | None
    """None for rules that bound no distance ("approximate" and "random")."""


def start_coreset(
    X: torch.Tensor,
    n_select: int,
    *,
    method: str = "greedy",
    n_starts: int = 10,
    generator: torch.Generator,
    overwrite_x: bool = False,
    progress: Progress | None = None,
) -> Coreset:
    """Choose the rows to keep.

    Parameters
    ----------
    X : tensor of shape (N, d), floating
        Projected by `projection_matrix` where distances in fewer dimensions suffice. The method
        "random" looks at ``len(X)`` alone.
    n_select : int
        Rows to keep, 1 to N. N keeps all in their order, without any work.
    method : {"greedy", "approximate", "random"}
        "greedy" is the textbook rule from a random start. "approximate" is the rule behind
        PatchCore's published tables: distances begin at the mean distance to `n_starts` random
        rows, which themselves are not selected. "random" draws rows without replacement.
    n_starts : int, default=10
        Random rows of the "approximate" rule.
    generator : torch.Generator
        On the CPU.
    overwrite_x : bool, default=False
        Allow the selection to work in the memory of `X`.
    progress : callable, optional
        Called once per round with the number of rows selected so far.

    Returns
    -------
    Coreset
        Rows in order of selection.

    Raises
    ------
    ValueError
        If `n_select` is not in 1..N, `method` is unknown or `X` holds NaN or infinite values.
    """
    n_rows = X.shape[0]
    check_selection(n_rows, n_select)
    _check_method(method, n_starts)
    if n_select == n_rows:
        cover = Cover(0.0, n_rows, 0.0) if method == "greedy" else None
        return Coreset(np.arange(n_rows, dtype=np.int64), cover)
    if method == "random":
        return Coreset(torch.randperm(n_rows, generator=generator)[:n_select].numpy(), None)
    if method == "approximate":
        anchor = _mean_distance_to_starts(X, n_starts, generator)
        found = farthest_first(
            X, n_select, anchor=anchor, overwrite_x=overwrite_x, progress=progress
        )
        return Coreset(found.rows, None)
    start = int(torch.randint(n_rows, (1,), generator=generator))
    found = farthest_first(X, n_select, start=start, overwrite_x=overwrite_x, progress=progress)
    # All centers and one more row lie at least the radius apart: no choice covers them in half of it.
    return Coreset(found.rows, Cover(found.radius, n_select, found.radius))


def grow_coreset(
    kept: torch.Tensor,
    new: torch.Tensor,
    n_select: int,
    *,
    method: str = "greedy",
    n_starts: int = 10,
    cover: Cover | None = None,
    n_seen: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Coreset:
    """Choose again, when new rows have come and only the coreset is left of those before.

    A coreset that may grow keeps its rows, and the rule goes on among the new ones: with "greedy" the
    radius is that of the rows before or that of the new ones, whichever is larger, and the latter at
    most twice that of the best choice of as many new rows. A coreset of fixed size has to give rows
    up: "greedy" then follows the doubling algorithm and fills up farthest first, which covers every
    row ever seen at most eight times as widely as the best choice of equally many could.

    Parameters
    ----------
    kept : tensor of shape (M, d), floating
        The coreset so far, in its order.
    new : tensor of shape (N, d), of the same type
    n_select : int
        M to M + N.
    method, n_starts, generator, progress
        As for `start_coreset`.
    cover : Cover, optional
        What the call before handed on; needed by "greedy".
    n_seen : int
        Rows seen before, M or more: "random" keeps the coreset a fair draw from all.

    Returns
    -------
    Coreset
        Row numbers in ``concatenate([kept, new])``: below M those that stay, in the order in which they
        must be handed on.

    Raises
    ------
    ValueError
        If `n_select` or `method` is out of range, or `new` holds NaN or infinite values.
    """
    _check_method(method, n_starts)
    if not len(kept) <= n_select <= len(kept) + len(new):
        raise ValueError(
            f"a coreset of {len(kept)} rows and {len(new)} new ones give {len(kept)} to "
            f"{len(kept) + len(new)}, not n_select={n_select}"
        )
    if n_select == len(kept):
        if method == "random":
            return _random_exchange(len(kept), len(new), n_seen, generator)
        together = torch.cat([kept, new])
        if method == "approximate":
            return start_coreset(
                together, n_select, method=method, n_starts=n_starts, generator=generator
            )
        return _exchange(together, n_select, _given(cover), progress)
    n_add = n_select - len(kept)
    if method == "random" or n_add == len(new):
        taken = np.sort(torch.randperm(len(new), generator=generator)[:n_add].numpy())
        found = Traversal(taken, np.empty(0), 0.0, np.empty(0))
    else:
        anchor = distance_to_nearest(new, kept)
        if method == "approximate":
            starts = _mean_distance_to_starts(new, n_starts, generator)
            anchor = torch.minimum(anchor, starts)
        found = farthest_first(new, n_add, anchor=anchor, progress=progress)
    rows = np.concatenate([np.arange(len(kept)), len(kept) + found.rows])
    if method != "greedy":
        return Coreset(rows, None)
    radius = max(_given(cover).radius, found.radius)
    return Coreset(rows, Cover(radius, 0, radius / 2))


def _exchange(
    candidates: torch.Tensor, n_select: int, before: Cover, progress: Progress | None
) -> Coreset:
    """Choose `n_select` of the kept rows, which come first, and of the new ones, behind them.

    The net stays, and rows farther from it than its scale join it. Where there is no room for all of
    them, n_select + 1 rows lie farther apart than the scale, so that it may double, and a sparser net is
    chosen, farthest first among all. What was covered to within twice the old scale is covered to
    within twice the new one: the way on to the new net is no longer than that.
    Behind the net come the rows that are farthest from all others. They serve scores, not the proof.
    """
    net, others = candidates[: before.net_size], candidates[before.net_size :]
    if before.net_size:
        anchor = distance_to_nearest(others, net)
        found = farthest_first(
            others, n_select - len(net), anchor=anchor, progress=progress, measure=True
        )
        if found.radius <= before.net_scale:
            rows = np.concatenate([np.arange(len(net)), len(net) + found.rows])
            left = np.concatenate([np.zeros(len(net)), found.left])
            joined = len(net) + int((found.center_dist > before.net_scale).sum())
            radius = _radius(left, n_select, before, before.net_scale)
            return Coreset(rows, Cover(radius, joined, before.net_scale))
    found = farthest_first(candidates, n_select, start=0, progress=progress, measure=True)
    scale = max(2 * before.net_scale, found.radius)
    radius = _radius(found.left, n_select, before, scale)
    return Coreset(found.rows, Cover(radius, int((found.center_dist > scale).sum()), scale))


def _radius(left: NDArray[np.float64], n_kept: int, before: Cover, scale: float) -> float:
    """Bound the radius over all rows ever seen; `left`: of the kept rows, then of the new ones."""
    radius = max(before.radius, float(left[n_kept:].max(initial=0.0)))
    given_up = float(left[:n_kept].max())
    # Rows around one that was given up are farther from the coreset by its own distance at most.
    return min(max(radius, before.radius + given_up), 2 * scale) if given_up > 0 else radius


def _random_exchange(n_kept: int, n_new: int, n_seen: int, generator: torch.Generator) -> Coreset:
    """Draw from all rows ever seen, of which the kept ones stand for those that are gone."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    n_taken = int(np.random.default_rng(seed).hypergeometric(n_new, n_seen, n_kept))
    stay = torch.randperm(n_kept, generator=generator)[: n_kept - n_taken].numpy()
    take = torch.randperm(n_new, generator=generator)[:n_taken].numpy()
    return Coreset(np.concatenate([np.sort(stay), n_kept + np.sort(take)]), None)


def _given(cover: Cover | None) -> Cover:
    if cover is None:
        raise ValueError('the "greedy" rule needs the cover that the call before has handed on')
    return cover


def _mean_distance_to_starts(
    X: torch.Tensor, n_starts: int, generator: torch.Generator
) -> torch.Tensor:
    """Mean Euclidean distance of each row to at most `n_starts` random ones, shape (N,)."""
    starts = torch.randperm(X.shape[0], generator=generator)[:n_starts].tolist()
    total = X.new_zeros(X.shape[0])
    with torch.no_grad():
        for block in blocks(X.shape[0], rows_per_product(X.device, _ROWS)):
            for start in starts:
                total[block] += torch.linalg.vector_norm(X[block] - X[start], dim=1)
    return total.div_(len(starts))


def _check_method(method: str, n_starts: int) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if n_starts < 1:
        raise ValueError(f"n_starts must be at least 1, got {n_starts}")
