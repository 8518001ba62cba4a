"""Scores of an image's patches, bounded at once and computed where it matters.

The distance to *any* vector of a memory bank bounds the distance to the nearest one from above. An
image is as anomalous as its most anomalous patch: once a few patches with the highest bounds are
computed, the bounds of all others usually lie below the highest score, and need no search at all. The
result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from skad._bank import LeaveOut
from skad._images import Footprint
from skad._scoring.heatmaps import Heatmap
from skad._scoring.maps import fill_padding, on_grid, on_image, put_on_image

# While the highest score is looked for, so many patches are computed at first (mostly two or three
# matter), and in every further round so many times more.
_FIRST_ROUND, _GROWTH = 4, 4
# More rivals of the highest than these are bounded more closely before any is computed.
_RIVALS_TO_TIGHTEN = 16
# Of a map, the patches of the highest pixel are computed first, then those of so many, and in every
# further round of so many times more.
_FIRST_PIXELS = 64

Score = Callable[[torch.Tensor, LeaveOut], NDArray[np.float64]]
"""Scores (n, d) patches; leaves out the vectors of one image, or for every patch those of its own."""


class LazyScores:
    """Scores of the patches of one image: bounds from above, and exact where they were computed.

    Parameters
    ----------
    patches : tensor of shape (n, d), float32
    source : int or None
        Number of the image whose vectors are left out.
    bounds : ndarray of shape (n,), float64
        No score exceeds its bound.
    tighten : callable
        Maps an int array of patch numbers to closer bounds, at a fraction of what scores cost.

    Attributes
    ----------
    values : ndarray of shape (n,), float64
        The score where `certain`, else its bound.
    certain : ndarray of shape (n,), bool

    Examples
    --------
    >>> exact = torch.tensor([[3.0], [1.0], [2.0], [0.5], [0.1], [0.2]])
    >>> def score(patches, leave_out):
    ...     return patches[:, 0].double().numpy()
    >>> bounds = score(exact, None) + 0.25
    >>> lazy = LazyScores(exact, None, bounds, lambda patches: bounds[patches])
    >>> compute([(lazy, lazy.rivals)], score)
    >>> lazy.known()
    array([ 3. ,  1. ,  2. ,  0.5, -inf, -inf])
    """

    def __init__(
        self,
        patches: torch.Tensor,
        source: int | None,
        bounds: NDArray[np.float64],
        tighten: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    ) -> None:
        self.patches, self.source, self.values = patches, source, bounds
        self.certain = np.zeros(len(patches), dtype=bool)
        self._tighten = tighten
        self._round_size = _FIRST_ROUND

    def learn(self, patches: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Take over the exact scores of some patches."""
        self.values[patches] = scores
        self.certain[patches] = True

    def tighten(self, patches: NDArray[np.int64]) -> None:
        """Bound the scores of some patches more closely."""
        self.values[patches] = np.minimum(self.values[patches], self._tighten(patches))

    def rivals(self) -> NDArray[np.int64]:
        """Patches to compute next while the highest score is looked for; none: it is certain."""
        if not self.certain.any():
            return np.argsort(-self.values, kind="stable")[:_FIRST_ROUND]
        rivals = self._possible_rivals()
        if self._round_size == _FIRST_ROUND and len(rivals) > _RIVALS_TO_TIGHTEN:
            self.tighten(rivals)
            rivals = self._possible_rivals()
        self._round_size *= _GROWTH
        return rivals[: self._round_size]

    def _possible_rivals(self) -> NDArray[np.int64]:
        """Patches that may be as high as the highest that is computed; the highest bounds first."""
        highest = self.values[self.certain].max()
        rivals = np.flatnonzero(~self.certain & (self.values >= highest))
        return rivals[np.argsort(-self.values[rivals], kind="stable")]

    def known(self) -> NDArray[np.float64]:
        """Return the scores that are computed, with -inf for the others."""
        return np.where(self.certain, self.values, -np.inf)

    def unknown(self) -> NDArray[np.int64]:
        """Patches that are not computed: all of them, since a few may round otherwise than all."""
        return np.empty(0, np.int64) if self.certain.all() else np.arange(len(self.values))


class MapPeak:
    """The highest value of an image's heat map, from the patches alone that it depends on.

    A map of upper bounds lies above the map. A pixel whose patches are all computed is exact in both;
    the highest of these is the highest point of the map, once no bound of another pixel exceeds it.

    Parameters
    ----------
    scores : LazyScores
    footprint : Footprint
        Where the patches lie.
    heatmap : Heatmap

    Attributes
    ----------
    value : float
        Certain when `unknown` has nothing more to ask for; -inf before any pixel is exact.
    """

    def __init__(self, scores: LazyScores, footprint: Footprint, heatmap: Heatmap) -> None:
        self.scores, self.value = scores, -np.inf
        self._footprint, self._heatmap = footprint, heatmap
        numbers = on_grid(np.arange(len(scores.values), dtype=np.float64), footprint.mask)
        self._shown = fill_padding(numbers).astype(np.int64)
        self._n_pixels = 1

    def unknown(self) -> NDArray[np.int64]:
        """Patches to compute next; none: `value` is certain."""
        rivals = self._rivals()
        if self._n_pixels == _FIRST_PIXELS and np.count_nonzero(rivals) > _FIRST_PIXELS:
            self.scores.tighten(self._patches_of(rivals))
            rivals = self._rivals()
        bounds = self._bounds[rivals]
        if not len(bounds):
            return np.empty(0, np.int64)
        n = min(self._n_pixels, len(bounds))
        self._n_pixels = max(_FIRST_PIXELS, _GROWTH * self._n_pixels)
        return self._patches_of(rivals & (self._bounds >= np.partition(bounds, -n)[-n]))

    def _rivals(self) -> NDArray[np.bool_]:
        """Pixels that may be the highest; `value` becomes the highest that is exact."""
        mask, pixels = self._footprint
        uncertain = (~self.scores.certain)[self._shown].astype(np.float64)
        self._bounds = self._heatmap.render(on_grid(self.scores.values, mask))
        is_open = on_image(self._heatmap.render(uncertain), pixels) > 0
        bounds = on_image(self._bounds, pixels)
        self.value = bounds[~is_open].max(initial=-np.inf)
        rivals = np.zeros(self._bounds.shape, dtype=bool)
        return put_on_image(rivals, pixels, is_open & (bounds >= self.value))

    def _patches_of(self, pixels: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Numbers of the patches that weigh on some pixels and are not computed."""
        under = self._heatmap.patches_under(pixels, self._shown.shape)
        numbers = np.unique(self._shown[under])
        return numbers[~self.scores.certain[numbers]]


Wanted = Callable[[], NDArray[np.int64]]
"""Gives the patches that are to be computed next, as far as can be told by now; none: that is all."""


def compute(tasks: Sequence[tuple[LazyScores, Wanted]], score: Score) -> None:
    """Compute what is wanted of each image, one search for all images, until nothing is wanted.

    Parameters
    ----------
    tasks : sequence of pairs
        The scores of an image, and what is wanted of them.
    score : callable
    """
    while tasks:
        asked = [(task, task[1]()) for task in tasks]
        asked = [(task, patches) for task, patches in asked if len(patches)]
        # Where nothing is left out, a search may be another one: by an index of faiss.
        for leaves_out in (False, True):
            _compute_together(
                [(t[0], p) for t, p in asked if (t[0].source is not None) == leaves_out], score
            )
        tasks = [task for task, _ in asked]


def _compute_together(asked: list[tuple[LazyScores, NDArray[np.int64]]], score: Score) -> None:
    if not asked:
        return
    patches = [image.patches[torch.from_numpy(numbers)] for image, numbers in asked]
    sizes = [len(numbers) for _, numbers in asked]
    scores = score(torch.cat(patches), together([image.source for image, _ in asked], sizes))
    for (image, numbers), found in zip(asked, np.split(scores, np.cumsum(sizes)[:-1]), strict=True):
        image.learn(numbers, found)


def together(sources: list[int | None], sizes: list[int]) -> LeaveOut:
    """Say for the patches of several images which vectors are left out of their search.

    Parameters
    ----------
    sources : list of int, or of None
        What each image leaves out.
    sizes : list of int
        Patches of each.

    Returns
    -------
    int, ndarray of shape (sum of sizes,) or None
    """
    if sources[0] is None:
        return None
    return sources[0] if len(sources) == 1 else np.repeat(np.array(sources, dtype=np.int64), sizes)
