"""Maps of what a network cannot reconstruct, as tensors that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from skad._export.networks import exportable
from skad._export.rendering import Rendering, Seen
from skad._export.tiles import Tiles
from skad._learning import DinomalyNetwork, ReContrastNetwork
from skad._scoring.heatmaps import Heatmap
from skad._torch.invariance import unpinned

# Features, and their reconstructions -> distances of each layer.
Compare = Callable[[Any, Any], tuple[torch.Tensor, ...]]


class ReconstructionLayers(nn.Module):
    """Measures distances of features to their reconstructions, layer by layer.

    Parameters
    ----------
    network : ReContrastNetwork or DinomalyNetwork
        With its parameters, in evaluation mode; changed.
    frozen : FeatureNet
        Its encoder.
    distances : callable
    tiles : Tiles or None
        What the network sees at once; None: the canvas.
    """

    def __init__(
        self, network: nn.Module, frozen: Any, distances: Compare, tiles: Tiles | None
    ) -> None:
        super().__init__()
        self.frozen = exportable(frozen)
        self.network = unpinned(network)
        # The encoder is no part of these networks; here it is one.
        if isinstance(network, ReContrastNetwork):
            network._frozen = (self.frozen,)
        elif isinstance(network, DinomalyNetwork):
            network._encode = self.frozen.tokens
        self.distances, self.tiles = distances, tiles

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the distances (B, h_j, w_j) of each layer."""
        if self.tiles is None:
            return list(self.distances(*self.network(pixels)))
        found = self.distances(*self.network(self.tiles.cut(pixels)))
        return [self.tiles.join(one[:, None])[:, 0] for one in found]


class ReconstructionGrids(nn.Module):
    """Scores a canvas by the distances of features to their reconstructions.

    Parameters
    ----------
    layers : ReconstructionLayers
    grid : tuple of two ints
        On which layers meet, corner to corner: the canvas; of tiles, the positions of the first layer.
    canvas : tuple of two ints
    """

    def __init__(
        self, layers: ReconstructionLayers, grid: tuple[int, int], canvas: tuple[int, int]
    ) -> None:
        super().__init__()
        self.layers = layers
        with torch.inference_mode():
            examples = layers(torch.zeros((1, *canvas, 3)))
        bring = Heatmap(grid, 0.0, align_corners=True)
        self.brought = nn.ModuleList(
            Rendering(bring, (layer.shape[1], layer.shape[2])) for layer in examples
        )

    def forward(self, pixels: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return grids (B, h, w), not smoothed; scores follow from their maps."""
        everything = Seen(None, None, None)
        pairs = zip(self.brought, self.layers(pixels), strict=True)
        maps = [bring(one, everything) for bring, one in pairs]
        return sum(maps[1:], start=maps[0]), None
