"""Nearest neighbours of all places of an image among all places of some others: SPADE's search.

The vector of a place has the values of several layers, coarse ones brought to the finest grid by their
nearest. So the squared distance of two places is a sum over layers, of which what concerns coarse ones
is the same for all neighbours that share a cell. That part is computed for cells, and bounds the whole
from below. Of each cell, the places in the most promising cells of the gallery are looked at; if a cell
that was not could hold a nearer one, more of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Cells of the gallery that are looked at first, and how many times as many where they do not suffice.
_FIRST, _MORE = 32, 8
# Cells of the image whose bounds are computed together.
_CELLS = 128
# Values of gallery vectors that are gathered at once.
_GATHERED = 2**24


class Gallery:
    """Places of some images.

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
            self._search(query[0], cells, bounds, found)
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

    def _search(
        self, finest: torch.Tensor, cells: torch.Tensor, bounds: torch.Tensor, found: torch.Tensor
    ) -> None:
        """Find the nearest of the places in some cells; write their numbers into `found`."""
        n_places, n = self._children.shape[1], found.shape[1]
        n_cells = min(max(_FIRST, n), bounds.shape[1])
        width = finest.shape[1]
        open_rows = torch.arange(len(cells), device=cells.device)
        while len(open_rows):
            at_once = max(1, _GATHERED // max(1, n_cells * n_places * max(1, width)))
            unsure = []
            for rows in open_rows.split(at_once):
                least, chosen = bounds[rows].topk(n_cells, dim=1, largest=False)
                numbers, squares, own = self._look(finest, cells[rows], least, chosen)
                nearest, places = squares.topk(n, dim=2, largest=False)
                of_places = numbers[:, None].expand(-1, n_places, -1).gather(2, places)
                found[own[own >= 0]] = of_places[own >= 0]
                farthest = nearest[..., -1].masked_fill(own < 0, -torch.inf).amax(dim=1)
                unsure.append(rows[farthest > least[:, -1]])
            open_rows = torch.cat(unsure)
            if n_cells == bounds.shape[1]:
                return
            n_cells = min(_MORE * n_cells, bounds.shape[1])

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
