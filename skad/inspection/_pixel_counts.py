"""Metrics of pixels from counts, in memory that does not grow with the number of images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import label

from skad._validation.numbers import marked

# Anomalies are counted by the first bits of their float32: sign, exponent, 11 bits of the fraction.
# That is a histogram with bins 0.05 % wide at every scale, whose range need not be known beforehand.
_BITS = 20
# Pixels that touch at a corner belong to one region, as in skad.metrics.
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)
# A curve for the eye: what differs by less than that share lies on the same dot.
_STEPS = 2000


class Curves(NamedTuple):
    """Shares at falling thresholds, from 0 to all pixels found."""

    false_positive_rate: np.ndarray
    """Share of good pixels called defective."""
    recall: np.ndarray
    """Share of defective pixels called defective."""
    precision: np.ndarray
    """Share of defective ones among the pixels called defective; 1 where none is."""
    overlap: np.ndarray
    """Mean share of the regions' pixels that are found."""


class PixelCounts:
    """How often each anomaly occurs among good and among defective pixels.

    Fed image by image. Two anomalies that agree to 0.05 % count as equal; in curves and areas, ties
    count half, so that these agree with exact ones to about four digits.

    Attributes
    ----------
    good, defective : ndarray of shape (2^20,), int64
        Pixels in each bin, the bins in the order of rising anomaly.
    regions : ndarray of shape (2^20,), float64
        The same for defective pixels, each counting 1 / size of its region.
    n_regions : int

    Examples
    --------
    >>> import numpy as np
    >>> counts = PixelCounts()
    >>> counts.add(np.array([[0, 1], [0, 1]]), np.array([[0.1, 0.9], [0.4, 0.3]]))
    >>> counts.auroc()
    0.75
    """

    def __init__(self) -> None:
        self.good = np.zeros(2**_BITS, dtype=np.int64)
        self.defective = np.zeros(2**_BITS, dtype=np.int64)
        self.regions = np.zeros(2**_BITS)
        self.n_regions = 0

    def add(self, mask: np.ndarray, heatmap: np.ndarray) -> None:
        """Count the pixels of one image.

        Parameters
        ----------
        mask : ndarray of shape (H, W)
            Non-zero = defective.
        heatmap : ndarray of shape (H, W)
            Higher = more anomalous; pixels that are NaN are left out.
        """
        seen, defective_pixels = ~np.isnan(heatmap), marked(mask, "the mask")
        self.good += _histogram(heatmap.ravel() if seen.all() else heatmap[seen])
        if not defective_pixels.any():
            return
        inside = seen & defective_pixels
        defective = _histogram(heatmap[inside])
        self.good -= defective
        self.defective += defective
        owners = label(defective_pixels, structure=_EIGHT_NEIGHBOURS)[0][inside]
        sizes = np.bincount(owners)
        self.regions += _histogram(heatmap[inside], 1.0 / sizes[owners])
        self.n_regions += int(np.count_nonzero(sizes))

    def has_both(self) -> bool:
        """Whether there are good and defective pixels."""
        return bool(self.good.any() and self.defective.any())

    def curves(self) -> Curves:
        """Return all shares, one point a bin that is not empty.

        Returns
        -------
        Curves
            Of arrays of one length; for counts that hold good and defective pixels.
        """
        filled = np.flatnonzero(self.good + self.defective)[::-1]
        alarms, found = np.cumsum(self.good[filled]), np.cumsum(self.defective[filled])
        overlap = np.cumsum(self.regions[filled]) / self.n_regions
        return Curves(
            _from_zero(alarms / alarms[-1]),
            _from_zero(found / found[-1]),
            np.concatenate([[1.0], found / (alarms + found)]),
            _from_zero(overlap),
        )

    def auroc(self) -> float:
        """Return the area under the ROC curve of pixels.

        Returns
        -------
        float
            In 0..1; NaN if only good or only defective pixels were counted.
        """
        if not self.has_both():
            return float("nan")
        curves = self.curves()
        return _trapezoid(curves.recall, curves.false_positive_rate)

    def average_precision(self) -> float:
        """Return the precision at each recall that is reached, weighted by its increase.

        Returns
        -------
        float
            In 0..1; NaN if only good or only defective pixels were counted.
        """
        if not self.has_both():
            return float("nan")
        curves = self.curves()
        return float(np.sum(np.diff(curves.recall) * curves.precision[1:]))

    def aupro(self, limit: float = 0.3) -> float:
        """Return the area under the per-region overlap, as :func:`skad.metrics.aupro` defines it.

        Parameters
        ----------
        limit : float, default=0.3
            False-positive rate up to which the area is taken, in (0, 1]; the area is divided by it.

        Returns
        -------
        float
            In 0..1; NaN if only good or only defective pixels were counted.
        """
        if not self.has_both():
            return float("nan")
        curves = self.curves()
        return _area_up_to(curves.false_positive_rate, curves.overlap, limit) / limit

    def prevalence(self) -> float:
        """Return the share of defective pixels, which is the precision of chance."""
        return float(self.defective.sum() / (self.defective.sum() + self.good.sum()))


def thin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Choose the points of a curve that an eye can tell apart.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        In 0..1.

    Returns
    -------
    ndarray of int
        The first and last point, and those between that lie on another dot than the one before.
    """
    dots = np.round(np.stack([x, y]) * _STEPS)
    moved = np.any(np.diff(dots, axis=1) != 0, axis=0)
    return np.union1d(np.flatnonzero(moved) + 1, [0, len(x) - 1])


def _histogram(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    # Adding 0 turns -0.0 into 0.0, which is the same number and belongs into the same bin.
    bits = (np.asarray(values, dtype=np.float32) + np.float32(0)).view(np.uint32)
    # With negative numbers inverted and the sign of positive ones set, bits are ordered as floats.
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return np.bincount(ordered >> (32 - _BITS), weights, minlength=2**_BITS)


def _trapezoid(y: np.ndarray, x: np.ndarray) -> float:
    # NumPy's own has another name before 2.0.
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _from_zero(shares: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], shares])


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Area under a rising polygon from 0 to `limit`, cut where it crosses it."""
    last = int(np.searchsorted(x, limit, side="right"))  # the first point beyond
    area = _trapezoid(y[:last], x[:last])
    if last < len(x):
        width = limit - x[last - 1]
        slope = (y[last] - y[last - 1]) / (x[last] - x[last - 1])
        area += width * (y[last - 1] + slope * width / 2)
    return area
