"""An image with its heat map over it and its regions outlined, by Pillow alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from skad._images import as_image_source

if TYPE_CHECKING:
    from skad._scoring.regions import Region

# Dark violet over red to yellow: in this order also for readers who see few colours.
_COLOURS = np.array(
    [[40, 10, 85], [120, 30, 110], [188, 55, 84], [237, 105, 37], [251, 180, 26], [252, 255, 164]],
    dtype=np.float32,
)
_OUTLINE = (0, 255, 0)
_STRONGEST = 0.6
# Pixels of the longer side of a picture: larger images are reduced.
_LARGEST = 2048


class HeatmapOverlay:
    """Draws heat maps over their images: the same colours for all images of a detector.

    Nothing is drawn where an image is as a usual good one; the colour is half as strong as can be at the
    threshold of maps. By Pillow alone, for those who run exported files without matplotlib;
    :class:`skad.inspection.HeatmapDisplay` has axes and titles.

    Parameters
    ----------
    model : fitted detector, or an exported one
        Its thresholds as they are now.

    Attributes
    ----------
    usual : float
        Anomaly of a usual good image: nothing is drawn up to it.
    threshold : float
        ``heatmap_threshold_`` of the model: drawn half as strong as can be.

    See Also
    --------
    skad.Inspection : What a detector finds on an image, its map among it.
    skad.inspection.HeatmapDisplay : Several images in a figure of matplotlib's.

    Examples
    --------
    >>> overlay = skad.HeatmapOverlay(line)  # doctest: +SKIP
    >>> for file, found in zip(files, line.inspect(files)):  # doctest: +SKIP
    ...     overlay.draw(file, found.heatmap(), found.regions).save(f"{file.stem}-map.png")
    """

    def __init__(self, model: Any) -> None:
        threshold = float(model.heatmap_threshold_)
        peaks = getattr(model, "_calibration_peaks", None)
        if peaks is None or not len(peaks):
            known = getattr(model, "calibration_scores_", None)
            peaks = [threshold / 2] if known is None else -np.asarray(known)
        self.usual = min(float(np.median(peaks)), threshold)
        self.threshold = threshold

    def draw(self, image: Any, heatmap: np.ndarray, regions: Iterable[Region] = ()) -> Image.Image:
        """Lay the map of an image over it, and outline its regions.

        Parameters
        ----------
        image : path-like, bytes, PIL.Image.Image or ndarray
            As the detector has seen it.
        heatmap : ndarray of shape (H, W)
            Of this image; NaN where nothing was looked at.
        regions : iterable of Region, default=()
            Of this image.

        Returns
        -------
        PIL.Image.Image
            RGB, reduced by a whole number where it would be larger than 2048 pixels.

        Raises
        ------
        ValueError
            If the image cannot be read, or has another size than the map.
        """
        pixels = as_image_source([image]).load(0)
        if pixels.shape[:2] != heatmap.shape:
            of_image, of_map = (" x ".join(map(str, x.shape[:2])) for x in (pixels, heatmap))
            raise ValueError(
                f"the image has {of_image} pixels and the map {of_map}: it is the map of another image."
            )
        step = -(-max(heatmap.shape) // _LARGEST)
        if pixels.dtype != np.uint8:
            pixels = np.round(255 * pixels).astype(np.uint8)
        below = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(step), np.float32)
        index = np.round(255 * self.shares(_highest(heatmap, step))).astype(np.uint8)
        colour, strength = (table[index] for table in _table())
        picture = Image.fromarray(np.round(below - strength * below + colour).astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        for contour in (line for region in regions for line in region.contour):
            # Corners lie between pixels: a line of Pillow's is drawn through their centres.
            points = [(float(x) / step - 0.5, float(y) / step - 0.5) for y, x in contour]
            draw.line([*points, points[0]], fill=_OUTLINE, width=max(1, max(picture.size) // 300))
        return picture

    def shares(self, heatmap: np.ndarray) -> np.ndarray:
        """Place anomalies between nothing and the strongest colour.

        Parameters
        ----------
        heatmap : ndarray of shape (H, W)
            NaN where nothing was looked at.

        Returns
        -------
        ndarray of shape (H, W)
            0 up to `usual`, 0.5 at the threshold, 1 at most.
        """
        span = max(self.threshold - self.usual, 1e-6 * abs(self.threshold), 1e-12)
        return np.clip((np.nan_to_num(heatmap, nan=-np.inf) - self.usual) / (2 * span), 0, 1)


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
