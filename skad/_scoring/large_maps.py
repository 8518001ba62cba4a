"""Maps of which only a block is ever held: of large images, of one detector or fused of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skad._images import Pixels, height_and_width
from skad._scoring.maps import Block, ImageScore, blocks_of, counting, is_large, summarise_parts

if TYPE_CHECKING:
    from skad._scoring.heatmaps import Heatmap

Window = Callable[[slice, slice], np.ndarray]
"""Renders some rows and columns of a map."""


class LargeMap(ABC):
    """A map of an image, whose blocks are rendered when they are asked for.

    Parameters
    ----------
    shape : (H, W)
        Of the canvas.
    pixels : Pixels
        What counts on it.
    """

    def __init__(self, shape: tuple[int, int], pixels: Pixels) -> None:
        self.shape, self._pixels = shape, pixels

    @abstractmethod
    def _render(self, wanted: np.ndarray | None = None) -> Iterator[Block]:
        """Render block by block; all, or those wanted by row and column."""

    def blocks(self, wanted: np.ndarray | None = None) -> Iterator[Block]:
        """Render block by block, NaN where no pixel counts; all, or those wanted by row and column."""
        for block in self._render(wanted):
            at = counting(block, self._pixels)
            values = np.full(block.values.shape, np.nan)
            values[at] = block.values[at]
            yield block._replace(values=values)

    def bands(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield rows of the canvas from the top, and all that was rendered of them, (n_rows, W)."""
        band: list[np.ndarray] = []
        for block in self._render():
            band.append(block.values)
            if block.columns.stop == self.shape[1]:
                yield block.rows, np.concatenate(band, axis=1)
                band = []


class RenderedMap(LargeMap):
    """The map of an image by one detector.

    Parameters
    ----------
    heatmap : Heatmap
    grid : ndarray of shape (h, w)
        Patch scores.
    pixels : Pixels
        What counts on the canvas.
    """

    def __init__(self, heatmap: Heatmap, grid: np.ndarray, pixels: Pixels) -> None:
        super().__init__(height_and_width(heatmap.size_of(grid.shape)), pixels)
        self._heatmap, self._grid = heatmap, grid

    def _render(self, wanted: np.ndarray | None = None) -> Iterator[Block]:
        return self._heatmap.blocks(self._grid, wanted)


class FusedMap(LargeMap):
    """Mean of several maps; where one of them shows nothing, of the others.

    Parameters
    ----------
    windows : sequence of callables
        Each renders rows and columns of one map on the canvas; NaN where it shows nothing.
    shape : (H, W)
        Of the canvas.
    pixels : Pixels
        What counts on it.
    """

    def __init__(self, windows: Sequence[Window], shape: tuple[int, int], pixels: Pixels) -> None:
        super().__init__(shape, pixels)
        self._windows = windows

    def _render(self, wanted: np.ndarray | None = None) -> Iterator[Block]:
        for rows, columns in blocks_of(self.shape, wanted):
            maps = [window(rows, columns) for window in self._windows]
            yield Block(rows, columns, _mean_of_seen(maps))


def held_if_small(found: LargeMap) -> np.ndarray | LargeMap:
    """Render a map of one block; a larger one stays as it is."""
    return found if is_large(found.shape) else next(found.blocks()).values


def summarise_map(canvas: np.ndarray | LargeMap, image_score: ImageScore) -> float:
    """Turn a map into the score of its image, as `summarise` does.

    Parameters
    ----------
    canvas : ndarray of shape (H, W) or LargeMap
        NaN where no pixel counts.
    image_score : "map" or float

    Returns
    -------
    float
    """
    n = 0 if isinstance(image_score, str) else sum(map(len, _seen(canvas)))
    return summarise_parts(_seen(canvas), n, image_score)


def _seen(canvas: np.ndarray | LargeMap) -> Iterator[np.ndarray]:
    """Yield what is not NaN, part by part."""
    parts = [canvas] if isinstance(canvas, np.ndarray) else (b.values for b in canvas.blocks())
    for values in parts:
        yield values[~np.isnan(values)]


def _mean_of_seen(maps: list[np.ndarray]) -> np.ndarray:
    """Mean over the maps that are not NaN at a pixel; NaN where all are."""
    stack = np.stack(maps)
    seen = (~np.isnan(stack)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.nansum(stack, axis=0) / np.where(seen, seen, np.nan)
