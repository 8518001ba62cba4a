"""Products of patches with the vectors of a bank, layer by layer before layers are aligned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from skad._features.layers import PatchLayers

Block = Callable[[int], tuple[torch.Tensor, list[torch.Tensor]]]
"""Maps the number of a block to ``|p|^2`` (m,) and the parts (m, d_i) of its centred vectors."""


class LayerProducts(nn.Module):
    """What :class:`skad._features.layers.PatchLayers` computes, as tensors that can be exported.

    Parameters
    ----------
    layers : list of torch.Tensor of shape (1, C_j, h_j, w_j)
        Examples; the first fixes the grid.
    starts : list of int
        Where the values of each layer begin in a patch.
    bank : torch.nn.Module
        Holds the ``centre`` (d,) of its vectors, and can ``cut`` them where layers begin and end.
    """

    def __init__(self, layers: list[torch.Tensor], starts: list[int], bank: Any) -> None:
        super().__init__()
        self.starts = starts
        stops = [start + layer.shape[1] for layer, start in zip(layers, starts, strict=True)]
        bank.cut([*starts, *stops])
        edges = sorted({*starts, *stops})
        # Of each layer, the numbers of its parts: more than one where two layers add to a value.
        self.parts = [
            slice(edges.index(start), edges.index(stop))
            for start, stop in zip(starts, stops, strict=True)
        ]
        # A value to which two layers add is centred once.
        left = bank.centre.clone()
        for layer, start in zip(layers, starts, strict=True):
            part = left[start : start + layer.shape[1]]
            self.register_buffer(f"centre_{start}", part.clone())
            part.zero_()

    @staticmethod
    def pay(layers: list[torch.Tensor], dim: int) -> bool:
        """Whether products are cheaper this way than with patches of length `dim`."""
        return PatchLayers.pay([layer[0].permute(1, 2, 0) for layer in layers], dim)

    def forward(self, layers: list[torch.Tensor], block: Block) -> Callable[[int], torch.Tensor]:
        """Return what maps the number of a block to ``|p|^2 - 2 q.p``, (B h w, m)."""
        grid = layers[0].shape[2:]
        rows = [
            -2 * (layer.permute(0, 2, 3, 1).flatten(0, 2) - getattr(self, f"centre_{start}"))
            for layer, start in zip(layers, self.starts, strict=True)
        ]

        def compared(number: int) -> torch.Tensor:
            # The coarsest first, which takes the norms along: weights of the alignment add up to 1.
            total, parts = block(number)
            for j in reversed(range(len(layers))):
                columns = torch.cat(parts[self.parts[j]], dim=1).T
                if layers[j].shape[2:] == grid:
                    total = torch.addmm(total, rows[j], columns)
                elif total.ndim == 1:
                    total = _aligned(torch.addmm(total, rows[j], columns), layers[j], grid)
                else:
                    total = total + _aligned(rows[j] @ columns, layers[j], grid)
            return total

        return compared


def _aligned(products: torch.Tensor, layer: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    """Align the products (B h_j w_j, m) of a layer: (B h w, m).

    Runtimes drop the permutations, and then interpolate whole rows: a product per side takes twice the
    time.
    """
    own = products.view(-1, *layer.shape[2:], products.shape[1]).permute(0, 3, 1, 2)
    aligned = F.interpolate(own, size=grid, mode="bilinear", align_corners=False)
    return aligned.permute(0, 2, 3, 1).flatten(0, 2)
