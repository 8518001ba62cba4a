"""From a grid of patch scores to a smooth map, as one linear operator per axis.

Bilinear up-sampling and Gaussian smoothing are both linear and separable, so the whole way from the
(h, w) grid to the (H, W) canvas is ``rows @ grid @ columns.T`` with two small matrices that are
computed once. NumPy alone: exported detectors render without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from skad._images import Pixels, Size, height_and_width
from skad._scoring.maps import (
    Block,
    ImageScore,
    blocks_of,
    fill_padding,
    n_pixels,
    on_block,
    summarise_parts,
)


class Heatmap(NamedTuple):
    """How a grid of patch scores becomes a map of the canvas."""

    size: Size | Callable[[tuple[int, ...]], Size]
    """Of the canvas, in pixels; or a function of the shape of the grid."""
    sigma: float
    """Standard deviation of the Gaussian, in pixels."""
    align_corners: bool = False
    """Convention of the up-sampling: False in PatchCore, True in ReContrast."""

    def render(self, grid: np.ndarray) -> np.ndarray:
        """Turn an (h, w) grid into a float64 map of the canvas; see :func:`render`."""
        return render(grid, self.size_of(grid.shape), self.sigma, self.align_corners)

    def size_of(self, shape: tuple[int, ...]) -> Size:
        """Size of the canvas on which a grid of a shape lies."""
        return self.size(shape) if callable(self.size) else self.size

    def blocks(self, grid: np.ndarray, wanted: np.ndarray | None = None) -> Iterator[Block]:
        """Render block by block; see :func:`render_blocks`."""
        size = self.size_of(grid.shape)
        return render_blocks(grid, size, self.sigma, self.align_corners, wanted)

    def summary(self, grid: np.ndarray, pixels: Pixels, image_score: ImageScore = "map") -> float:
        """Score an image by its map, where it counts; see :func:`summarise`."""
        parts = (on_block(block, pixels) for block in self.blocks(grid))
        return summarise_parts(parts, n_pixels(pixels), image_score)

    def patches_under(self, pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Tell which patches of a grid weigh on some pixels; see :func:`patches_under`."""
        return patches_under(pixels, shape, self.size_of(shape), self.sigma, self.align_corners)

    def operators(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrices ``(H, h)`` and ``(W, w)`` of a whole map, float64."""
        size = height_and_width(self.size_of(shape))
        down, across = (
            _operator(n, side, float(self.sigma), self.align_corners, 0, side)[1]
            for n, side in zip(shape, size, strict=True)
        )
        return down, across

    def window(self, grid: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Render some rows and columns of the map of a grid without NaN."""
        size = height_and_width(self.size_of(grid.shape))
        return _window(grid, size, float(self.sigma), self.align_corners, rows, columns)


def render(grid: np.ndarray, size: Size, sigma: float, align_corners: bool = False) -> np.ndarray:
    """Up-sample a grid of scores bilinearly and smooth it.

    Parameters
    ----------
    grid : ndarray of shape (h, w)
        Patch scores; NaN in padding and outside a region of interest.
    size : int or tuple of two ints
        Side of a square canvas, or height and width, in pixels.
    sigma : float
        Standard deviation of the Gaussian in pixels (4 in the papers); 0: none. Its radius is
        int(4 sigma + 0.5) and edge pixels repeat outside, as in ``scipy.ndimage.gaussian_filter``.
    align_corners : bool, default=False
        Convention of the up-sampling: False in PatchCore, True in ReContrast.

    Returns
    -------
    ndarray of shape (H, W), float64
    """
    blocks = list(render_blocks(grid, size, sigma, align_corners))
    if len(blocks) == 1:
        return blocks[0].values
    canvas = np.empty(height_and_width(size))
    for block in blocks:
        canvas[block.rows, block.columns] = block.values
    return canvas


def render_blocks(
    grid: np.ndarray,
    size: Size,
    sigma: float,
    align_corners: bool = False,
    wanted: np.ndarray | None = None,
) -> Iterator[Block]:
    """Render a map block by block, row after row of them.

    Parameters
    ----------
    grid, size, sigma, align_corners
        As for :func:`render`.
    wanted : ndarray of bool, default=None
        One value for each block, by rows and columns of them; None: all.

    Yields
    ------
    Block
    """
    values = np.asarray(fill_padding(grid), dtype=np.float64)
    size = height_and_width(size)
    for rows, columns in blocks_of(size, wanted):
        rendered = _window(values, size, float(sigma), align_corners, rows, columns)
        yield Block(rows, columns, rendered)


def _window(
    values: np.ndarray,
    size: tuple[int, int],
    sigma: float,
    align_corners: bool,
    rows: slice,
    columns: slice,
) -> np.ndarray:
    sides = zip(values.shape, size, (rows, columns), strict=True)
    (row, from_rows), (column, from_columns) = (
        _operator(n, side, sigma, align_corners, some.start, some.stop) for n, side, some in sides
    )
    some = values[row : row + from_rows.shape[1], column : column + from_columns.shape[1]]
    return _chained(from_rows, some, from_columns.T)


def _chained(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """Multiply three matrices; by torch where a process works with it.

    Two pools of BLAS threads that wait for each other's cores make the network and the search three
    times slower.
    """
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "from_numpy"):
        return first @ second @ third
    left, middle, right = map(torch.from_numpy, (first, second, third))
    return (left @ middle @ right).numpy()


def patches_under(
    pixels: np.ndarray,
    shape: tuple[int, int],
    size: Size,
    sigma: float,
    align_corners: bool = False,
) -> np.ndarray:
    """Tell which patches weigh on some pixels of a rendered map.

    Parameters
    ----------
    pixels : ndarray of shape (H, W), bool
    shape : tuple of two ints
        Of the grid.
    size, sigma, align_corners
        As for :func:`render`.

    Returns
    -------
    ndarray of shape `shape`, bool
    """
    under = np.zeros(shape, dtype=bool)
    for down, across in blocks_of(height_and_width(size)):
        some = pixels[down, across]
        if some.any():
            (row, rows), (column, columns) = (
                _operator(n, side, sigma, align_corners, part.start, part.stop)
                for n, side, part in zip(shape, pixels.shape, (down, across), strict=True)
            )
            weighs = ((matrix > 0).astype(np.float64) for matrix in (rows.T, some, columns))
            found = _chained(*weighs) > 0
            under[row : row + len(found), column : column + found.shape[1]] |= found
    return under


@lru_cache(maxsize=64)
def _operator(
    n_patches: int, size: int, sigma: float, align_corners: bool, start: int, stop: int
) -> tuple[int, np.ndarray]:
    """Matrix of one axis, (stop - start, k): pixels start to stop, k patches; and the first of them.

    Up-sampling, then smoothing, of each unit vector.
    """
    radius = int(4 * sigma + 0.5)  # as scipy's
    first, last = max(0, start - radius), min(size, stop + radius)
    below, fraction = _bilinear(n_patches, size, align_corners, np.arange(first, last))
    above = np.minimum(below + 1, n_patches - 1)
    lowest, n = int(below.min()), int(above.max() - below.min()) + 1
    if (start, stop) == (0, size):
        lowest, n = 0, n_patches
    up = np.zeros((last - first, n))
    pixels = np.arange(last - first)
    up[pixels, below - lowest] += 1 - fraction
    up[pixels, above - lowest] += fraction
    smooth = gaussian_filter1d(up, sigma, axis=0) if sigma > 0 else up
    return lowest, smooth[start - first : stop - first]


def _bilinear(
    n_patches: int, size: int, align_corners: bool, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tell between which patches pixels lie: the first of two, and the weight of the second."""
    if align_corners:
        positions = np.linspace(0, n_patches - 1, size)[pixels]
    else:
        positions = np.clip((pixels + 0.5) * n_patches / size - 0.5, 0, n_patches - 1)
    below = np.minimum(np.floor(positions).astype(int), max(n_patches - 2, 0))
    return below, positions - below
