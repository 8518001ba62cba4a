"""One item of X -> one canonical image.

An item is a path, a Pillow image, an encoded image (bytes, an open file), an array (NumPy, torch,
anything with ``__array__``) or a row of a table. Every function here takes the item and the name that
errors call it by, keeps no state and may run in any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from skad._common.numbers import refuse_masked
from skad._common.text import shortened

from .depth import check_depth
from .items import (
    WANTED,
    Element,
    Strip,
    describe,
    is_array,
    is_encoded,
    is_late,
    is_lazy,
    is_path,
    is_tensor,
    n_dims,
    type_name,
)
from .notes import listening
from .opening import count_pages, naming, opened
from .orientation import orientation, upright, upright_shape
from .pixels import canonical, check_layout, check_pixels, strip
from .strangers import problem_of

# Pillow modes by the way their pixels are fetched. What has a palette or alpha goes through RGBA,
# because Pillow warns about palettes with transparency on the straight way to RGB.
_AS_NUMBERS = frozenset({"1", "L", "RGB", "F", "I"})
_THROUGH_RGBA = frozenset({"P", "PA", "LA", "RGBA", "RGBa"})
_STRAIGHT_TO_RGB = frozenset({"CMYK", "YCbCr", "HSV", "RGBX"})
# Formats of 16 bits that Pillow opens in its mode of 32 (PNG before 11.3).
_SIXTEEN_BITS = frozenset({"PNG", "PPM"})


class Checked(NamedTuple):
    """What is known of an item before it is decoded."""

    side: int | None
    """Length of the shorter side; None if that cannot be known."""
    n_pages: int = 1
    """Images in its file; the first is used."""
    remarks: tuple[str, ...] = ()
    """Pillow's warnings."""


def decode(item: Any, name: str) -> np.ndarray:
    """Decode one item.

    Parameters
    ----------
    item : path, Pillow image, encoded image, array, Strip or Element
        The image. Pillow images and open files are left as they are.
    name : str
        How errors call it.

    Returns
    -------
    ndarray of shape (H, W, 3)
        The canonical image: uint8, or float32 in 0..1 (a Strip: float32, its numbers as they are).

    Raises
    ------
    ValueError, TypeError
        If the item cannot be read, or is no image of an accepted layout, type and range.
    """
    item, name = _read_element(item, name)
    if isinstance(item, Strip):
        return strip(item.values, name)
    return canonical(as_ndarray(item, name) if _is_numbers(item) else numbers(item, name), name)


def numbers(item: Any, name: str) -> np.ndarray:
    """Take the pixels of a file as they are, upright.

    Parameters
    ----------
    item : path, Pillow image or encoded image
    name : str
        How errors call it.

    Returns
    -------
    ndarray of shape (H, W), (H, W, 3) or (H, W, 4)
        The colours of a palette in place of its numbers; a fourth channel is alpha.

    Raises
    ------
    ValueError, TypeError
        As for `decode`.
    """
    with _opened(item, name) as image:
        _check_mode(image, name)
        with naming(item, name):
            image.load()
            if image.mode in _THROUGH_RGBA:
                array = np.asarray(image.convert("RGBA"))
            elif image.mode in _STRAIGHT_TO_RGB:
                array = np.asarray(image.convert("RGB"))
            else:
                array = np.asarray(image)
            if image.mode == "I" and image.format in _SIXTEEN_BITS:
                array = array.astype(np.uint16)
            return upright(array, orientation(image))


def shape(item: Any, name: str) -> tuple[int, int]:
    """Tell the height and width that `decode` would give, from the file's header if possible.

    Parameters
    ----------
    item, name
        See `decode`.

    Returns
    -------
    height, width : int
        After the turn that EXIF asks for.
    """
    item, name = _read_element(item, name)
    if isinstance(item, Strip):
        return 1, item.values.size
    if is_array(item):
        height, width = check_layout(tuple(item.shape), name)
        return height, width
    if is_late(item):
        height, width = as_ndarray(item, name).shape[:2]
        return height, width
    with _opened(item, name) as image, naming(item, name):
        return upright_shape(image)


def check(item: Any, name: str) -> Checked:
    """Check one item as far as that is cheap: headers of files, all numbers of arrays in memory.

    Parameters
    ----------
    item, name
        See `decode`.

    Returns
    -------
    Checked

    Raises
    ------
    ValueError, TypeError
        See `decode`.
    """
    if is_late(item):
        return Checked(None)
    if isinstance(item, Strip):
        return Checked(min(strip(item.values, name).shape[:2]))
    if is_lazy(item) and n_dims(item):
        # Reading may take long, and happens once, when the image is decoded.
        return Checked(min(check_layout(tuple(item.shape), name)))
    if _is_numbers(item):
        array = as_ndarray(item, name)
        check_pixels(array, name)
        return Checked(min(array.shape[:2]))
    with listening() as heard, _opened(item, name) as image:
        _check_mode(image, name)
        side = min(image.size)
        with naming(item, name):
            if "exif" in image.info:
                orientation(image)  # Pillow warns of damaged EXIF data when they are read
            # A Pillow image shows the page that the user has chosen.
            n_pages = 1 if isinstance(item, Image.Image) else count_pages(image)
        return Checked(side, n_pages, tuple(heard))


def _is_numbers(item: Any) -> bool:
    # NumPy's own texts and bytes are arrays of no dimension too.
    return hasattr(item, "__array__") and not is_path(item) and not is_encoded(item)


def _read_element(item: Any, name: str) -> tuple[Any, str]:
    """Read an element of a data set, and name it; what else it holds than an image is an error."""
    if not isinstance(item, Element):
        return item, name
    with _naming_numbers(name):
        found = item.read()
    if isinstance(found, (tuple, list)):
        raise TypeError(
            f"{name}: is a {type_name(found)} of {len(found)}, but X must hold only images. "
            "Pass them alone: [element[0] for element in X]."
        )
    if hasattr(found, "keys"):
        keys = shortened(", ".join(repr(key) for key in found), 60)
        raise TypeError(
            f"{name}: is a {type_name(found)} with {keys}, but X must hold only images. "
            "Pass the column of images: X['image'], or [element['image'] for element in X]."
        )
    return found, f"{name}, {describe(found)}"


def as_ndarray(item: Any, name: str) -> np.ndarray:
    """Take an array or tensor as one of NumPy's; reads what is not in memory."""
    problem = problem_of(item)
    if problem is not None:
        raise TypeError(f"{name}: {problem}.")
    if isinstance(item, np.ndarray):
        refuse_masked(item, name)
        return np.asarray(item)
    with _naming_numbers(name):
        if is_tensor(item):
            tensor = item.detach().cpu()
            # NumPy has no bfloat16.
            return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
        return np.asarray(item)


@contextmanager
def _naming_numbers(name: str) -> Iterator[None]:
    """Name the image in what the user's own reading raises."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{name}: cannot be read ({type(error).__name__}: {shortened(str(error))})."
        ) from error


@contextmanager
def _opened(item: Any, name: str) -> Iterator[Image.Image]:
    if not (is_path(item) or is_encoded(item) or isinstance(item, Image.Image)):
        raise TypeError(f"{name}: {problem_of(item) or WANTED}.")
    # Pillow's warnings are collected: `check` hands them on, to be shown once.
    with listening(), opened(item, name) as image:
        yield image


def _check_mode(image: Image.Image, name: str) -> None:
    mode = image.mode
    known = mode in _AS_NUMBERS or mode in _THROUGH_RGBA or mode in _STRAIGHT_TO_RGB
    if not (known or mode.startswith("I;16")):
        raise ValueError(f"{name}: colour mode {mode} is not supported. Convert the image to RGB.")
    check_depth(image, name)
