"""An image with its heat map over it and its regions outlined, by Pillow alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

# Dark violet over red to yellow: in this order also for readers who see few colours.
_COLOURS = np.array(
    [[40, 10, 85], [120, 30, 110], [188, 55, 84], [237, 105, 37], [251, 180, 26], [252, 255, 164]],
    dtype=np.float32,
)
_OUTLINE = (0, 255, 0)
_STRONGEST = 0.6
# Pixels of the longer side of a picture: larger images are reduced.
_LARGEST = 2048


class Scale(NamedTuple):
    """What anomaly is drawn in what colour: the same in all pictures of a detector."""

    usual: float
    """Anomaly of a usual good image: nothing is drawn up to it."""
    threshold: float
    """Drawn half as strong as can be."""

    @classmethod
    def of(cls, model: Any) -> Scale:
        """Take the scale of a detector: from its usual good image over its threshold.

        Parameters
        ----------
        model : fitted detector, or an exported one
        """
        threshold = float(model.heatmap_threshold_)
        peaks = getattr(model, "_calibration_peaks", None)
        if peaks is None or not len(peaks):
            known = getattr(model, "calibration_scores_", None)
            peaks = [threshold / 2] if known is None else -np.asarray(known)
        usual = min(float(np.median(peaks)), threshold)
        return cls(usual, threshold)

    def shares(self, heatmap: np.ndarray) -> np.ndarray:
        """Place anomalies between nothing (0) and the strongest colour (1); 0.5 at the threshold."""
        span = max(self.threshold - self.usual, 1e-6 * abs(self.threshold), 1e-12)
        return np.clip((np.nan_to_num(heatmap, nan=-np.inf) - self.usual) / (2 * span), 0, 1)


def draw_overlay(
    image: np.ndarray, heatmap: np.ndarray, contours: list[np.ndarray], scale: Scale
) -> Image.Image:
    """Lay a heat map over its image.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        uint8, or floats in 0..1.
    heatmap : ndarray of shape (H, W)
        NaN where nothing was looked at.
    contours : list of ndarray of shape (k, 2)
        Polygons of regions: (row, column) of corners of pixels.
    scale : Scale

    Returns
    -------
    PIL.Image.Image
        RGB, reduced by a whole number where it would be larger than 2048 pixels.
    """
    step = -(-max(heatmap.shape) // _LARGEST)
    pixels = image if image.dtype == np.uint8 else np.round(255 * image).astype(np.uint8)
    below = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(step), np.float32)
    index = np.round(255 * scale.shares(_highest(heatmap, step))).astype(np.uint8)
    colour, strength = (table[index] for table in _table())
    picture = Image.fromarray(np.round(below - strength * below + colour).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for contour in contours:
        # Corners lie between pixels: a line of Pillow's is drawn through their centres.
        points = [(float(column) / step - 0.5, float(row) / step - 0.5) for row, column in contour]
        draw.line([*points, points[0]], fill=_OUTLINE, width=max(1, max(picture.size) // 300))
    return picture


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Colour times strength, and strength, of 256 shares between 0 and 1."""
    shares = np.linspace(0, 1, 256)
    places = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(shares, places, of_one) for of_one in _COLOURS.T], axis=1)
    strength = _STRONGEST * np.sqrt(shares)[:, None]
    return (strength * colours).astype(np.float32), strength.astype(np.float32)


def _highest(heatmap: np.ndarray, step: int) -> np.ndarray:
    """Fold blocks into their highest value: a single anomalous pixel is seen in a reduced picture."""
    for axis in (0, 1) if step > 1 else ():
        heatmap = np.fmax.reduceat(heatmap, np.arange(0, heatmap.shape[axis], step), axis=axis)
    return heatmap
