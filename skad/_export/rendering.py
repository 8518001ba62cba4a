"""From grids of patch scores to maps and scores of images, as tensors that can be exported.

What `_scoring.heatmaps` and `_scoring.plain` compute image by image in NumPy, for a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from skad._images import Footprint
from skad._scoring.heatmaps import Heatmap
from skad._scoring.maps import ImageScore, fill_padding


class Seen(NamedTuple):
    """What counts of each image of a batch; None: all."""

    cells: torch.Tensor | None
    """(B or 1, h * w) bool, patches."""
    nearest: torch.Tensor | None
    """(B or 1, h * w) int64, the patch whose score each patch takes."""
    pixels: torch.Tensor | None
    """(B or 1, H * W) bool, of the canvas."""


class Everything(nn.Module):
    """All of a canvas counts."""

    def forward(self, content: torch.Tensor | None) -> Seen:
        return Seen(None, None, None)


class RegionSeen(nn.Module):
    """What counts is the same of all images: those of a camera with a region of interest.

    Parameters
    ----------
    footprint : Footprint
    canvas : tuple of two ints
    """

    def __init__(self, footprint: Footprint, canvas: tuple[int, int]) -> None:
        super().__init__()
        mask = footprint.mask
        numbers = np.where(mask, np.arange(mask.size).reshape(mask.shape), np.nan)
        pixels = np.zeros(canvas, dtype=bool)
        if isinstance(footprint.pixels, np.ndarray):
            pixels |= footprint.pixels
        else:
            top, bottom, left, right = footprint.pixels
            pixels[top:bottom, left:right] = True
        self.register_buffer("cells", torch.from_numpy(mask.reshape(1, -1).copy()))
        nearest = fill_padding(numbers).astype(np.int64).reshape(1, -1)
        self.register_buffer("nearest", torch.from_numpy(nearest))
        self.register_buffer("pixels", torch.from_numpy(pixels.reshape(1, -1)))

    def forward(self, content: torch.Tensor | None) -> Seen:
        return Seen(self.cells, self.nearest, self.pixels)  # type: ignore[arg-type]


class ContentSeen(nn.Module):
    """What counts is where each image lies on its canvas, beside padding.

    Parameters
    ----------
    grid, canvas : tuple of two ints
    """

    def __init__(self, grid: tuple[int, int], canvas: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.canvas = grid, canvas

    def forward(self, content: torch.Tensor | None) -> Seen:
        """Tell what counts of images that lie at `content`: (B, 4) top, bottom, left, right."""
        assert content is not None
        (rows, near_rows, down), (columns, near_columns, across) = (
            _along(content[:, 2 * i], content[:, 2 * i + 1], self.grid[i], self.canvas[i])
            for i in range(2)
        )
        cells = (rows[:, :, None] & columns[:, None, :]).flatten(1)
        nearest = (near_rows[:, :, None] * self.grid[1] + near_columns[:, None, :]).flatten(1)
        pixels = (down[:, :, None] & across[:, None, :]).flatten(1)
        return Seen(cells, nearest, pixels)


def _along(
    start: torch.Tensor, stop: torch.Tensor, n_cells: int, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tell which cells and pixels of one side see an image; `skad._images.placement` says how."""
    start, stop = start[:, None], stop[:, None]
    numbers, at = torch.arange(n_cells)[None], torch.arange(side)[None]
    centres = (2 * numbers + 1) * side
    within = (centres >= 2 * n_cells * start) & (centres <= 2 * n_cells * stop)
    middle = torch.div((start + stop) * n_cells, 2 * side, rounding_mode="floor")
    # A sliver of an image between two centres: the cell that holds its middle.
    is_sliver = within.to(torch.int64).sum(dim=1, keepdim=True) == 0
    within = within | (is_sliver & (numbers == middle))
    first = torch.where(within, numbers, n_cells).amin(dim=1, keepdim=True)
    last = torch.where(within, numbers, -1).amax(dim=1, keepdim=True)
    nearest = torch.minimum(torch.maximum(numbers, first), last)
    return within, nearest, (at >= start) & (at < stop)


class Rendering(nn.Module):
    """Makes maps of grids, and sums them up.

    Parameters
    ----------
    heatmap : Heatmap
    grid : tuple of two ints
    """

    def __init__(self, heatmap: Heatmap, grid: tuple[int, int]) -> None:
        super().__init__()
        down, across = heatmap.operators(grid)
        self.register_buffer("down", torch.from_numpy(down).float())
        self.register_buffer("across", torch.from_numpy(across.T).float().contiguous())

    def forward(self, grids: torch.Tensor, seen: Seen) -> torch.Tensor:
        """Turn grids (B, h, w) into maps (B, H, W)."""
        if seen.nearest is not None:
            flat = grids.flatten(1)
            flat = torch.gather(flat, 1, seen.nearest.expand(flat.shape[0], -1))
            grids = flat.view(grids.shape)
        return self.down @ (grids @ self.across)  # type: ignore[operator]


def summed_up(maps: torch.Tensor, seen: Seen, image_score: ImageScore) -> torch.Tensor:
    """Turn maps (B, H, W) into scores (B,), as :func:`skad._scoring.maps.summarise` does."""
    flat = maps.flatten(1)
    if seen.pixels is not None:
        flat = torch.where(seen.pixels, flat, -torch.inf)
    if isinstance(image_score, str):
        return flat.amax(dim=1)
    n_pixels = flat.shape[1]
    if seen.pixels is None:
        return flat.topk(max(1, int(image_score * n_pixels)), dim=1).values.mean(dim=1)
    n_seen = seen.pixels.to(torch.int64).sum(dim=1, keepdim=True)
    n_top = (n_seen.double() * float(image_score)).to(torch.int64).clamp_min(1)
    ranked = flat.topk(n_pixels, dim=1).values
    is_top = torch.arange(n_pixels)[None] < n_top
    return torch.where(is_top, ranked, 0.0).sum(dim=1) / n_top[:, 0]
