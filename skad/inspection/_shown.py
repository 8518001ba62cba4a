"""Images and heat maps in as many pixels as a picture has dots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from skad._validation.numbers import marked

# Of the longer side of a panel: three inches at more than 300 dots an inch.
_DOTS = 1000


class Shown(NamedTuple):
    """What is drawn of one image.

    Large images are reduced block by block before matplotlib sees them: of an image the mean of each
    block, of its heat map the highest value, of its mask whether any pixel is marked. So the least
    pixel above the threshold keeps its outline; an outline is at most a block too wide.
    """

    image: np.ndarray
    """Of shape (h, w, 3)."""
    heatmap: np.ndarray
    """Of shape (h, w)."""
    mask: np.ndarray | None
    """Of shape (h, w), bool; None: no ground truth, or nothing in it."""
    step: int
    """Sides of a block, in pixels of the image as it was given."""
    shape: tuple[int, int]
    """Of the image as it was given."""
    peak: tuple[int, int]
    """Row and column of its most anomalous pixel."""
    low: float
    high: float
    """Extremes of the heat map as it was given."""

    @classmethod
    def of(cls, image: np.ndarray, heatmap: np.ndarray, mask: np.ndarray | None) -> Shown:
        """Reduce an image, its heat map and its mask to what can be seen of them.

        Parameters
        ----------
        image : ndarray of shape (H, W, 3)
        heatmap : ndarray of shape (H, W)
            Not NaN throughout.
        mask : ndarray of shape (H, W) or None

        Returns
        -------
        Shown
        """
        height, width = heatmap.shape
        step = -(-max(height, width) // _DOTS)
        truth = None if mask is None else marked(mask, "the mask")
        row, column = np.unravel_index(np.nanargmax(heatmap), heatmap.shape)
        return cls(
            image if step == 1 else _means(image, step),
            _by_blocks(np.fmax, heatmap, step),
            None if truth is None or not truth.any() else _by_blocks(np.fmax, truth, step),
            step,
            (height, width),
            (int(row), int(column)),
            float(np.nanmin(heatmap)),
            float(heatmap[row, column]),
        )

    def edges(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of what is drawn, in pixels of the image as it was given."""
        rows, columns = self.heatmap.shape
        return -0.5, columns * self.step - 0.5, rows * self.step - 0.5, -0.5

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows of the blocks' centres, in pixels of the image as it was given."""
        rows, columns = (np.arange(n) * self.step + (self.step - 1) / 2 for n in self.heatmap.shape)
        return columns, rows


def _by_blocks(larger: np.ufunc, values: np.ndarray, step: int) -> np.ndarray:
    """Fold each block of step x step pixels into one; those at the far edges may be smaller."""
    for _ in range(2):
        folded = values[::step].copy()
        for first in range(1, step):
            part = values[first::step]
            larger(folded[: len(part)], part, out=folded[: len(part)])
        values = folded.swapaxes(0, 1)
    return values


def _means(image: np.ndarray, step: int) -> np.ndarray:
    """Average blocks of an image; 8 bits stay 8 bits."""
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(step))
    # Pillow has no float RGB.
    channels = np.moveaxis(np.asarray(image, dtype=np.float32), 2, 0)
    reduced = [Image.fromarray(np.ascontiguousarray(c)).reduce(step) for c in channels]
    return np.stack([np.asarray(channel) for channel in reduced], axis=2)
