"""Images and heat maps reduced to the resolution at which they are drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from skad._common.numbers import marked
from skad._scoring.regions import Region
from skad.inspection._seams import Seams

# Pixels of the longer side of a panel: three inches at more than 300 dots per inch.
_DOTS = 1000


class Shown(NamedTuple):
    """One image, its heat map and its mask, as they are drawn.

    Large images are reduced block by block before matplotlib sees them: an image to the mean of each
    block, a heat map to its maximum, a mask to whether any pixel is marked. So even a single pixel
    above the threshold is outlined; an outline is at most one block too wide. Regions stay as they are.
    """

    image: np.ndarray
    """Of shape (h, w, 3)."""
    heatmap: np.ndarray
    """Of shape (h, w)."""
    mask: np.ndarray | None
    """Of shape (h, w), bool; None: no ground truth, or no pixel is marked."""
    step: int
    """Side of a block, in pixels of the original image."""
    shape: tuple[int, int]
    """Of the original image."""
    peak: tuple[int, int]
    """Row and column of the most anomalous pixel, in the original image."""
    low: float
    high: float
    """Lowest and highest value of the heat map."""
    regions: list[Region] | None = None
    """What is outlined; None: where the heat map is above the threshold."""
    seams: Seams | None = None
    """Where tiles meet, if that is drawn."""

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        heatmap: np.ndarray,
        mask: np.ndarray | None,
        regions: list[Region] | None = None,
        seams: Seams | None = None,
    ) -> Shown:
        """Reduce an image, its heat map and its mask to the resolution of a picture.

        Parameters
        ----------
        image : ndarray of shape (H, W, 3)
        heatmap : ndarray of shape (H, W)
            Not all NaN.
        mask : ndarray of shape (H, W) or None
        regions : list of Region or None
        seams : Seams or None

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
            regions,
            seams,
        )

    def edges(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of what is drawn, in pixels of the original image."""
        rows, columns = self.heatmap.shape
        return -0.5, columns * self.step - 0.5, rows * self.step - 0.5, -0.5

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows of the centres of blocks, in pixels of the original image."""
        rows, columns = (np.arange(n) * self.step + (self.step - 1) / 2 for n in self.heatmap.shape)
        return columns, rows


def _by_blocks(larger: np.ufunc, values: np.ndarray, step: int) -> np.ndarray:
    """Fold each block of step x step pixels into one; blocks at the far edges may be smaller."""
    # ufunc.reduceat takes ten times as long: 385 instead of 37 ms for a heat map of 24 megapixels.
    for _ in range(2):
        folded = values[::step].copy()
        for first in range(1, step):
            part = values[first::step]
            larger(folded[: len(part)], part, out=folded[: len(part)])
        values = folded.swapaxes(0, 1)
    return values


def _means(image: np.ndarray, step: int) -> np.ndarray:
    """Average blocks of an image; uint8 stays uint8."""
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(step))
    # Pillow has no float RGB.
    channels = np.moveaxis(np.asarray(image, dtype=np.float32), 2, 0)
    reduced = [Image.fromarray(np.ascontiguousarray(c)).reduce(step) for c in channels]
    return np.stack([np.asarray(channel) for channel in reduced], axis=2)
