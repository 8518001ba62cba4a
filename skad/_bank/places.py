"""Nearest neighbours of all places of an image among all places of some others, as SPADE writes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Distances that are held at once.
_HELD = 2**24


class Gallery:
    """Places of some images, each with one vector of all layers; every place is compared with all.

    `correspondences` finds the same in less time.

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
        self._parents = parents
        self._vectors = _joined(levels, parents)[counting]

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
        portions = _joined(query, self._parents).split(max(1, _HELD // len(self._vectors)))
        return torch.cat([self._of(some, n_neighbors) for some in portions])

    def _of(self, vectors: torch.Tensor, n_neighbors: int) -> torch.Tensor:
        compared = self._vectors.square().sum(dim=1) - 2 * vectors @ self._vectors.T
        nearest = compared.topk(n_neighbors, dim=1, largest=False).indices
        away = self._vectors[nearest].double() - vectors[:, None].double()
        return away.square().sum(dim=2).sqrt().sort(dim=1).values


def _joined(levels: Sequence[torch.Tensor], parents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Bring all layers to the finest grid by their nearest values: (..., P_1, C_1 + C_2 + ...)."""
    joined = levels[-1]
    for layer, own in zip(reversed(levels[:-1]), reversed(parents), strict=True):
        joined = torch.cat([layer, joined[..., own, :]], dim=-1)
    return joined
