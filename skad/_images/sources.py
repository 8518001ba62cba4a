"""Every kind of X behind one interface: a sequence of items that are decoded when asked for.

A source holds the user's list as it is. A list of 100,000 paths costs nothing until it is read,
and a subset is an index into the same list, so errors name an image by its position in the user's X.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image

from skad._common.text import shortened

from . import decode
from .columns import Rows, Slices, as_items, check_batch_layout, is_stack
from .items import Strip, describe, is_array, is_late, is_tensor, n_dims
from .opening import UnreadableImageError
from .pieces import LARGE, ArrayPieces, Pieces, pieces_of
from .remarks import say_pages, say_remarks
from .threads import ordered_map

# Checking files waits for the disk (often one across the network), not for the CPU.
_CHECK_WORKERS = 8
_CHECK_CHUNK = 64


class ImageSource:
    """A sequence of images, decoded when asked for.

    Parameters
    ----------
    items : sequence
        Paths, Pillow images, encoded images, arrays or strips; mixed as you like.
    index : ndarray of shape (n,) of int64, default=None
        Which items this source consists of, in order; None for all.

    Attributes
    ----------
    windowed : bool
        Set where large images are looked at piece by piece: then what can be read in this way may be
        larger than Pillow's limit, which is on decoding at once.
    """

    def __init__(self, items: Sequence[Any], index: np.ndarray | None = None) -> None:
        self._items = items
        self._index = index
        self._min_side = 1
        # Shapes of images that are not known before they are read, by position in the user's X.
        self._seen: dict[int, tuple[int, int]] = {}
        self.windowed = False

    def __len__(self) -> int:
        return len(self._items) if self._index is None else len(self._index)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} images>"

    def _position(self, i: int) -> int:
        """Position of image `i` in the user's X."""
        return range(len(self._items))[i] if self._index is None else int(self._index[i])

    def load(self, i: int) -> np.ndarray:
        """Decode one image.

        Parameters
        ----------
        i : int
            Its number in this source.

        Returns
        -------
        ndarray of shape (H, W, 3)
            uint8 (0..255) where 8 bits hold the image exactly, else float32 in 0..1. It may be a
            view of the user's array: not to be written into.

        Raises
        ------
        ValueError
            If the image cannot be read or its numbers are no pixels; the message names it.
        """
        item = self._items[self._position(i)]
        image = decode.decode(item, self.describe(i))
        if is_late(item):
            height, width = image.shape[:2]
            self._seen[self._position(i)] = height, width
            self._check_side(i, min(height, width))
        return image

    def pieces(self, i: int, *, whole: np.ndarray | None = None) -> Pieces | None:
        """Tell how a large image is read piece by piece.

        Parameters
        ----------
        i : int
            Its number in this source.
        whole : ndarray of shape (H, W, 3), default=None
            The image, where it was decoded already.

        Returns
        -------
        Pieces or None
            None for an image that is not large. One that can only be decoded as a whole is.
        """
        height, width = self.shape(i) if whole is None else whole.shape[:2]
        if height * width <= LARGE:
            return None
        name = self.describe(i)
        pieces = pieces_of(self._items[self._position(i)], name) if whole is None else None
        return pieces or ArrayPieces(self.load(i) if whole is None else whole, name, True)

    def is_known(self, i: int) -> bool:
        """Whether anything is known of an image before it is read."""
        return not is_late(self._items[self._position(i)])

    def bytes_to_decode(self, i: int) -> int:
        """Bytes that a large image takes which can only be decoded as a whole; 0 for others."""
        height, width = self.shape(i)
        item = self._items[self._position(i)]
        if height * width <= LARGE or pieces_of(item, self.describe(i)) is not None:
            return 0
        return 3 * height * width

    def stacked(self, indices: Sequence[int]) -> np.ndarray | None:
        """Take images that are in one array of uint8 pixels, all at once.

        Parameters
        ----------
        indices : sequence of int
            Their numbers in this source, at least one.

        Returns
        -------
        ndarray of shape (len(indices), H, W, 3), uint8, C-contiguous; or None
            What `load` gives for each; it may be a view of the user's array. None where they must be
            decoded one by one.
        """
        if not self._lies_ready():
            return None
        items: Any = self._items
        positions = np.asarray(indices if self._index is None else self._index[indices])
        first, last = int(positions[0]), int(positions[-1])
        in_a_row = (np.diff(positions) == 1).all()
        pixels = items[first : last + 1] if in_a_row else items[positions]
        # A read-only array is copied: torch warns of it.
        return np.require(pixels, requirements=["C", "W"])

    def _lies_ready(self) -> bool:
        items: Any = self._items
        return type(items) is np.ndarray and items.dtype == np.uint8 and items.shape[3:] == (3,)

    def shape(self, i: int) -> tuple[int, int]:
        """Tell the height and width of one image, from the file's header where that is possible.

        Parameters
        ----------
        i : int
            Its number in this source.

        Returns
        -------
        height, width : int
            The shape that `load` gives, after the turn that EXIF asks for.
        """
        position = self._position(i)
        if position in self._seen:
            return self._seen[position]
        item = self._items[position]
        try:
            shape = decode.shape(item, self.describe(i))
        except UnreadableImageError as error:
            shape = self._shape_of_pieces(i, error)
        if is_late(item):
            self._seen[position] = shape
        return shape

    def _shape_of_pieces(self, i: int, error: UnreadableImageError) -> tuple[int, int]:
        """Tell the size of what Pillow finds too large, where it is read piece by piece."""
        position, pieces = self._position(i), None
        if self.windowed and isinstance(error.__cause__, Image.DecompressionBombError):
            pieces = pieces_of(self._items[position], self.describe(i))
        if pieces is None:
            raise error
        self._seen[position] = pieces.shape
        return pieces.shape

    def known_shapes(self) -> list[tuple[int, tuple[int, int]]]:
        """Tell the number, height and width of each image that need not be read as a whole for that."""
        known = (
            i
            for i in range(len(self))
            if self._position(i) in self._seen or not is_late(self._items[self._position(i)])
        )
        return [(i, self.shape(i)) for i in known]

    def describe(self, i: int) -> str:
        """Name one image for an error message.

        Parameters
        ----------
        i : int
            Its number in this source.

        Returns
        -------
        str
            Its position in the user's X and what it is: ``image 517 ('/data/x.png')``.
        """
        position = self._position(i)
        return f"image {position} ({describe(self._items[position])})"

    def subset(self, indices: Any) -> ImageSource:
        """Choose images.

        Parameters
        ----------
        indices : array-like of int or bool, or slice
            As in NumPy indexing.

        Returns
        -------
        ImageSource
            Holds the same items; `describe` still tells their positions in the user's X.
        """
        index = np.arange(len(self._items)) if self._index is None else self._index
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            if indices.dtype.kind != "b":
                indices = indices.astype(np.int64, casting="safe" if indices.size else "unsafe")
        chosen = copy(self)
        chosen._index = index[indices]
        return chosen

    def check(self, min_side: int = 1) -> None:
        """Check all images before any work starts.

        Files are opened but not decoded (missing, a directory, no image, numbers that Pillow would
        change); arrays in memory are checked in full (layout, type, NaN, range). What is not in
        memory (zarr, h5py, data sets) is checked as far as it is known without being read.

        Parameters
        ----------
        min_side : int, default=1
            The least number of pixels along the shorter side. Rows without an image shape are
            exempt.

        Raises
        ------
        ValueError
            For the first image at fault, naming it and the remedy.

        Warns
        -----
        ImageFileWarning
            Once for all files with several pages, once for all that Pillow warns about.
        """
        self._min_side = min_side
        n_images = len(self)
        if n_images and self._lies_ready():
            # They have one shape, and every uint8 number is a pixel.
            side = min(self._items.shape[1:3])  # type: ignore[attr-defined]
            if side < min_side:
                self._check_side(0, side)
            return
        starts = range(0, n_images, _CHECK_CHUNK)

        def check_chunk(start: int) -> list[tuple[int, decode.Checked]]:
            found = [
                (i, self._check_one(i)) for i in range(start, min(start + _CHECK_CHUNK, n_images))
            ]
            return [(i, one) for i, one in found if one.n_pages > 1 or one.remarks]

        n_workers = min(_CHECK_WORKERS, len(starts)) if len(starts) > 1 else 0
        chunks = ordered_map(check_chunk, starts, n_workers=n_workers, window=2 * _CHECK_WORKERS)
        found = [(self.describe(i), checked) for chunk in chunks for i, checked in chunk]
        say_pages(found)
        say_remarks(found)

    def _check_one(self, i: int) -> decode.Checked:
        try:
            checked = decode.check(self._items[self._position(i)], self.describe(i))
        except UnreadableImageError as error:
            checked = decode.Checked(min(self._shape_of_pieces(i, error)))
        if checked.side is not None:
            self._check_side(i, checked.side)
        return checked

    def _check_side(self, i: int, side: int) -> None:
        if side < self._min_side and not isinstance(self._items[self._position(i)], Strip):
            height, width = self.shape(i)
            raise ValueError(
                f"{self.describe(i)}: is {height} x {width} pixels (height x width), but the "
                f"shorter side must have at least {self._min_side}. Enlarge the image, or leave it "
                "out."
            )


def as_image_source(X: Any, *, image_shape: Sequence[int] | None = None) -> ImageSource:
    """Make an image source of what the user passed.

    Parameters
    ----------
    X : list, tuple, column or data set of images; array or tensor of images; ndarray of rows
        Images in one array have the shape (n, H, W) or (n, H, W, C). A 2-D ndarray of numbers holds
        one flattened image per row, and has passed scikit-learn's validation.
    image_shape : (H, W) or (H, W, C), default=None
        The shape of a flattened image; ignored unless X holds rows. None shows each row as a grey
        strip, one pixel high, with its numbers taken as they are, whatever their type.

    Returns
    -------
    ImageSource
        Nothing is read yet; `ImageSource.check` checks the images.

    Raises
    ------
    ValueError
        If there are no images, the array has another layout, or `image_shape` does not match the
        number of columns.
    TypeError
        If X holds no images at all.
    """
    if is_stack(X):
        check_batch_layout(X.shape)
        items = X
    else:
        items = as_items(X)
    if items is None and (is_array(X) or (n_dims(X) or 0) >= 3):
        items = _rows(X, image_shape) if n_dims(X) == 2 else _batch(X)
    if items is None:
        raise TypeError(
            f"X must hold images: paths, Pillow images or arrays; got {shortened(repr(type(X)), 100)}."
        )
    if len(items) == 0:
        raise ValueError(
            "no images: found 0 sample(s) in X, while a minimum of 1 is required. If X came from a "
            "pattern such as '*.jpg': skad.datasets.list_images(folder) finds .JPG and .jpeg as well."
        )
    return ImageSource(items)


def _batch(X: Any) -> Any:
    """Take an array or tensor of images as a sequence of images."""
    check_batch_layout(tuple(X.shape), of_tensor=is_tensor(X))
    return X if isinstance(X, np.ndarray) or is_tensor(X) else Slices(X)


def _rows(X: np.ndarray, image_shape: Sequence[int] | None) -> Rows:
    if image_shape is None:
        return Rows(np.asarray(X), None)
    sides = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    valid = all(_is_side(side) for side in sides)
    if not valid or len(sides) not in (2, 3) or (len(sides) == 3 and sides[2] not in (1, 3, 4)):
        raise ValueError(
            "image_shape must be (H, W) or (H, W, C), of positive integers, with C 1, 3 or 4; got "
            f"{shortened(repr(image_shape))}."
        )
    sides = tuple(int(side) for side in sides)
    expected = int(np.prod(sides, dtype=np.int64))
    if X.shape[1] != expected:
        raise ValueError(
            f"X has {X.shape[1]} columns, but images of image_shape={sides} have {expected} values."
        )
    return Rows(np.asarray(X), sides)


def _is_side(side: object) -> bool:
    return isinstance(side, Integral) and not isinstance(side, bool) and int(side) >= 1
