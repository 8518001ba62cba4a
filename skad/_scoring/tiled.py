"""Scores of images that a network sees tile by tile.

A tile is scored as an image of which the core alone counts, and its patch scores go to their place on
the grid of the canvas, from which map and score of the image follow as ever. Memory grows with a few
tiles, and with one number for each patch of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from skad._features import TILES_AT_ONCE, Extractor, check_features, tile_footprint
from skad._images import Footprint, Tiling
from skad._scoring.maps import on_grid
from skad._scoring.plain import Batch, Scorer
from skad._scoring.results import BatchScores


def score_tiled(
    scorer: Scorer, extractor: Extractor, tiling: Tiling, batches: Iterable[Batch], maps: bool
) -> Iterator[BatchScores]:
    """Score batches of images; their patches too, if there are to be maps.

    Parameters
    ----------
    scorer : Scorer
    extractor : Extractor
        Of a tile.
    tiling : Tiling
    batches : iterable of Batch
        Their footprints are those of the canvas.
    maps : bool

    Yields
    ------
    BatchScores
    """
    for batch in batches:
        found = [
            _score_canvas(scorer, _Tiles(extractor, tiling.of(canvas.shape), i, canvas), footprint)
            for i, (canvas, footprint) in enumerate(
                zip(batch.pixels, batch.footprints, strict=True), batch.start
            )
        ]
        yield BatchScores(
            np.array([score for score, _ in found]),
            [grid for _, grid in found] if maps else None,
        )


def put_together(
    network: Callable[[np.ndarray], tuple[torch.Tensor, ...]],
    tiling: Tiling,
    canvas: np.ndarray,
) -> list[torch.Tensor]:
    """Put the grids that a network makes of tiles together.

    Parameters
    ----------
    network : callable
        Maps tiles (B, h, w, 3) to grids (B, h_k, w_k).
    tiling : Tiling
    canvas : ndarray of shape (H, W, 3)

    Returns
    -------
    list of torch.Tensor of shape (1, H_k, W_k)
    """
    numbers = np.arange(len(tiling))
    parts = [
        network(tiling.take([canvas] * len(some), some))
        for some in np.split(numbers, range(TILES_AT_ONCE, len(numbers), TILES_AT_ONCE))
    ]
    grids = []
    for tiles in map(torch.cat, zip(*parts, strict=True)):
        grid = tiles.new_empty((1, *tiling.grid(*tiles.shape[1:])))
        tiling.paste(tiles, grid)
        grids.append(grid)
    return grids


class _Tiles:
    """The tiles of one image.

    Parameters
    ----------
    extractor : Extractor
    tiling : Tiling
    number : int
        Of the image.
    canvas : ndarray of shape (H, W, 3)
    """

    def __init__(
        self, extractor: Extractor, tiling: Tiling, number: int, canvas: np.ndarray
    ) -> None:
        self.extractor, self.tiling = extractor, tiling
        self._number, self._canvas = number, canvas

    def pooled(self, mask: NDArray[np.bool_]) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
        """Yield number, (1, n_values) feature maps and counting patches of tiles with such patches."""
        masks = {i: tile_footprint(self.tiling, i, mask).mask for i in range(len(self.tiling))}
        numbers = [i for i, of_tile in masks.items() if of_tile.any()]
        for start in range(0, len(numbers), TILES_AT_ONCE):
            some = numbers[start : start + TILES_AT_ONCE]
            pixels = self.tiling.take([self._canvas] * len(some), some)
            pooled = self.extractor.pool(pixels)
            check_features(pooled, 0, [self._number] * len(some))
            yield from ((i, one, masks[i]) for i, one in zip(some, pooled.split(1), strict=True))


def _score_canvas(
    scorer: Scorer, tiles: _Tiles, footprint: Footprint
) -> tuple[float, NDArray[np.float64]]:
    """Score an image, and lay the scores of its patches out on the grid of the canvas."""
    mask = footprint.mask
    grid, highest, top = np.full(mask.shape, np.nan), -np.inf, torch.empty(0)
    cell = tiles.tiling.cell_of_canvas(mask.shape[0], mask.shape[1])
    for number, pooled, counting in tiles.pooled(mask):
        patches, scores = scorer.score_every(tiles.extractor, pooled, counting)
        tile = tiles.tiling[number]
        grid[tile.core_cells(*cell)] = on_grid(scores, counting)[tile.inner_cells(*cell)]
        if scores.max() > highest:
            highest, top = scores.max(), patches[scores.argmax()][None].clone()
    if scorer.rule.image_score == "patch":
        return float(scorer.score_patches(top, weighted=True)[0]), grid
    return scorer.heatmap.summary(grid, footprint.pixels, scorer.rule.image_score), grid
