"""From a grid of patch scores to a smooth map, as one linear operator per axis.

Bilinear up-sampling and Gaussian smoothing are both linear and separable, so the whole way from the
(h, w) grid to the (H, W) canvas is ``rows @ grid @ columns.T`` with two small matrices that are
computed once.

A large canvas is rendered block by block, always by the same blocks, so that all who look at a pixel see
the same bits; one block is all there is of most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from skad._images import Pixels, Size, height_and_width

ImageScore = str | float
"""What of a map, or of its patches, is the score of an image."""
# Side of a block, in pixels.
BLOCK = 1024


class Block(NamedTuple):
    """A piece of a map."""

    rows: slice
    """Of the canvas."""
    columns: slice
    values: np.ndarray
    """(h, w) float64."""


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

    def window(self, grid: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Render some rows and columns of the map of a grid without NaN."""
        values, size = torch.from_numpy(grid), height_and_width(self.size_of(grid.shape))
        return _window(values, size, float(self.sigma), self.align_corners, rows, columns)


def on_image(canvas: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Cut out the pixels of a canvas that count: a rectangle, or all of a mask one after the other."""
    return canvas[_index(pixels)]


def put_on_image(canvas: np.ndarray, pixels: Pixels, values: np.ndarray) -> np.ndarray:
    """Write values as `on_image` gives them into a canvas."""
    canvas[_index(pixels)] = values
    return canvas


def without_padding(canvas: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Keep the pixels of a canvas that count; NaN elsewhere."""
    return put_on_image(np.full(canvas.shape, np.nan), pixels, on_image(canvas, pixels))


def _index(pixels: Pixels) -> Any:
    if isinstance(pixels, np.ndarray):
        return pixels
    top, bottom, left, right = pixels
    return slice(top, bottom), slice(left, right)


def on_block(block: Block, pixels: Pixels) -> np.ndarray:
    """Cut the pixels that count out of a block: a rectangle, perhaps empty, or those of a mask."""
    return block.values[counting(block, pixels)]


def counting(block: Block, pixels: Pixels) -> Any:
    """Index of the pixels of a block that count."""
    if isinstance(pixels, np.ndarray):
        return pixels[block.rows, block.columns]
    top, bottom, left, right = pixels
    return _within(block.rows, top, bottom), _within(block.columns, left, right)


def n_pixels(pixels: Pixels) -> int:
    """Count the pixels of a canvas that count."""
    if isinstance(pixels, np.ndarray):
        return int(pixels.sum())
    top, bottom, left, right = pixels
    return (bottom - top) * (right - left)


def _within(of_block: slice, first: int, last: int) -> slice:
    """Of a block's rows, or columns, those from first to last of the canvas."""
    start, stop = max(of_block.start, first), min(of_block.stop, last)
    return slice(start - of_block.start, max(start, stop) - of_block.start)


def summarise_parts(parts: Iterator[np.ndarray], n_values: int, image_score: ImageScore) -> float:
    """Turn the parts of a map into the score of the image, as :func:`summarise` does the whole.

    Parameters
    ----------
    parts : iterator of ndarray
        Pixels that count, each in one part.
    n_values : int
        Their number in all.
    image_score : "map" or float
    """
    n_top = 1 if isinstance(image_score, str) else max(1, int(image_score * n_values))
    highest = np.empty(0)
    for part in parts:
        highest = np.concatenate([highest, part.ravel()]) if highest.size else part.ravel()
        if highest.size > n_top:
            highest = np.partition(highest, highest.size - n_top)[highest.size - n_top :]
    return float(highest.mean(dtype=np.float64)) if n_top > 1 else float(highest.max())


def summarise(heatmap: np.ndarray, image_score: ImageScore) -> float:
    """Turn the map of an image into its score.

    Parameters
    ----------
    heatmap : ndarray of any shape
        Its pixels, without padding.
    image_score : "map" or float
        "map": the highest value. A float in (0, 1]: the mean of this fraction of pixels, the most
        anomalous; one pixel at least.

    Returns
    -------
    float
    """
    return summarise_parts(iter([heatmap]), heatmap.size, image_score)


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
    values = torch.from_numpy(np.asarray(fill_padding(grid), dtype=np.float64))
    size = height_and_width(size)
    for rows, columns in blocks_of(size, wanted):
        rendered = _window(values, size, float(sigma), align_corners, rows, columns)
        yield Block(rows, columns, rendered)


def blocks_of(
    size: tuple[int, int], wanted: np.ndarray | None = None
) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of the blocks of a canvas; of all, or of those wanted by row and column."""
    for rows, columns in product(*map(_pieces, size)):
        if wanted is None or wanted[rows.start // BLOCK, columns.start // BLOCK]:
            yield rows, columns


def is_large(size: tuple[int, int]) -> bool:
    """Whether a canvas has more than one block."""
    return max(size) > BLOCK


def _pieces(side: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, side)) for start in range(0, side, BLOCK)]


def _window(
    values: torch.Tensor,
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
    # torch, not NumPy: two pools of BLAS threads that wait for each other's cores make the network
    # and the search three times slower.
    return (from_rows @ some @ from_columns.T).numpy()


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
            rows, columns = (rows > 0).double(), (columns > 0).double()
            found = (rows.T @ torch.from_numpy(some).double() @ columns > 0).numpy()
            under[row : row + len(found), column : column + found.shape[1]] |= found
    return under


def on_grid(patches: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lay patch scores out on the (h, w) grid of `mask`, NaN where it is False."""
    grid = np.full(mask.shape, np.nan)
    grid[mask] = patches
    return grid


def fill_padding(grid: np.ndarray) -> np.ndarray:
    """Fill NaN with the nearest value: the border of a scored rectangle is repeated around it."""
    inside = ~np.isnan(grid)
    if inside.all():
        return grid
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all():
        nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        return grid[tuple(nearest)]
    near_rows = np.clip(np.arange(grid.shape[0]), rows[0], rows[-1])
    near_columns = np.clip(np.arange(grid.shape[1]), columns[0], columns[-1])
    return grid[np.ix_(near_rows, near_columns)]


@lru_cache(maxsize=64)
def _operator(
    n_patches: int, size: int, sigma: float, align_corners: bool, start: int, stop: int
) -> tuple[int, torch.Tensor]:
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
    return lowest, torch.from_numpy(smooth[start - first : stop - first])


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
