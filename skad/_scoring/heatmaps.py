"""From a grid of patch scores to a smooth map, as one linear operator per axis.

Bilinear up-sampling and Gaussian smoothing are both linear and separable, so the whole way from the
(h, w) grid to the (H, W) canvas is ``rows @ grid @ columns.T`` with two small matrices that are
computed once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from skad._images import Pixels, Size, height_and_width

ImageScore = str | float
"""What of a map, or of its patches, is the score of an image."""


class Heatmap(NamedTuple):
    """How a grid of patch scores becomes a map of the canvas."""

    size: Size
    """Of the canvas, in pixels."""
    sigma: float
    """Standard deviation of the Gaussian, in pixels."""

    def render(self, grid: np.ndarray) -> np.ndarray:
        """Turn an (h, w) grid into a float64 map of the canvas; see :func:`render`."""
        return render(grid, self.size, self.sigma)

    def summary(self, grid: np.ndarray, pixels: Pixels, image_score: ImageScore = "map") -> float:
        """Score an image by its map, where it counts; see :func:`summarise`."""
        return summarise(on_image(self.render(grid), pixels), image_score)


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
    n_top = 1 if isinstance(image_score, str) else max(1, int(image_score * heatmap.size))
    if n_top == 1:
        return float(heatmap.max())
    highest = np.partition(heatmap.ravel(), heatmap.size - n_top)[heatmap.size - n_top :]
    return float(highest.mean(dtype=np.float64))


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
    grid, (height, width) = fill_padding(grid), height_and_width(size)
    rows = _operator(grid.shape[0], height, float(sigma), align_corners)
    columns = _operator(grid.shape[1], width, float(sigma), align_corners)
    # torch, not NumPy: two pools of BLAS threads that wait for each other's cores make the network
    # and the search three times slower.
    return (rows @ torch.from_numpy(np.asarray(grid, dtype=np.float64)) @ columns.T).numpy()


def patches_under(
    pixels: np.ndarray, shape: tuple[int, int], size: Size, sigma: float
) -> np.ndarray:
    """Tell which patches weigh on some pixels of a rendered map.

    Parameters
    ----------
    pixels : ndarray of shape (H, W), bool
    shape : tuple of two ints
        Of the grid.
    size, sigma
        As for :func:`render`, whose up-sampling is PatchCore's here.

    Returns
    -------
    ndarray of shape `shape`, bool
    """
    sides = zip(shape, height_and_width(size), strict=True)
    rows, columns = ((_operator(n, side, sigma, False) > 0).double() for n, side in sides)
    return (rows.T @ torch.from_numpy(pixels).double() @ columns > 0).numpy()


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


@lru_cache(maxsize=32)
def _operator(n_patches: int, size: int, sigma: float, align_corners: bool) -> torch.Tensor:
    """(size, n_patches) matrix of one axis: up-sampling, then smoothing, of each unit vector."""
    up = _bilinear(n_patches, size, align_corners)
    return torch.from_numpy(gaussian_filter1d(up, sigma, axis=0) if sigma > 0 else up)


def _bilinear(n_patches: int, size: int, align_corners: bool) -> np.ndarray:
    if align_corners:
        positions = np.linspace(0, n_patches - 1, size)
    else:
        positions = np.clip((np.arange(size) + 0.5) * n_patches / size - 0.5, 0, n_patches - 1)
    below = np.minimum(np.floor(positions).astype(int), max(n_patches - 2, 0))
    fraction = positions - below
    matrix = np.zeros((size, n_patches))
    matrix[np.arange(size), below] += 1 - fraction
    matrix[np.arange(size), np.minimum(below + 1, n_patches - 1)] += fraction
    return matrix
