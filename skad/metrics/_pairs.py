"""Masks and heat maps as they are handed over, pair by pair, and the regions of masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.ndimage import label

from skad._common.numbers import marked, refuse_masked

# Pixels that touch at a corner belong to one region, as in the reference code of MVTec AD.
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


class SeenPixels(NamedTuple):
    """Anomalies of one image, without pixels that are NaN."""

    good: np.ndarray
    """Of good pixels."""
    defective: np.ndarray
    """Of defective pixels."""
    fractions: np.ndarray
    """For each defective pixel: 1 / number of seen pixels of its region."""
    n_regions: int
    """Number of regions of which a pixel is seen."""


def iter_pixels(
    masks: Iterable[np.ndarray | None], heatmaps: Iterable[np.ndarray]
) -> Iterator[SeenPixels]:
    """Check masks and heat maps, and yield the pixels of each pair.

    Parameters
    ----------
    masks : iterable of n arrays of shape (H_i, W_i) or None
        None: no pixel is defective.
    heatmaps : iterable of n arrays of shape (H_i, W_i)

    Yields
    ------
    SeenPixels

    Raises
    ------
    ValueError
        If there is no pair, if the numbers of masks and heat maps or the shapes of a pair differ, or for
        a mask that holds anything but finite numbers and bool.
    """
    i = -1
    for i, (given, heatmap) in enumerate(zip(masks, heatmaps, strict=True)):
        refuse_masked(heatmap, f"heat map {i}")
        heatmap = np.asarray(heatmap)
        mask = np.zeros(heatmap.shape, bool) if given is None else marked(given, f"mask {i}")
        if mask.shape != heatmap.shape or mask.ndim != 2:
            raise ValueError(
                f"mask {i} has shape {mask.shape}, its heat map {heatmap.shape}: both must be (H, W), "
                "one pair per image. A single pair is passed as [mask], [heatmap]."
            )
        yield _seen(mask, heatmap)
    if i < 0:
        raise ValueError("no masks and heat maps given.")


def _seen(mask: np.ndarray, heatmap: np.ndarray) -> SeenPixels:
    seen = ~np.isnan(heatmap)
    if not mask.any():
        nothing = np.empty(0)
        return SeenPixels(heatmap[seen], nothing.astype(heatmap.dtype), nothing, 0)
    inside = mask & seen
    regions = label(mask, structure=EIGHT_NEIGHBOURS)[0][inside]
    sizes = np.bincount(regions)
    return SeenPixels(
        heatmap[seen & ~mask],
        heatmap[inside],
        1.0 / sizes[regions],
        int(np.count_nonzero(sizes)),
    )
