"""What a user may hold as X: a table, for scikit-learn to validate, or a collection of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skad._common.forks import ObjectLock
from skad._common.numbers import refuse_masked
from skad._common.text import shortened

from .items import (
    WANTED,
    Element,
    Slice,
    Strip,
    describe,
    is_array,
    is_encoded,
    is_image_item,
    is_path,
    is_tensor,
    n_dims,
    type_name,
)
from .pixels import CHANNELS
from .strangers import is_missing, problem_of, refuse_strangers


def is_rows(X: Any) -> bool:
    """Whether X is a table, for scikit-learn to validate, and not a collection of images.

    Parameters
    ----------
    X : object
        Whatever the user passed.

    Returns
    -------
    bool
        False for a list, tuple, Series, 1-D array or table of one column with an image in it (path,
        Pillow image, encoded image, array of two or more dimensions), for an empty list, for an array
        or tensor of three or more dimensions, and for other things with a length and elements. True
        for everything else, which scikit-learn refuses if it is not a table.

    Raises
    ------
    TypeError
        If X is one path, one encoded image or one Pillow image, can only be iterated over, or holds
        objects that are not images themselves (uploads, records, None).
    ValueError
        If X is a table of several columns with images in it, or something in it is masked.
    """
    if is_stack(X):
        return False
    refuse_single(X)
    refuse_masked(X, "X")
    if (n_dims(X) or 0) >= 3 and (is_array(X) or hasattr(X, "__getitem__")):
        return False
    items = as_items(X)
    if items is None:
        _refuse_several_columns(X)
        return True
    if isinstance(items, Elements) or len(items) == 0 or any(map(is_image_item, items)):
        return False
    if all(map(is_missing, items)):
        raise TypeError(f"image 0 ({type_name(items[0])}): {WANTED}.")
    for i, row in enumerate(items):
        refuse_masked(row, f"row {i} of X")
        problem = problem_of(row)
        if problem is not None:
            raise TypeError(f"image {i}: {problem}.")
    return True


def is_stack(X: Any) -> bool:
    """Whether X is what most users pass: images in one NumPy array of numbers, whatever its layout."""
    return type(X) is np.ndarray and X.ndim >= 3 and X.dtype.kind in "buif"


def check_batch_layout(shape: tuple[int, ...], *, of_tensor: bool = False) -> None:
    """Check the shape of many images in one array.

    Parameters
    ----------
    shape : tuple of int
        (n, H, W) is grey, (n, H, W, C) has 1, 3 or 4 channels.
    of_tensor : bool, default=False
        Of a torch tensor: (3, H, W) and (4, H, W) are one colour image there, more often than not.

    Raises
    ------
    ValueError
        If the shape is neither, with the remedy for the two usual slips: channels first, and one
        colour image in place of many.
    """
    wanted = "images in one array must have the shape (n, H, W) or (n, H, W, C) with C 1, 3 or 4"
    if len(shape) == 4 and shape[3] in CHANNELS:
        return
    if len(shape) == 4 and shape[1] in CHANNELS:
        raise ValueError(
            f"{wanted}, channels last (NHWC); got {shape}, which looks like NCHW. Transpose it: "
            "np.moveaxis(X, 1, -1), or X.permute(0, 2, 3, 1) for a tensor."
        )
    if len(shape) != 3:
        raise ValueError(f"{wanted} (NHWC); got {shape}.")
    if shape[2] in (3, 4):
        raise ValueError(
            f"{wanted} (NHWC); got {shape}, which looks like one colour image: wrap it in a "
            "list, [image]."
        )
    if of_tensor and shape[0] in (3, 4):
        raise ValueError(
            f"X is a tensor of the shape {shape}, which is one colour image with channels first to "
            f"torch, and {shape[0]} grey images by its shape. Pass [X.permute(1, 2, 0)] for the one "
            "image, list(X) for the grey ones."
        )


def as_items(X: Any) -> Sequence[Any] | None:
    """View a collection of images as a sequence of items; None if X is not a collection of images.

    Parameters
    ----------
    X : object
        List, tuple, Series, 1-D array, table of one column, data set.

    Returns
    -------
    sequence or None
    """
    if isinstance(X, (list, tuple)):
        return _of_single_cells(X)
    if _is_dataset(X):
        return Elements(X)
    values = column_values(X)
    if values is not None and (values.dtype.kind in "OUT" or values.size == 0):
        return values  # type: ignore[return-value]
    return None


class Elements(Sequence[Any]):
    """A user's data set: has a length, and elements that are read when they are asked for."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._lock = dataset, ObjectLock()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: Any) -> Any:
        return Element(self._dataset, i, self._lock)


class Slices(Sequence[Any]):
    """Images of an array that is not in memory, each read when it is asked for."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def __getitem__(self, i: Any) -> Any:
        return Slice(self._array, i)


class Rows(Sequence[Any]):
    """Flattened images, given their shape back one at a time."""

    def __init__(self, rows: np.ndarray, image_shape: tuple[int, ...] | None) -> None:
        self._rows = rows
        self._image_shape = image_shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        row = self._rows[i]
        return Strip(row) if self._image_shape is None else row.reshape(self._image_shape)


def _of_single_cells(X: Sequence[Any]) -> Sequence[Any]:
    """Take the cells of rows that have one each: what ``frame[["path"]].values.tolist()`` gives."""
    if len(X) and all(isinstance(row, (list, tuple)) and len(row) == 1 for row in X):
        cells = [row[0] for row in X]
        return cells if any(map(is_image_item, cells)) else X
    return X


def _is_dataset(X: Any) -> bool:
    """Whether X has a length and elements, and is neither an array, nor a table, nor a mapping."""
    others = ["__array__", "to_numpy", "keys"]
    if not hasattr(X, "column_names"):
        others.append("shape")  # Hugging Face's data sets count rows and columns in theirs
    return (
        hasattr(X, "__len__")
        and hasattr(X, "__getitem__")
        and not isinstance(X, type)
        and not any(hasattr(X, name) for name in others)
    )


def column_values(X: Any) -> np.ndarray | None:
    """Values of a Series, a 1-D array or the only column of a table (pandas, polars, NumPy)."""
    tables = ("to_numpy", "column_names")  # the latter: pyarrow
    if is_tensor(X) or not (isinstance(X, np.ndarray) or any(hasattr(X, name) for name in tables)):
        return None
    shape = X.shape if isinstance(getattr(X, "shape", None), tuple) else (len(X),)
    if len(shape) != 1 and shape[1:] != (1,):
        return None
    values = X if isinstance(X, np.ndarray) else np.asarray(X)
    return values[:, 0] if values.ndim == 2 else values


def refuse_single(X: Any) -> None:
    """Refuse a single image, and what has no length or cannot be indexed.

    Parameters
    ----------
    X : object
        Whatever the user passed.

    Raises
    ------
    TypeError
        See `is_rows`.
    """
    refuse_strangers(X)
    if is_path(X) and os.fspath(X):
        name = describe(X)
        if (
            "\0" not in os.fsdecode(X)
            and len(os.fspath(X)) < 4096
            and Path(os.fsdecode(X)).is_dir()
        ):
            raise TypeError(
                f"X is a folder ({name}): pass the files in it, skad.datasets.list_images({name})."
            )
        if "*" in os.fsdecode(X):
            raise TypeError(f"X is a pattern ({name}): pass the files, sorted(glob.glob({name})).")
    if is_path(X) or isinstance(X, Image.Image) or is_encoded(X):
        raise TypeError(f"X is a single image ({describe(X)}): wrap it in a list, [X].")
    if hasattr(X, "__next__"):
        raise TypeError("X is an iterator, which can be read only once: wrap it in list(X).")
    by_number = ("__getitem__", "__array__", "shape")
    if hasattr(X, "__iter__") and not any(hasattr(X, name) for name in by_number):
        raise TypeError(
            f"X is a {type_name(X)}, which cannot be indexed: wrap it in list(X). "
            "Instead of a DataLoader, pass the images of its data set one by one."
        )


def _refuse_several_columns(X: Any) -> None:
    """Say which column is wanted where a table holds images among other things."""
    shape = getattr(X, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or not shape[0] or shape[1] < 2:
        return
    is_frame = hasattr(X, "columns") and hasattr(X, "head")
    if is_frame:
        cells = list(zip(X.columns, np.asarray(X.head(1))[0], strict=True))
    elif isinstance(X, np.ndarray) and X.dtype.kind in "OUT":
        cells = list(enumerate(X[0]))
    else:
        return
    found = [name for name, cell in cells if _names_image(cell)]
    if found:
        take = f"X[{shortened(repr(found[0]), 60)}]" if is_frame else f"X[:, {found[0]}]"
        raise ValueError(
            f"X is a table of {shape[1]} columns that hold images or text. Pass only the column "
            f"of images, such as {take}."
        )


def _names_image(cell: Any) -> bool:
    return is_path(cell) or isinstance(cell, Image.Image) or is_encoded(cell) or is_array(cell)
