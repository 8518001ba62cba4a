"""Scores of an image's patches, bounded at once and computed where it matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# While the highest score is looked for, few patches are computed at first (mostly two or three matter),
# and four times as many in every further round.
_AT_FIRST = 4
# More rivals of the highest than these are bounded more closely before any is computed.
_MANY = 16


class PatchScores:
    """Scores of patches that are known from above, and exactly where somebody asked.

    The distance to *any* vector of a memory bank bounds the distance to the nearest one from above. An
    image is as anomalous as its most anomalous patch: once a few patches with the highest bounds are
    computed, the bounds of all others usually lie below the highest score, and need no search at all.
    The result is exact.

    Parameters
    ----------
    bounds : ndarray of shape (n,), float64
        No score exceeds its bound.
    compute : callable
        Maps an int array of patch numbers to their scores.
    tighten : callable, optional
        Maps an int array of patch numbers to closer bounds, at a fraction of what `compute` costs.
    certain : bool, default=False
        The bounds are the scores themselves.

    Attributes
    ----------
    values : ndarray of shape (n,), float64
        The score where `certain`, else its bound.
    certain : ndarray of shape (n,), bool

    Examples
    --------
    >>> exact = np.array([3.0, 1.0, 2.0, 0.5])
    >>> scores = PatchScores(exact + 0.25, lambda patches: exact[patches])
    >>> int(scores.highest())
    0
    >>> scores.values[0]
    np.float64(3.0)
    """

    def __init__(
        self,
        bounds: NDArray[np.float64],
        compute: Callable[[NDArray[np.int64]], NDArray[np.float64]],
        tighten: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None,
        certain: bool = False,
    ) -> None:
        self.values = bounds
        self.certain = np.full(len(bounds), certain)
        self._compute, self._tighten = compute, tighten

    def ensure(self, patches: NDArray[np.int64]) -> bool:
        """Compute the scores of some patches; False if all were known."""
        unknown = patches[~self.certain[patches]]
        if not len(unknown):
            return False
        self.values[unknown] = self._compute(unknown)
        self.certain[unknown] = True
        return True

    def all(self) -> NDArray[np.float64]:
        """Compute whatever is not known yet.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        if not self.certain.all():
            # All at once: a product of few rows may round otherwise than one of all.
            self.values = self._compute(np.arange(len(self.values)))
            self.certain[:] = True
        return self.values

    def highest(self) -> np.int64:
        """Find the patch with the highest score, and make sure of it.

        Returns
        -------
        int
            The lowest number where several are equally high.
        """
        self.ensure(np.argsort(-self.values, kind="stable")[:_AT_FIRST])
        rivals = self._rivals()
        if len(rivals) > _MANY and self._tighten is not None:
            self.values[rivals] = np.minimum(self.values[rivals], self._tighten(rivals))
            rivals = self._rivals()
        size = _AT_FIRST
        while len(rivals):
            size *= 4
            self.ensure(rivals[:size])
            rivals = self._rivals()
        return np.argmax(np.where(self.certain, self.values, -np.inf))

    def _rivals(self) -> NDArray[np.int64]:
        """Patches that may be as high as the highest that is computed; the highest bounds first."""
        highest = self.values[self.certain].max()
        rivals = np.flatnonzero(~self.certain & (self.values >= highest))
        return rivals[np.argsort(-self.values[rivals], kind="stable")]
