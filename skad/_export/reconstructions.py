"""Maps of what a network cannot reconstruct, as tensors that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from skad._export.networks import exportable
from skad._export.rendering import Rendering, Seen
from skad._learning import DinomalyNetwork, ReContrastNetwork
from skad._scoring.heatmaps import Heatmap
from skad._torch.invariance import unpinned

# Features, and their reconstructions -> distances of each layer.
Compare = Callable[[Any, Any], tuple[torch.Tensor, ...]]


class ReconstructionGrids(nn.Module):
    """Scores the pixels of a canvas by the distances of features to their reconstructions.

    Parameters
    ----------
    network : ReContrastNetwork or DinomalyNetwork
        With its parameters, in evaluation mode; changed.
    frozen : FeatureNet
        Its encoder.
    distances : callable
    canvas : tuple of two ints
    """

    def __init__(
        self, network: nn.Module, frozen: Any, distances: Compare, canvas: tuple[int, int]
    ) -> None:
        super().__init__()
        self.frozen = exportable(frozen)
        self.network = unpinned(network)
        # The encoder is no part of these networks; here it is one.
        if isinstance(network, ReContrastNetwork):
            network._frozen = (self.frozen,)
        elif isinstance(network, DinomalyNetwork):
            network._encode = self.frozen.tokens
        self.distances = distances
        black = torch.zeros((1, *canvas, 3))
        with torch.inference_mode():
            grids = [layer.shape[1:] for layer in distances(*self.network(black))]
        # Layers meet on the canvas, corner to corner.
        bring = Heatmap(canvas, 0.0, align_corners=True)
        self.brought = nn.ModuleList(Rendering(bring, (grid[0], grid[1])) for grid in grids)

    def forward(self, pixels: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return maps (B, H, W) that are not smoothed; scores follow from them."""
        targets, outputs = self.network(pixels)
        found = self.distances(targets, outputs)
        everything = Seen(None, None, None)
        maps = [bring(one, everything) for bring, one in zip(self.brought, found, strict=True)]
        return sum(maps[1:], start=maps[0]), None
