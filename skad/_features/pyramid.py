"""Some channels of several layers, each layer at its own resolution, and how positions lie in others.

A coarse layer that is brought to the grid of a finer one by its nearest values says the same of many
positions. What is computed of it once serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch


class Pyramid:
    """Some channels of several layers, the finest first.

    Parameters
    ----------
    shapes : sequence of (h_j, w_j, C_j)
        Of the feature maps; the first fixes the grid.
    channels : ndarray of int, default=None
        Numbers of the channels that are taken, ascending, counted through all layers. None: all.

    Attributes
    ----------
    grid : tuple of two ints
        Rows and columns (h, w) of the first layer.
    sizes : list of (P_j, c_j)
        Positions of each layer, and channels that are taken of it.
    lengths : list of int
        Channels that are taken of each layer and of all deeper ones together.
    n_values : int
        Numbers that are taken of an image.
    parents : list of ndarray of shape (P_j,), int64
        For every layer but the last: in which position of the next each of its own lies.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, int, int]], channels: np.ndarray | None = None
    ) -> None:
        ends = np.cumsum([shape[2] for shape in shapes])
        if channels is None:
            channels = np.arange(ends[-1])
        self.grid = (shapes[0][0], shapes[0][1])
        bounds = np.searchsorted(channels, [0, *ends])
        self._chosen = [
            torch.from_numpy(channels[first:last] - (end - shape[2]))
            for (first, last), end, shape in zip(pairwise(bounds), ends, shapes, strict=True)
        ]
        self.sizes = [
            (shape[0] * shape[1], len(chosen))
            for shape, chosen in zip(shapes, self._chosen, strict=True)
        ]
        # From the coarsest on.
        self.lengths = np.cumsum([n for _, n in reversed(self.sizes)])[::-1].tolist()
        self.n_values = sum(positions * n for positions, n in self.sizes)
        grids = [shape[:2] for shape in shapes]
        self.parents = [_parents(fine, coarse) for fine, coarse in pairwise(grids)]

    def take(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        """Take the channels.

        Parameters
        ----------
        layers : sequence of torch.Tensor of shape (B, h_j, w_j, C_j)

        Returns
        -------
        torch.Tensor of shape (B, n_values)
        """
        taken = [
            layer.index_select(3, chosen.to(layer.device)).flatten(1)
            for layer, chosen in zip(layers, self._chosen, strict=True)
        ]
        return torch.cat(taken, dim=1)

    def split(self, taken: torch.Tensor) -> list[torch.Tensor]:
        """Take apart what `take` has put together: (B, P_j, c_j) of each layer."""
        parts = taken.split([positions * n for positions, n in self.sizes], dim=1)
        return [part.unflatten(1, size) for part, size in zip(parts, self.sizes, strict=True)]


def _parents(fine: tuple[int, ...], coarse: tuple[int, ...]) -> np.ndarray:
    """Tell in which cell of a coarse grid each of a fine one begins: its nearest, as torch counts."""
    rows, columns = (
        np.arange(n) * m // n for n, m in zip(fine, coarse, strict=True)
    )  # in integers, where torch rounds a fraction
    return (rows[:, None] * coarse[1] + columns).ravel()
