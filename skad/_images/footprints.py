"""What counts of a canvas, and of a grid of patches: not padding, nor what is of no interest."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from .placement import Placement
from .roi import Mask
from .tiling import Tiling

# Of a canvas pixel, or a patch, that must lie in a region of interest.
_SHARE = 0.5

Pixels = tuple[int, int, int, int] | np.ndarray
"""Of a canvas, those that count: top, bottom, left, right, half-open; or a mask of its shape, bool."""


class Frame(NamedTuple):
    """What is known of an image beside its pixels."""

    shape: tuple[int, int]
    """Height and width."""
    mask: Mask | None = None
    """Its region of interest; None: all of it."""


class Footprint(NamedTuple):
    """Where on the canvas an image lies."""

    mask: np.ndarray
    """(h, w) bool: the patches that count: not those in padding, nor outside a region of interest."""
    pixels: Pixels
    """The pixels that count."""


class Places(Protocol):
    """What is asked of a geometry."""

    def __hash__(self) -> int: ...

    @property
    def tiling(self) -> Tiling | None:
        """How each image is cut into tiles of its own number, if so."""

    def canvas_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the canvas of an image."""

    def placement(self, height: int, width: int) -> tuple[Placement, Placement]:
        """Place the rows, and the columns, of an image on its canvas."""

    def valid_cells(
        self, height: int, width: int, grid_height: int, grid_width: int
    ) -> tuple[int, int, int, int]:
        """Tell which cells of a patch grid see the image: top, bottom, left, right."""

    def pixels(self, shape: tuple[int, int], mask: Mask | None = None) -> Pixels:
        """Tell which pixels of the canvas count."""


@lru_cache(maxsize=8)
def footprint(
    geometry: Places, shape: tuple[int, int], region: Mask | None, grid: tuple[int, int]
) -> Footprint:
    if geometry.tiling is not None:
        grid = geometry.tiling.of(shape).grid(*grid)
    mask = np.zeros(grid, dtype=bool)
    r0, r1, c0, c1 = geometry.valid_cells(*shape, *grid)
    mask[r0:r1, c0:c1] = True
    if region is not None:
        rows, columns = (
            _overlaps(n, n_pixels)
            for n, n_pixels in zip(grid, geometry.canvas_of(*shape), strict=True)
        )
        shares = rows @ _shares(geometry, region) @ columns.T
        # A sliver at the rim may lie in a cell with its centre in padding: the next one stands for it.
        row, column = np.unravel_index(shares.argmax(), grid)
        fullest = np.clip(row, r0, r1 - 1), np.clip(column, c0, c1 - 1)
        mask &= shares >= _SHARE
        mask[fullest] = True
    return Footprint(mask, geometry.pixels(shape, region))


@lru_cache(maxsize=8)
def pixels_in(geometry: Places, region: Mask) -> np.ndarray:
    """Tell which pixels of the canvas lie in a region."""
    shares = _shares(geometry, region)
    inside = shares >= min(_SHARE, shares.max())  # of a sliver, what lies inside most
    inside.flags.writeable = False
    return inside


@lru_cache(maxsize=8)
def _shares(geometry: Places, region: Mask) -> np.ndarray:
    """Tell how much of each pixel of the canvas lies in a region, in 0..1; 0 in padding."""
    rows, columns = geometry.placement(*region.inside.shape)
    picture = Image.fromarray(region.inside.astype(np.uint8) * np.uint8(255))
    size = (columns.resized, rows.resized)
    resized = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    shown = resized[rows.visible(), columns.visible()]
    shares = np.pad(shown, (rows.padding(), columns.padding())).astype(np.float32) / 255
    if shares.max() == 0:
        raise ValueError(
            "nothing of the region of interest lies in the crop that the network sees: use "
            'geometry="squash" or "pad".'
        )
    return shares


def _overlaps(n_cells: int, side: int) -> np.ndarray:
    """(n_cells, side) shares of each cell that lie in each pixel."""
    edges = np.arange(n_cells + 1) * side / n_cells
    pixels = np.arange(side)
    last = np.minimum(edges[1:, None], pixels + 1)
    return np.clip(last - np.maximum(edges[:-1, None], pixels), 0, None) * n_cells / side
