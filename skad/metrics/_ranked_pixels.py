"""Pixels counted in groups of falling anomaly: the one engine behind all pixel metrics and curves.

Who counts decides on the groups. Exact metrics have one for each value of a defective pixel and one for
the good pixels between two such values; :class:`skad.metrics.PixelCounts` has one for each bin. A
threshold calls a group defective as a whole: its good and its defective pixels are tied, and ties count
half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RankedPixels(NamedTuple):
    """Pixels of all images by group, the most anomalous group first."""

    good: np.ndarray
    """(n,) int: number of good pixels."""
    defective: np.ndarray
    """(n,) int: number of defective pixels."""
    overlap: np.ndarray
    """(n,) float: fraction of the pixels of a region, summed over all regions."""
    n_regions: int

    def has_both(self) -> bool:
        """Whether there are good and defective pixels; else metrics are NaN and there are no curves."""
        return bool(self.good.any() and self.defective.any())

    @property
    def _n_good(self) -> int:
        return int(self.good.sum())

    @property
    def _n_defective(self) -> int:
        return int(self.defective.sum())

    # Curves: n + 1 points, from no group called defective to all of them.

    def false_positive_rates(self) -> np.ndarray:
        """Fractions of the good pixels that are called defective."""
        return _cumulated(self.good) / self._n_good

    def recalls(self) -> np.ndarray:
        """Fractions of the defective pixels that are called defective."""
        return _cumulated(self.defective) / self._n_defective

    def precisions(self) -> np.ndarray:
        """Fractions of defective pixels among those called defective; 1 where none is."""
        found = _cumulated(self.defective)
        called = found + _cumulated(self.good)
        return np.divide(found, called, out=np.ones(len(called)), where=called > 0)

    def overlaps(self) -> np.ndarray:
        """Fractions of a region's pixels that are called defective, the mean of all regions."""
        return _cumulated(self.overlap) / self.n_regions

    # Metrics.

    def auroc(self) -> float:
        """Area under the ROC curve."""
        if not self.has_both():
            return float("nan")
        return self._area(self.defective, 1.0) / self._n_defective / self._n_good

    def average_precision(self) -> float:
        """Precision at each recall that is reached, weighted by the increase of recall."""
        if not self.has_both():
            return float("nan")
        return float(np.sum(np.diff(self.recalls()) * self.precisions()[1:]))

    def aupro(self, limit: float) -> float:
        """Area under the per-region overlap up to the false-positive rate `limit`, divided by it."""
        if not self.has_both():
            return float("nan")
        return self._area(self.overlap, limit) / (self.n_regions * limit * self._n_good)

    # Bounds of the error: the most by which a metric changes if pixels within groups are ranked.

    def auroc_error(self) -> float:
        """Bound of the error of `auroc`."""
        if not self.has_both():
            return float("nan")
        return self._area_error(self.defective, 1.0) / self._n_defective / self._n_good

    def average_precision_error(self) -> float:
        """Bound of the error of `average_precision`.

        At best, the defective pixels of a group come first, all at once. At worst they come last, one by
        one: then the j-th has the precision (found + j) / (alarms + found + j). That rises with j, so
        that the integral over j, which has a closed form, is a lower bound of the sum.
        """
        if not self.has_both():
            return float("nan")
        n = self.defective
        found, alarms = np.cumsum(n) - n, np.cumsum(self.good)
        tied = n * _ratio(found + n, alarms + found + n)
        best = n * _ratio(found + n, alarms - self.good + found + n)
        worst = n - alarms * np.log1p(_ratio(n, alarms + found))
        return float(max(np.sum(best - tied), np.sum(tied - worst)) / self._n_defective)

    def aupro_error(self, limit: float) -> float:
        """Bound of the error of `aupro`."""
        if not self.has_both():
            return float("nan")
        return self._area_error(self.overlap, limit) / (self.n_regions * limit * self._n_good)

    def _area(self, rises: np.ndarray, limit: float) -> float:
        """Area under a curve that rises by `rises` from group to group, up to `limit`; x in good pixels.

        What a group adds is its rise times the width from there to the limit. The good pixels of the
        group itself make a ramp of it, over which the width is averaged.
        """
        before, after = self._widths(limit)
        ramp = _ratio(np.minimum(before, self.good) ** 2, 2 * self.good)
        return float(np.sum(rises * (ramp + after)))

    def _area_error(self, rises: np.ndarray, limit: float) -> float:
        """Bound the change of `_area`, which is largest if each ramp becomes a step at its start.

        A step at its end changes less: widths fall in a straight line up to the limit, and are 0 beyond.
        """
        before, _ = self._widths(limit)
        return float(np.sum(rises * before)) - self._area(rises, limit)

    def _widths(self, limit: float) -> tuple[np.ndarray, np.ndarray]:
        """Count the good pixels from the start of each group to the limit, and from its end."""
        ends = np.cumsum(self.good)
        width = limit * self._n_good
        return np.clip(width - (ends - self.good), 0, None), np.clip(width - ends, 0, None)


def check_limit(limit: float) -> None:
    """Raise a ValueError unless an area can be taken up to that false-positive rate."""
    if not 0 < limit <= 1:
        raise ValueError(f"limit={limit!r} must lie in (0, 1].")


def _cumulated(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; 0 where the denominator is 0."""
    zeros = np.zeros(len(denominator))
    return np.divide(numerator, denominator, out=zeros, where=denominator > 0)
