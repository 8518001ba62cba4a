"""Nearest neighbours of all places of an image among all places of some others: SPADE's search.

The vector of a place has the values of several layers, coarse ones brought to the finest grid by their
nearest. So the squared distance of two places is a sum over layers, of which what concerns coarse ones
is the same for all neighbours that share a cell. That part is computed for cells, and bounds the whole
from below. Of each cell, the places in the most promising cells of the gallery are looked at; where a
cell that was not could hold a nearer one, all of them.

This file is for speed alone: without it, `places` does the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Cells of the gallery that are looked at first.
_FIRST = 64
# Cells of the image whose bounds are computed together.
_CELLS = 128
# Values of gallery vectors, or distances, that are held at once.
_HELD = 2**24


class FastGallery:
    """Places of some images, as :class:`skad._bank.Gallery`, most of which are never looked at.

    Parameters
    ----------
    levels : sequence of torch.Tensor of shape (K, P_j, C_j)
        Values of each layer, the finest first.
    counting : torch.Tensor of shape (K, P_1), bool
        Places that may be found.
    parents : sequence of torch.Tensor of int64
        For every layer but the last: in which position of the next each of its own lies.
    """

    def __init__(
        self,
        levels: Sequence[torch.Tensor],
        counting: torch.Tensor,
        parents: Sequence[torch.Tensor],
    ) -> None:
        levels, parents = list(levels), list(parents)
        if len(levels) == 1:  # cells of one place each, of which nothing is known
            levels.append(levels[0][..., :0])
            parents.append(torch.arange(levels[0].shape[1], device=levels[0].device))
        self.n_images, n_cells = levels[1].shape[:2]
        self._values = [layer.flatten(0, 1) for layer in levels]
        self._parents = parents
        # In all images.
        self._all_parents = [
            torch.cat([own + i * layer.shape[1] for i in range(self.n_images)])
            for own, layer in zip(parents, levels[1:], strict=True)
        ]
        self._children = _children(parents[0], n_cells)
        self._counting = counting.flatten()
        cells = torch.zeros(self.n_images * n_cells, dtype=torch.bool, device=counting.device)
        cells[self._all_parents[0][self._counting]] = True
        self._empty = ~cells

    def distances(self, query: Sequence[torch.Tensor], n_neighbors: int) -> torch.Tensor:
        """Distances of all places of an image to their nearest.

        Parameters
        ----------
        query : sequence of torch.Tensor of shape (P_j, C_j)
        n_neighbors : int
            At most as many as there are places that count.

        Returns
        -------
        torch.Tensor of shape (P_1, n_neighbors), float64
            Ascending. The nearest are found by float32 sums, and their distances computed anew.
        """
        levels = list(query)
        if len(levels) == 1:
            levels.append(levels[0][:, :0])
        found = self._found(levels, n_neighbors)
        return self._exact(levels, found).sort(dim=1).values

    def _found(self, query: list[torch.Tensor], n_neighbors: int) -> torch.Tensor:
        """Find the numbers of the nearest places of the gallery, (P_1, n_neighbors)."""
        found = torch.zeros((len(query[0]), n_neighbors), dtype=torch.int64, device=query[0].device)
        above = self._above(query)
        for cells in torch.arange(len(query[1]), device=found.device).split(_CELLS):
            bounds = _squared(query[1][cells], self._values[1])
            if above is not None:
                bounds += above[self._parents[1][cells]][:, self._all_parents[1]]
            bounds.masked_fill_(self._empty, torch.inf)
            unsure = self._look_at_promising(query[0], cells, bounds, found)
            self._look_at_all(query[0], cells[unsure], bounds[unsure], found)
        return found

    def _above(self, query: list[torch.Tensor]) -> torch.Tensor | None:
        """Squared distances of the cells of the third layer and coarser ones, added up."""
        total = None
        for j in reversed(range(2, len(query))):
            own = _squared(query[j], self._values[j])
            if total is not None:
                own += total[self._parents[j]][:, self._all_parents[j]]
            total = own
        return total

    def _look_at_promising(
        self, finest: torch.Tensor, cells: torch.Tensor, bounds: torch.Tensor, found: torch.Tensor
    ) -> torch.Tensor:
        """Find the nearest in the most promising cells; tell for which cells others may be nearer."""
        n_cells = min(max(_FIRST, found.shape[1]), bounds.shape[1])
        width = n_cells * self._children.shape[1] * max(1, finest.shape[1])
        unsure = []
        for rows in torch.arange(len(cells), device=cells.device).split(max(1, _HELD // width)):
            least, chosen = bounds[rows].topk(n_cells, dim=1, largest=False)
            numbers, squares, own = self._look(finest, cells[rows], least, chosen)
            nearest, places = _nearest(squares, found.shape[1])
            of_places = numbers[:, None].expand(-1, own.shape[1], -1).gather(2, places)
            found[own[own >= 0]] = of_places[own >= 0]
            farthest = nearest[..., -1].masked_fill(own < 0, -torch.inf).amax(dim=1)
            unsure.append(rows[farthest > least[:, -1]])
        if n_cells == bounds.shape[1]:
            return cells.new_empty(0)
        return torch.cat(unsure)

    def _look_at_all(
        self, finest: torch.Tensor, cells: torch.Tensor, bounds: torch.Tensor, found: torch.Tensor
    ) -> None:
        """Find the nearest of all places of the gallery."""
        n_places, n_all = self._children.shape[1], len(self._counting)
        for rows in torch.arange(len(cells), device=cells.device).split(
            max(1, _HELD // (n_places * n_all))
        ):
            own = self._children[cells[rows]]
            mine = finest[own.clamp_min(0)].flatten(0, 1)
            squares = _squared(mine, self._values[0]).unflatten(0, own.shape)
            squares += bounds[rows][:, self._all_parents[0]][:, None]
            squares.masked_fill_(~self._counting, torch.inf)
            places = _nearest(squares, found.shape[1])[1]
            found[own[own >= 0]] = places[own >= 0]

    def _look(
        self, finest: torch.Tensor, cells: torch.Tensor, least: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compare the places in R cells with those in m chosen cells of the gallery for each.

        Returns numbers of the latter (R, m * c), squared distances (R, c, m * c), and numbers of the
        former (R, c), -1 where a cell has fewer than c.
        """
        own = self._children[cells]
        image, cell = chosen // len(self._children), chosen % len(self._children)
        children = self._children[cell]
        numbers = (image[..., None] * len(finest) + children).flatten(1)
        absent = (children < 0).flatten(1)
        numbers = numbers.masked_fill(absent, 0)
        theirs, mine = self._values[0][numbers], finest[own.clamp_min(0)]
        squares = torch.baddbmm(
            theirs.square().sum(dim=2)[:, None] + mine.square().sum(dim=2)[..., None],
            mine,
            theirs.mT,
            alpha=-2,
        )
        squares += least.repeat_interleave(self._children.shape[1], dim=1)[:, None]
        useless = absent | ~self._counting[numbers]
        return numbers, squares.masked_fill_(useless[:, None], torch.inf), own

    def _exact(self, query: list[torch.Tensor], found: torch.Tensor) -> torch.Tensor:
        """Compute distances to the places that were found, in float64."""
        here = torch.arange(len(found), device=found.device)
        there, total = found, torch.zeros(found.shape, dtype=torch.float64, device=found.device)
        for j, values in enumerate(self._values):
            difference = query[j][here][:, None].double() - values[there].double()
            total += difference.square().sum(dim=2)
            if j < len(self._parents):
                here, there = self._parents[j][here], self._all_parents[j][there]
        return total.sqrt()


def _nearest(squares: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the n smallest of the last axis, and where they are."""
    if n == 1:  # several times as fast
        return squares.min(dim=-1, keepdim=True)
    return squares.topk(n, dim=-1, largest=False)


def _children(parents: torch.Tensor, n_cells: int) -> torch.Tensor:
    """List the places in each cell, (n_cells, c); -1 where there are fewer than c."""
    counts = torch.bincount(parents, minlength=n_cells)
    order = torch.argsort(parents, stable=True)
    starts = counts.cumsum(0) - counts
    table = parents.new_full((n_cells, int(counts.max())), -1)
    within = torch.arange(len(parents), device=parents.device) - starts[parents[order]]
    table[parents[order], within] = order
    return table


def _squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared distances of the rows of two matrices, by their products."""
    squares = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return squares.addmm_(a, b.T, alpha=-2).clamp_min_(0)
