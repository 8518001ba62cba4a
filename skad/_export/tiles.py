"""Canvases that a network sees tile by tile, as tensors that can be exported."""

from __future__ import annotations

import torch
from torch import nn

from skad._images import Tiling


class Tiles(nn.Module):
    """Cuts canvases into tiles, and puts what a network makes of them together.

    Parameters
    ----------
    tiling : Tiling
        Of so many rows and columns.
    """

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tiling = tiling

    def cut(self, canvases: torch.Tensor) -> torch.Tensor:
        """Cut (B, H, W, 3) into (B n, h, w, 3): the n tiles of the first, then those of the next."""
        tiles = [canvases[:, tile.rows, tile.columns] for tile in self.tiling]
        return torch.stack(tiles, dim=1).flatten(0, 1)

    def join(self, tiles: torch.Tensor) -> torch.Tensor:
        """Put grids over tiles, (B n, C, h, w), together to grids over canvases, (B, C, H, W)."""
        n_rows, n_columns = self.tiling.counts
        cell = self.tiling.cells(*tiles.shape[2:])
        every = tiles.unflatten(0, (-1, len(self.tiling)))
        cores = []
        for number, tile in enumerate(self.tiling):
            rows, columns = tile.inner_cells(*cell)
            cores.append(every[:, number, :, rows, columns])
        lines = [
            torch.cat(cores[row * n_columns : (row + 1) * n_columns], dim=3)
            for row in range(n_rows)
        ]
        return torch.cat(lines, dim=2)
