"""Large images read piece by piece, and the canvas of one made window by window.

Arrays (of NumPy, also mapped from a file; of zarr or h5py) and TIFF files whose strips or tiles can be
decoded one by one are read where they are needed. Everything else is decoded as a whole.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from skad._common.forks import LOADING, ObjectLock

from .decode import as_ndarray
from .geometry import Geometry
from .items import Slice, is_path
from .opening import naming
from .pixels import canonical, check_layout
from .placement import Placement
from .roi import Mask

# Pixels of an image above which it is read, and resized, in pieces.
LARGE = 1 << 24
# Of TIFF: a tag, and values of others.
_TAG_ORIENTATION, _GREY, _RGB, _CONTIGUOUS, _JPEG = 274, 1, 2, 1, (6, 7)


class Pieces(Protocol):
    """An image that is read piece by piece."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it lies in memory."""

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Return a piece as (h, w, 3), uint8 or float32 in 0..1."""


class ArrayPieces(NamedTuple):
    """An array, in memory or behind a file."""

    array: Any
    name: str
    is_whole: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return check_layout(tuple(self.array.shape), self.name)[:2]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Return a piece as (h, w, 3), uint8 or float32 in 0..1."""
        return canonical(as_ndarray(self.array[rows, columns], self.name), self.name)


class _SlicePieces(NamedTuple):
    """One image of an array that is not in memory."""

    image: Slice
    name: str
    is_whole: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return check_layout(self.image.shape, self.name)[:2]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        piece = np.asarray(self.image.array[self.image.i, rows, columns])
        return canonical(piece, self.name)


class _TiffPieces:
    """The first page of a TIFF file, whose strips or tiles are decoded where they are needed.

    The last ones are kept: the next window needs most of them again.
    """

    is_whole = False

    def __init__(self, path: Any, page: Any, name: str) -> None:
        self._path, self._page, self._name = path, page, name
        self.shape = (page.imagelength, page.imagewidth)
        self._side = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
        )
        self._kept: dict[int, np.ndarray] = {}
        self._lock = ObjectLock()

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Return a piece as (h, w, 3), uint8 or float32 in 0..1."""
        piece = np.empty(
            (rows.stop - rows.start, columns.stop - columns.start, self._page.samplesperpixel),
            dtype=self._page.dtype,
        )
        height, width = self._side
        with naming(self._path, self._name), self._lock, open(self._path, "rb") as file:
            needed: dict[int, np.ndarray] = {}
            for row in range(rows.start // height, -(-rows.stop // height)):
                for column in range(columns.start // width, -(-columns.stop // width)):
                    number = row * -(-self.shape[1] // width) + column
                    known = self._kept.get(number)
                    needed[number] = self._decoded(file, number) if known is None else known
                    corner = row * height - rows.start, column * width - columns.start
                    _lay(piece, needed[number], *corner)
            self._kept = needed
        return canonical(piece, self._name)

    def _decoded(self, file: Any, number: int) -> np.ndarray:
        file.seek(self._page.dataoffsets[number])
        encoded = file.read(self._page.databytecounts[number])
        segment = self._page.decode(encoded, number)[0]
        if segment is None:
            raise ValueError(f"strip or tile {number} is empty")
        return segment[0]  # of one plane: (length, width, samples)


def _lay(piece: np.ndarray, segment: np.ndarray, top: int, left: int) -> None:
    """Write what of a segment lies in a piece, from row `top` and column `left` of the piece on."""
    rows = slice(max(0, top), max(0, min(len(piece), top + len(segment))))
    columns = slice(max(0, left), max(0, min(piece.shape[1], left + segment.shape[1])))
    piece[rows, columns] = segment[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]


def pieces_of(item: Any, name: str) -> Pieces | None:
    """Tell how an item is read piece by piece, if that is possible.

    Parameters
    ----------
    item : path, array, ...
        One image of X.
    name : str
        How errors call it.

    Returns
    -------
    Pieces or None
        None where it must be decoded as a whole.
    """
    if isinstance(item, np.ndarray):
        return ArrayPieces(item, name)
    if isinstance(item, Slice):
        return _SlicePieces(item, name)
    return _tiff_pieces(item, name) if is_path(item) else None


def _tiff_pieces(path: Any, name: str) -> _TiffPieces | None:
    with suppress(ImportError, OSError, ValueError):
        with LOADING:
            import tifffile
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            if len(file.pages) == 1 and _is_plain(page):
                pieces = _TiffPieces(path, page, name)
                pieces.read(slice(0, 1), slice(0, 1))  # its compression may need another package
                return pieces
    return None


def _is_plain(page: Any) -> bool:
    """Whether the numbers of a TIFF page are what Pillow makes of them: grey or RGB, upright."""
    orientation = page.tags.get(_TAG_ORIENTATION)
    return (
        int(page.photometric) in (_GREY, _RGB)
        and page.samplesperpixel in (1, 3)
        and (page.samplesperpixel == 1 or int(page.planarconfig) == _CONTIGUOUS)
        and page.imagedepth == 1
        and page.dtype is not None
        and page.dtype.name in ("uint8", "uint16")
        and int(page.compression) not in _JPEG
        and (orientation is None or orientation.value == 1)
    )


class WindowedCanvas:
    """The canvas of a large image, whose windows are made when they are asked for.

    Parameters
    ----------
    pieces : Pieces
    geometry : Geometry
    mask : Mask or None
        What lies outside is made grey.

    Attributes
    ----------
    shape : tuple of three ints
    nbytes : int
        That it keeps in memory.

    Notes
    -----
    A window is resized from the pixels that it depends on, as the whole would be. A value may round to
    the next grey level, since Pillow resizes rows or columns first, whichever costs less.
    """

    def __init__(self, pieces: Pieces, geometry: Geometry, mask: Mask | None) -> None:
        self._pieces, self._mask = pieces, mask
        self._sides = geometry.placement(*pieces.shape)
        self.shape = (*geometry.canvas_of(*pieces.shape), 3)
        self.nbytes = 3 * math.prod(pieces.shape) if pieces.is_whole else 0

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        wanted = [_Along.of(side, some) for side, some in zip(self._sides, window, strict=True)]
        rows, columns = wanted
        piece = self._pieces.read(rows.source, columns.source)
        if self._mask is not None:
            piece = Mask(self._mask.inside[rows.source, columns.source]).blank(piece)
        resized = _resized(piece, rows, columns)
        padding = (rows.padding, columns.padding, (0, 0))
        return np.pad(resized, padding, mode="edge") if np.any(padding) else resized


class _Along(NamedTuple):
    """What a window needs along one side."""

    source: slice
    """Pixels of the image."""
    box: tuple[float, float]
    """Of these, where the window begins and ends."""
    length: int
    """Of the window without padding."""
    padding: tuple[int, int]
    is_copied: bool
    """Whether nothing is resized."""

    @classmethod
    def of(cls, side: Placement, window: slice) -> _Along:
        start, stop = side.content()
        # A window in padding repeats the pixel at the rim.
        first = min(max(window.start, start), stop - 1)
        last = max(min(window.stop, stop), first + 1)
        scale = side.length / side.resized
        begin, end = ((edge - side.offset) * scale for edge in (first, last))
        if side.length == side.resized:
            source = slice(first - side.offset, last - side.offset)
        else:
            reach = max(scale, 1.0) + 1  # of Pillow's bilinear filter, and a pixel
            source = slice(
                max(0, math.floor(begin - reach)), min(side.length, math.ceil(end + reach))
            )
        before = max(0, min(first, window.stop - 1) - window.start)
        length = last - first
        return cls(
            source,
            (begin - source.start, end - source.start),
            length,
            (before, window.stop - window.start - before - length),
            side.length == side.resized,
        )


def _resized(piece: np.ndarray, rows: _Along, columns: _Along) -> np.ndarray:
    if rows.is_copied and columns.is_copied:
        return piece
    size, box = (
        (columns.length, rows.length),
        (columns.box[0], rows.box[0], columns.box[1], rows.box[1]),
    )
    planes = [piece] if piece.dtype == np.uint8 else list(np.moveaxis(piece, 2, 0))
    resized = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane)).resize(
                size, Image.Resampling.BILINEAR, box=box
            )
        )
        for plane in planes
    ]
    return resized[0] if len(resized) == 1 else np.stack(resized, axis=2)
