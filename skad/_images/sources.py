"""What users hold, behind one face: a sequence of items that become images when asked for.

A source holds the user's list as it is. A list of 100,000 paths costs nothing until it is read,
and a subset is an index into the same list, so errors name an image by its place in the user's X.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image

from . import decode
from .pixels import check_batch_layout
from .threads import ordered_map

# Checking files waits for the disk (often one across the network), not for the CPU.
_CHECK_WORKERS = 8
_CHECK_CHUNK = 64


def is_rows(X: Any) -> bool:
    """Whether X is a table, for scikit-learn to validate, and not a collection of images.

    Parameters
    ----------
    X : object
        Whatever the user passed.

    Returns
    -------
    bool
        False for a list, tuple, Series or 1-D array with an image in it (path, Pillow image,
        array of two or more dimensions), for an empty list, and for an array or tensor of three or
        more dimensions. True for everything else: what is no table either is scikit-learn's to
        refuse.

    Raises
    ------
    TypeError
        If X is one path, one Pillow image, or an iterator.
    """
    if decode.is_path(X) or isinstance(X, Image.Image):
        raise TypeError(f"X is a single image ({decode.describe(X)}): wrap it in a list, [X].")
    if hasattr(X, "__next__"):
        raise TypeError("X is an iterator, which can be read only once: wrap it in list(X).")
    if getattr(X, "ndim", 1) >= 2:
        return not (decode.is_array(X) and X.ndim >= 3)
    items = _as_items(X)
    return items is None or (len(items) > 0 and not any(map(decode.is_image_item, items)))


def _as_items(X: Any) -> Sequence[Any] | None:
    """View a list, tuple, Series or 1-D array as a sequence of items; None if X is none of them."""
    if isinstance(X, (list, tuple)):
        return X
    if hasattr(X, "to_numpy") and getattr(X, "ndim", 1) == 1:
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.ndim == 1 and (X.dtype.kind in "OU" or X.size == 0):
        return X  # type: ignore[return-value]
    return None


class ImageSource:
    """A sequence of images, decoded when asked for.

    Parameters
    ----------
    items : sequence
        Paths, Pillow images, arrays or strips; mixed as you like.
    index : ndarray of shape (n,) of int64, default=None
        Which items this source consists of, in order; None for all.
    """

    def __init__(self, items: Sequence[Any], index: np.ndarray | None = None) -> None:
        self._items = items
        self._index = index

    def __len__(self) -> int:
        return len(self._items) if self._index is None else len(self._index)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} images>"

    def _position(self, i: int) -> int:
        """Place of image `i` in the user's X."""
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
        return decode.decode(self._items[self._position(i)], self.describe(i))

    def stacked(self, indices: Sequence[int]) -> np.ndarray | None:
        """Take images that lie ready, side by side in one array of pixels, in one go.

        Parameters
        ----------
        indices : sequence of int
            Numbers in this source, one at least.

        Returns
        -------
        ndarray of shape (len(indices), H, W, 3), uint8, C-contiguous; or None
            What `load` gives for each; it may be a view of the user's array. None where they must be
            decoded one by one.
        """
        if not self._lies_ready():
            return None
        items: Any = self._items
        positions = np.asarray([self._position(i) for i in indices])
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
        return decode.shape(self._items[self._position(i)], self.describe(i))

    def describe(self, i: int) -> str:
        """Name one image for an error message.

        Parameters
        ----------
        i : int
            Its number in this source.

        Returns
        -------
        str
            Its place in the user's X and what it is: ``image 517 ('/data/x.png')``.
        """
        position = self._position(i)
        return f"image {position} ({decode.describe(self._items[position])})"

    def subset(self, indices: Any) -> ImageSource:
        """Choose images.

        Parameters
        ----------
        indices : array-like of int or bool, or slice
            As in NumPy indexing.

        Returns
        -------
        ImageSource
            Holds the same items; `describe` keeps telling their places in the user's X.
        """
        index = np.arange(len(self._items)) if self._index is None else self._index
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            if indices.dtype.kind != "b":
                indices = indices.astype(np.int64, casting="safe" if indices.size else "unsafe")
        return ImageSource(self._items, index[indices])

    def check(self, min_side: int = 1) -> None:
        """Look over all images before any work starts.

        Files are opened but not decoded (missing, a directory, no image); arrays are checked in
        full (layout, type, NaN, range).

        Parameters
        ----------
        min_side : int, default=1
            The least number of pixels along the shorter side. Rows without an image shape are
            no images, and are exempt.

        Raises
        ------
        ValueError
            For the first image at fault, naming it and the remedy.
        """
        # All alike, and no number of 8 bits can be wrong.
        n_images = min(1, len(self)) if self._lies_ready() else len(self)
        starts = range(0, n_images, _CHECK_CHUNK)

        def check_chunk(start: int) -> None:
            for i in range(start, min(start + _CHECK_CHUNK, n_images)):
                self._check_one(i, min_side)

        n_workers = min(_CHECK_WORKERS, len(starts)) if len(starts) > 1 else 0
        for _ in ordered_map(check_chunk, starts, n_workers=n_workers, window=2 * _CHECK_WORKERS):
            pass

    def _check_one(self, i: int, min_side: int) -> None:
        item = self._items[self._position(i)]
        side = decode.check(item, self.describe(i))
        if side < min_side and not isinstance(item, decode.Strip):
            height, width = self.shape(i)
            raise ValueError(
                f"{self.describe(i)}: is {height} x {width} pixels (height x width), but the "
                f"shorter side must have {min_side} at least. Enlarge the image, or leave it out."
            )


class _Rows(Sequence[Any]):
    """Flattened images, given their shape back one at a time."""

    def __init__(self, rows: np.ndarray, image_shape: tuple[int, ...] | None) -> None:
        self._rows = rows
        self._image_shape = image_shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        row = self._rows[i]
        return decode.Strip(row) if self._image_shape is None else row.reshape(self._image_shape)


def as_image_source(X: Any, *, image_shape: Sequence[int] | None = None) -> ImageSource:
    """Make an image source of what the user passed.

    Parameters
    ----------
    X : list, tuple, Series or 1-D array of images; array or tensor of images; ndarray of rows
        Images in one array have the shape (n, H, W) or (n, H, W, C). A 2-D ndarray holds one
        flattened image a row, and has passed scikit-learn's validation.
    image_shape : (H, W) or (H, W, C), default=None
        The shape of a flattened image; of no meaning for anything but rows. None shows each row as
        a grey strip, one pixel high, with floats taken as they are.

    Returns
    -------
    ImageSource
        Nothing is read yet: `ImageSource.check` looks over the images.

    Raises
    ------
    ValueError
        If there are no images, the array has another layout, or `image_shape` does not match the
        number of columns.
    TypeError
        If X holds no images at all.
    """
    items = _as_items(X)
    if items is None and decode.is_array(X):
        items = _rows(X, image_shape) if X.ndim == 2 else _batch(X)
    if items is None:
        raise TypeError(f"X must hold images: paths, Pillow images or arrays; got {type(X)}.")
    if len(items) == 0:
        raise ValueError("no images: found 0 sample(s) in X, while a minimum of 1 is required.")
    return ImageSource(items)


def _batch(X: Any) -> Any:
    """Take an array or tensor of images as a sequence of images."""
    check_batch_layout(tuple(X.shape))
    return X


def _rows(X: np.ndarray, image_shape: Sequence[int] | None) -> _Rows:
    if image_shape is None:
        return _Rows(np.asarray(X), None)
    sides = tuple(image_shape)
    valid = all(isinstance(side, Integral) and side >= 1 for side in sides)
    if not valid or len(sides) not in (2, 3) or (len(sides) == 3 and sides[2] not in (1, 3, 4)):
        raise ValueError(
            f"image_shape must be (H, W) or (H, W, C) with C 1, 3 or 4; got {image_shape!r}."
        )
    expected = int(np.prod(sides, dtype=np.int64))
    if X.shape[1] != expected:
        raise ValueError(
            f"X has {X.shape[1]} columns, but images of image_shape={sides} have {expected} values."
        )
    return _Rows(np.asarray(X), sides)
