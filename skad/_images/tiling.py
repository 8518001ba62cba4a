"""How a canvas that is too large for a network is cut into overlapping tiles, and put together again.

A network pads its input with zeros: near the rim of a tile it says something else than it would of a
larger piece of the image. So neighbours overlap by twice a margin, and each is cut off by the margin
where the other goes on. What is left of the tiles, their cores, lie side by side; the rim of a tile is
kept at the rim of the canvas alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from .sizes import Size, height_and_width

# Margin, in strides of the deepest layer, at which seams of ResNets are no steeper than what lies around
# them; at most a third of a tile, so that a third of it is left. docs/tiles.md has figures.
_MARGIN_STRIDES, _LARGEST_MARGIN = 4, 3
NATIVE = "native"

Tiles = tuple[int, int] | str | None
"""As a user writes it: rows and columns; as many as an image needs at its own resolution; or none."""


class Tile(NamedTuple):
    """Where a tile lies on the canvas, and what of it counts, in pixels."""

    rows: slice
    columns: slice
    core: tuple[slice, slice]
    """Of the canvas: rows and columns of what counts."""
    inner: tuple[slice, slice]
    """The same, of the tile."""

    def core_cells(self, height: int, width: int) -> tuple[slice, slice]:
        """Return what counts, in cells of so many pixels of a grid over the canvas."""
        return _in_cells(self.core[0], height), _in_cells(self.core[1], width)

    def inner_cells(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the same, of a grid over the tile."""
        return _in_cells(self.inner[0], height), _in_cells(self.inner[1], width)


@dataclass(frozen=True)
class Tiling:
    """Overlapping tiles that cover a canvas.

    Parameters
    ----------
    tile : int or tuple of two ints
        Side of a square tile, or height and width: what the network sees.
    rows, columns : int or None
        Number of tiles below each other and side by side; None: as many as an image needs at its own
        resolution, see :meth:`of`.
    margin : tuple of two ints
        Pixels that are cut off at each seam, above and below it, and left and right of it.
    stride : int
        Tiles begin, and canvases end, at multiples of so many pixels.
    extent : tuple of two ints, default=None
        Height and width of the canvas, where the last tiles overlap more than the others; None: what
        the tiles cover.

    Raises
    ------
    ValueError
        If margins leave nothing of a tile.

    Examples
    --------
    >>> tiling = Tiling(64, 2, 3, (16, 16), 16)
    >>> tiling.canvas
    (96, 128)
    >>> [tile.core for tile in tiling][0]
    (slice(0, 48, None), slice(0, 48, None))
    """

    tile: Size
    rows: int | None
    columns: int | None
    margin: tuple[int, int]
    stride: int
    extent: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if any(2 * m >= side for m, side in zip(self.margin, self.shape, strict=True)):
            raise ValueError(
                f"margins of {self.margin} pixels leave nothing of tiles of {self.shape}."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a tile."""
        return height_and_width(self.tile)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what all tiles cover."""
        if self.extent is not None:
            return self.extent
        (height, width), (above, beside), (rows, columns) = self.shape, self.margin, self.counts
        return (
            height + (rows - 1) * (height - 2 * above),
            width + (columns - 1) * (width - 2 * beside),
        )

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        if self.rows is None or self.columns is None:
            raise TypeError("the tiles of an image are those of tiling.of(shape)")
        return self.rows, self.columns

    def of(self, shape: Sequence[int]) -> Tiling:
        """Return the tiles of an image, or a canvas, of a height and width.

        Parameters
        ----------
        shape : sequence of ints
            Those after the second do not count.

        Returns
        -------
        Tiling
            This one, where the number of tiles is fixed.
        """
        if self.rows is not None:
            return self
        extent, counts = [], []
        for length, side, margin in zip(shape, self.shape, self.margin, strict=False):
            extent.append(max(side, -(-length // self.stride) * self.stride))
            counts.append(1 - (side - extent[-1]) // (side - 2 * margin))
        height, width = extent
        return Tiling(self.tile, counts[0], counts[1], self.margin, self.stride, (height, width))

    def __len__(self) -> int:
        rows, columns = self.counts
        return rows * columns

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles row by row."""
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Tile:
        places = divmod(number, self.counts[1])
        sides = zip(places, self.counts, self.shape, self.margin, self.canvas, strict=True)
        (rows, core_rows, inner_rows), (columns, core_columns, inner_columns) = (
            _along(*side) for side in sides
        )
        return Tile(rows, columns, (core_rows, core_columns), (inner_rows, inner_columns))

    def cells(self, n_rows: int, n_columns: int) -> tuple[int, int]:
        """Tell how large a cell of a grid over a tile is, in pixels.

        Parameters
        ----------
        n_rows, n_columns : int
            Of the grid.

        Raises
        ------
        ValueError
            If cells are no whole pixels, or seams do not lie between them.
        """
        height, width = self.shape
        cells = height // n_rows, width // n_columns
        for side, n, cell, margin in zip(
            self.shape, (n_rows, n_columns), cells, self.margin, strict=True
        ):
            if side % n or margin % cell:
                raise ValueError(
                    f"feature maps of {n_rows} x {n_columns} positions do not divide tiles of "
                    f"image_size={self.tile} evenly: with tiles, image_size must be a multiple of all "
                    "strides of the backbone."
                )
        return cells

    def take(self, canvases: Sequence[Any], numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Cut one tile out of each canvas.

        Parameters
        ----------
        canvases : sequence of B arrays of shape (H, W, ...)
            Or of what has windows as they have.
        numbers : sequence of B ints
            Of the tiles.

        Returns
        -------
        ndarray of shape (B, h, w, ...)
        """
        tiles = [self[int(number)] for number in numbers]
        pairs = zip(canvases, tiles, strict=True)
        return np.stack([canvas[tile.rows, tile.columns] for canvas, tile in pairs])

    def paste(self, tiles: Any, canvases: Any) -> None:
        """Write grids over tiles into grids over canvases.

        Parameters
        ----------
        tiles : ndarray or torch.Tensor of shape (B * rows * columns, h, w, ...)
            Those of the first canvas, row by row, then those of the next; of cells of whole pixels.
        canvases : ndarray or torch.Tensor of shape (B, H, W, ...)
            Of cells of the same size; all of it is written.
        """
        cell = self.cells(*tiles.shape[1:3])
        for number, tile in enumerate(self):
            (rows, columns), inner = tile.core_cells(*cell), tile.inner_cells(*cell)
            canvases[:, rows, columns] = tiles[number :: len(self), inner[0], inner[1]]

    def grid(self, n_rows: int, n_columns: int) -> tuple[int, int]:
        """Rows and columns of a grid over the canvas, from those of the same over a tile."""
        height, width = self.cells(n_rows, n_columns)
        return self.canvas[0] // height, self.canvas[1] // width

    def cell_of_canvas(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels of a cell of a grid over the canvas of so many cells."""
        return self.canvas[0] // height, self.canvas[1] // width


def as_tiles(value: Any) -> Tiles:
    """Read what a user says of tiles.

    Parameters
    ----------
    value : sequence of two ints, "native" or None

    Raises
    ------
    ValueError
        If it is nothing of these.

    Examples
    --------
    >>> as_tiles([2, 3])
    (2, 3)
    """
    if value is None or (isinstance(value, str) and value == NATIVE):
        return value
    counts = tuple(value) if isinstance(value, Sequence | np.ndarray) else ()
    if isinstance(value, str) or len(counts) != 2 or not all(map(_is_count, counts)):
        raise ValueError(
            "tiles must be two positive integers, (rows, columns); 'native', as many as each image "
            f"needs at its own resolution; or None; got {value!r}."
        )
    return int(counts[0]), int(counts[1])


def make_tiling(tiles: Tiles, tile: Size, stride: int) -> Tiling | None:
    """Lay tiles out.

    Parameters
    ----------
    tiles : tuple of two ints, "native" or None
    tile : int or tuple of two ints
        What the network sees of a tile, in pixels.
    stride : int
        Of the deepest layer in use: seams lie between its positions.

    Returns
    -------
    Tiling or None
        None without tiles.

    Raises
    ------
    ValueError
        If a tile is no multiple of the stride, or so small that nothing would be left of it.
    """
    if tiles is None:
        return None
    sides = height_and_width(tile)
    for side in sides:
        if side % stride or side < _LARGEST_MARGIN * stride:
            below = max(side // stride, _LARGEST_MARGIN) * stride
            raise ValueError(
                f"image_size={tile}: with tiles, each side must be a multiple of {stride}, the stride "
                f"of the deepest layer, and at least {_LARGEST_MARGIN * stride}: use {below} or "
                f"{below + stride}."
            )
    margins = [min(_MARGIN_STRIDES, side // stride // _LARGEST_MARGIN) * stride for side in sides]
    rows, columns = (None, None) if isinstance(tiles, str) else tiles
    return Tiling(tile, rows, columns, (margins[0], margins[1]), stride)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _in_cells(pixels: slice, cell: int) -> slice:
    return slice(pixels.start // cell, pixels.stop // cell)


def _along(place: int, n: int, side: int, margin: int, extent: int) -> tuple[slice, slice, slice]:
    """Where a tile lies along one side of the canvas: all of it, its core, and its core in the tile."""
    nominal = place * (side - 2 * margin)
    start = min(nominal, extent - side)  # the last one may overlap more
    first = nominal + margin if place > 0 else 0
    last = nominal + side - margin if place < n - 1 else extent
    return slice(start, start + side), slice(first, last), slice(first - start, last - start)
