"""What a map is, block by block, and what of it counts; NumPy alone.

A large canvas is handled block by block, always by the same blocks, so that all who look at a pixel see
the same bits; one block is all there is of most.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from skad._common.forks import LOADING
from skad._images import Pixels

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
        with LOADING:  # the import takes longer than most predictions
            from scipy.ndimage import distance_transform_edt
        nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        return grid[tuple(nearest)]
    near_rows = np.clip(np.arange(grid.shape[0]), rows[0], rows[-1])
    near_columns = np.clip(np.arange(grid.shape[1]), columns[0], columns[-1])
    return grid[np.ix_(near_rows, near_columns)]
