"""What may be one image in X, told apart by its methods and attributes; nothing is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from skad._common.forks import ObjectLock
from skad._common.text import shortened

WANTED = (
    "an image must be a path, a Pillow image, an array, or an encoded image as bytes or as a file "
    "opened in binary mode"
)


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of a table without an image shape: shown as a grey strip, one pixel high."""

    values: np.ndarray


class Slice:
    """One image of an array that is not in memory (zarr, h5py, dask): read when asked for."""

    def __init__(self, array: Any, i: int) -> None:
        self.array, self.i = array, i
        self.shape: tuple[int, ...] = tuple(array.shape[1:])
        self.ndim, self.dtype = len(self.shape), array.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array[self.i], dtype=dtype)


class Element:
    """One element of a user's data set; nothing is known of it before it is read."""

    def __init__(self, dataset: Any, i: int, lock: ObjectLock) -> None:
        self._dataset, self._i, self._lock = dataset, i, lock

    def __repr__(self) -> str:
        return f"{type_name(self._dataset)}[{self._i}]"

    def read(self) -> Any:
        """Read the element, one thread at a time: data sets need not be safe for threads."""
        with self._lock:
            return self._dataset[self._i]


def is_path(item: object) -> bool:
    """Whether an item names a file."""
    return isinstance(item, (str, os.PathLike))


def is_file(item: object) -> bool:
    """Whether an item is an open file, or can be used as one."""
    return all(callable(getattr(item, name, None)) for name in ("read", "seek", "tell"))


def is_encoded(item: object) -> bool:
    """Whether an item is the content of an image file, in memory or to be read from an open file."""
    if isinstance(item, memoryview):
        return item.ndim == 1 and item.itemsize == 1
    return isinstance(item, (bytes, bytearray)) or (
        is_file(item) and not isinstance(item, Image.Image)
    )


def is_tensor(item: object) -> bool:
    """Whether an item is a torch tensor, told by its methods: torch need not be imported."""
    return all(hasattr(item, name) for name in ("detach", "cpu", "numpy", "ndim"))


def n_dims(item: object) -> int | None:
    """Count the dimensions of an item; None if they are not known before it is read."""
    ndim = getattr(item, "ndim", None)
    if ndim is None:
        return len(item.shape) if isinstance(getattr(item, "shape", None), tuple) else None  # type: ignore[attr-defined]
    return ndim if isinstance(ndim, int) else None


def is_array(item: object) -> bool:
    """Whether an item is an array with two dimensions or more."""
    known = isinstance(item, np.ndarray) or is_tensor(item) or hasattr(item, "__array__")
    return known and (n_dims(item) or 0) >= 2


def is_late(item: object) -> bool:
    """Whether nothing is known of an item, not even its shape, before it is read."""
    return isinstance(item, Element) or (
        hasattr(item, "__array__") and not isinstance(item, type) and n_dims(item) is None
    )


def is_lazy(item: object) -> bool:
    """Whether the numbers of an array are read, or computed, each time they are asked for."""
    in_memory = isinstance(item, np.ndarray) or is_tensor(item)
    return is_late(item) or (not in_memory and hasattr(item, "__array__"))


def is_image_item(item: object) -> bool:
    """Whether an item of a list is one image."""
    return (
        is_path(item)
        or isinstance(item, Image.Image)
        or is_array(item)
        or is_encoded(item)
        or is_late(item)
    )


def type_name(item: Any) -> str:
    """Name the type of an item, in short."""
    return shortened(type(item).__name__, 60)


def describe(item: Any) -> str:
    """Say in a few words what an item is, for error messages.

    Returns
    -------
    str
        A path in quotes; else kind and shape. Never long.
    """
    if is_path(item):
        return shortened(repr(os.fspath(item)))
    if isinstance(item, Strip):
        return f"row of {item.values.size} values"
    if isinstance(item, Image.Image):
        filename = getattr(item, "filename", "")
        origin = f" {shortened(repr(filename))}" if filename else ""
        return f"Pillow image{origin}, mode {item.mode}, {item.width} x {item.height}"
    if is_array(item):
        dtype = shortened(str(getattr(item, "dtype", "of unknown type")), 60)
        return f"array of shape {tuple(item.shape)}, {dtype}"
    if isinstance(item, (bytes, bytearray, memoryview)):
        return f"{len(item)} bytes"
    if is_encoded(item):
        filename = getattr(item, "name", None)
        return (
            f"file {shortened(repr(filename))}" if isinstance(filename, str) else "file in memory"
        )
    return repr(item) if isinstance(item, Element) else type_name(item)
