"""Pixel metrics of any number of images: counts in bins, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from skad.metrics._pairs import iter_pixels
from skad.metrics._ranked_pixels import RankedPixels, check_limit

# A bin holds the float32 numbers whose first bits agree: sign, exponent, and the first bits of the
# fraction, as many as `bin_width` asks for.
_SIGN_AND_EXPONENT = 9
_SIGN = np.uint32(1 << 31)
# Among ordered bits (see `_bins`); below it, bits mean NaN.
_MINUS_INFINITY = np.uint32(0x007FFFFF)


class PixelCurves(NamedTuple):
    """What each threshold gives, from no pixel called defective to all of them.

    All arrays have the same length. Plot `recall` against `false_positive_rate` (ROC), `precision`
    against `recall`, or `overlap` against `false_positive_rate` (per-region overlap).
    """

    thresholds: np.ndarray
    """Falling. Pixels at or above a threshold are called defective; none at the first, infinity."""
    false_positive_rate: np.ndarray
    """Fraction of the good pixels that are called defective."""
    recall: np.ndarray
    """Fraction of the defective pixels that are called defective."""
    precision: np.ndarray
    """Fraction of defective pixels among those called defective; 1 where none is."""
    overlap: np.ndarray
    """Fraction of a region's pixels that are called defective, the mean of all regions."""


class PixelErrors(NamedTuple):
    """The most by which metrics of :class:`PixelCounts` can differ from the exact ones."""

    auroc: float
    """Of the area under the ROC curve."""
    average_precision: float
    """Of the average precision."""
    aupro: float
    """Of the area under the per-region overlap."""


class PixelCounts:
    """Pixel metrics of heat maps that do not fit into memory together.

    Counts good and defective pixels by their anomaly, image by image, in bins of equal relative width.
    Pixels in the same bin count as equally anomalous.

    Parameters
    ----------
    bin_width : float, default=5e-4
        Width of a bin relative to the anomalies in it, from 2**-16 to 0.5; rounded down to a power of
        two. Halving it doubles the memory: 24 MB at the default, whatever the number of images.

    Attributes
    ----------
    n_good, n_defective : int
        Pixels counted so far.
    n_regions : int
        Regions of defective pixels counted so far.

    See Also
    --------
    pixel_auroc, pixel_average_precision, aupro : The exact figures, with all heat maps in memory.

    Notes
    -----
    Bins depend on `bin_width` alone and cover all float32 numbers: the range of anomalies need not be
    known beforehand, and counts of several processes can be merged. The metrics are computed by the
    same formulas as the exact ones and differ from them only through ties that the bins add;
    :meth:`max_error` says by how much at most.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.metrics import PixelCounts
    >>> counts = PixelCounts()
    >>> mask, heatmap = np.array([[0, 1], [0, 1]]), np.array([[0.1, 0.9], [0.4, 0.3]])
    >>> counts.update([mask], [heatmap]).auroc()
    0.75

    A few images at a time:

    >>> for X, masks in loader:  # doctest: +SKIP
    ...     counts.update(masks, detector.predict_heatmap(X))
    >>> counts.aupro(), counts.max_error().aupro  # doctest: +SKIP
    """

    def __init__(self, bin_width: float = 5e-4) -> None:
        if not 2**-16 <= bin_width <= 0.5:
            raise ValueError(f"bin_width={bin_width!r} must lie between 2**-16 and 0.5.")
        self.bin_width = bin_width
        self._bits = _SIGN_AND_EXPONENT + int(np.ceil(-np.log2(bin_width)))
        self._good = np.zeros(2**self._bits, dtype=np.int64)
        self._defective = np.zeros(2**self._bits, dtype=np.int64)
        self._overlap = np.zeros(2**self._bits)
        self.n_regions = 0

    def __repr__(self) -> str:
        return (
            f"<PixelCounts of {self.n_good} good and {self.n_defective} defective pixels in "
            f"{self.n_regions} regions>"
        )

    @property
    def n_good(self) -> int:
        """Good pixels counted so far."""
        return int(self._good.sum())

    @property
    def n_defective(self) -> int:
        """Defective pixels counted so far."""
        return int(self._defective.sum())

    def update(
        self, masks: Iterable[np.ndarray | None], heatmaps: Iterable[np.ndarray]
    ) -> PixelCounts:
        """Count the pixels of some images.

        Parameters
        ----------
        masks : iterable of n arrays of shape (H_i, W_i) or None
            Ground truth; non-zero = defective. None: no pixel is (a good image).
        heatmaps : iterable of n arrays of shape (H_i, W_i)
            Anomaly of each pixel; higher = more anomalous. Pixels that are NaN are left out. May be a
            generator: one heat map is looked at after the other.

        Returns
        -------
        PixelCounts
            Itself.

        Raises
        ------
        ValueError
            As :func:`pixel_auroc`; pairs before the one that is at fault have been counted.
        """
        for pixels in iter_pixels(masks, heatmaps):
            _add(self._good, self._bins(pixels.good))
            defective = self._bins(pixels.defective)
            _add(self._defective, defective)
            _add(self._overlap, defective, pixels.fractions)
            self.n_regions += pixels.n_regions
        return self

    def merge(self, other: PixelCounts) -> PixelCounts:
        """Add the counts of other images, such as those of another process.

        Parameters
        ----------
        other : PixelCounts
            With the same bins; it stays as it is.

        Returns
        -------
        PixelCounts
            Itself.

        Raises
        ------
        ValueError
            If the bins differ.
        """
        if self._bits != other._bits:
            raise ValueError(
                f"counts with bin_width={self.bin_width} and {other.bin_width} cannot be merged: count "
                "both with the same bin_width."
            )
        self._good += other._good
        self._defective += other._defective
        self._overlap += other._overlap
        self.n_regions += other.n_regions
        return self

    def auroc(self) -> float:
        """Return the area under the ROC curve of pixels, see :func:`pixel_auroc`.

        Returns
        -------
        float
            In 0..1; NaN if only good or only defective pixels were counted.
        """
        return self._ranked().auroc()

    def average_precision(self) -> float:
        """Return the average precision of pixels, see :func:`pixel_average_precision`.

        Returns
        -------
        float
            In 0..1; NaN if only good or only defective pixels were counted.
        """
        return self._ranked().average_precision()

    def aupro(self, limit: float = 0.3) -> float:
        """Return the area under the per-region overlap, see :func:`skad.metrics.aupro`.

        Parameters
        ----------
        limit : float, default=0.3
            False-positive rate up to which the area is taken, in (0, 1]; the area is divided by it.

        Returns
        -------
        float
            In 0..1; NaN if only good or only defective pixels were counted.
        """
        check_limit(limit)
        return self._ranked().aupro(limit)

    def prevalence(self) -> float:
        """Return the fraction of defective pixels, which is the average precision of chance.

        Returns
        -------
        float
            In 0..1; NaN if no pixel was counted.
        """
        n = self.n_good + self.n_defective
        return self.n_defective / n if n else float("nan")

    def max_error(self, limit: float = 0.3) -> PixelErrors:
        """Return the most by which the figures can differ from the exact ones of the same heat maps.

        Parameters
        ----------
        limit : float, default=0.3
            For :meth:`aupro`.

        Returns
        -------
        PixelErrors
            Bounds, not estimates: whatever the order of pixels within each bin. NaN if only good or only
            defective pixels were counted.
        """
        check_limit(limit)
        ranked = self._ranked()
        return PixelErrors(
            ranked.auroc_error(), ranked.average_precision_error(), ranked.aupro_error(limit)
        )

    def curves(self) -> PixelCurves:
        """Return the points of the ROC, precision-recall and per-region-overlap curves.

        Returns
        -------
        PixelCurves
            One point for each bin that is not empty.

        Raises
        ------
        ValueError
            If only good or only defective pixels were counted.
        """
        ranked = self._ranked()
        if not ranked.has_both():
            raise ValueError(f"{self!r}: curves need good and defective pixels.")
        return PixelCurves(
            thresholds=np.concatenate([[np.inf], self._lowest(self._filled())]),
            false_positive_rate=ranked.false_positive_rates(),
            recall=ranked.recalls(),
            precision=ranked.precisions(),
            overlap=ranked.overlaps(),
        )

    def _filled(self) -> np.ndarray:
        """Bins that hold pixels, the most anomalous first."""
        return np.flatnonzero(self._good + self._defective)[::-1]

    def _ranked(self) -> RankedPixels:
        filled = self._filled()
        return RankedPixels(
            good=self._good[filled],
            defective=self._defective[filled],
            overlap=self._overlap[filled],
            n_regions=self.n_regions,
        )

    def _bins(self, values: np.ndarray) -> np.ndarray:
        """Return the bin of each number."""
        # Adding 0 turns -0.0 into 0.0, which is the same number and belongs into the same bin.
        bits = (np.asarray(values, dtype=np.float32) + np.float32(0)).view(np.uint32)
        # With negative numbers inverted and the sign of positive ones set, bits are ordered as floats.
        ordered = np.where(bits >> 31, ~bits, bits | _SIGN)
        return ordered >> np.uint32(32 - self._bits)

    def _lowest(self, bins: np.ndarray) -> np.ndarray:
        """Return the lowest number of each bin."""
        ordered = bins.astype(np.uint32) << np.uint32(32 - self._bits)
        ordered = np.maximum(ordered, _MINUS_INFINITY)
        return np.where(ordered >> 31, ordered & ~_SIGN, ~ordered).view(np.float32)


def _add(counts: np.ndarray, bins: np.ndarray, weights: np.ndarray | None = None) -> None:
    """Count what lies in each bin."""
    if len(bins):
        lowest = bins.min()  # of a few thousand bins that one image fills
        found = np.bincount(bins - lowest, weights)
        counts[lowest : lowest + len(found)] += found
