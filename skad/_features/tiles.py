"""Tiles of a canvas as images of which the core alone counts, and patches put together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import torch

from skad._images import Footprint, Tiling

# Tiles that the network sees at once, whatever the number of an image.
TILES_AT_ONCE = 8


def tile_footprint(tiling: Tiling, number: int, mask: np.ndarray) -> Footprint:
    """Tell which patches of one tile count.

    Parameters
    ----------
    tiling : Tiling
    number : int
        Of the tile.
    mask : ndarray of shape (h, w), bool
        The patches that count on the canvas.

    Returns
    -------
    Footprint
        Its pixels are those of the core.
    """
    tile, cell = tiling[number], tiling.cell_of_canvas(*mask.shape)
    of_tile = np.zeros([side // n for side, n in zip(tiling.shape, cell, strict=True)], dtype=bool)
    of_tile[tile.inner_cells(*cell)] = mask[tile.core_cells(*cell)]
    rows, columns = tile.inner
    return Footprint(of_tile, (rows.start, rows.stop, columns.start, columns.stop))


def gather(
    tilings: Iterable[Tiling],
    tiles: Iterable[tuple[torch.Tensor, Footprint]],
    footprints: Mapping[int, Footprint],
) -> Iterator[tuple[torch.Tensor, Footprint]]:
    """Put the patches of images together, in the order of the grid over the canvas.

    Parameters
    ----------
    tilings : iterable of Tiling
        Of each image.
    tiles : iterable of pairs
        Patches of tile after tile, those that count, (n, d), and which these are.
    footprints : mapping of int to Footprint
        Of the canvas of each image; known when its last tile comes.

    Yields
    ------
    tuple of tensor of shape (n_patches, d) and Footprint
        Of image after image.
    """
    stream = iter(tiles)
    for i, tiling in enumerate(tilings):
        some, footprint = list(islice(stream, len(tiling))), footprints[i]
        mask = footprint.mask
        numbers = np.full(mask.shape, -1)
        numbers[mask] = np.arange(mask.sum())
        cell = tiling.cell_of_canvas(*mask.shape)
        patches = some[0][0].new_empty((int(mask.sum()), some[0][0].shape[1]))
        for tile, (own, _) in zip(tiling, some, strict=True):
            places = numbers[tile.core_cells(*cell)]
            patches[torch.from_numpy(places[places >= 0])] = own
        yield patches, footprint
