"""One item that a user holds -> one canonical image.

An item is a path, a Pillow image, an array (NumPy, torch, anything with ``__array__``) or a row of
a table. Every function here takes the item and the name that errors call it by, keeps no state and
may run in any thread.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from skad._forks import READING

from .pixels import canonical, check_pixels, strip

_Path: TypeAlias = "str | os.PathLike[str]"

# Pillow modes by the way their pixels are fetched. What has a palette or alpha goes through RGBA,
# because Pillow warns about palettes with transparency on the straight way to RGB.
_AS_NUMBERS = frozenset({"1", "L", "RGB", "F", "I"})
_THROUGH_RGBA = frozenset({"P", "PA", "LA", "RGBA", "RGBa"})
_STRAIGHT_TO_RGB = frozenset({"CMYK", "YCbCr", "HSV", "RGBX"})

# EXIF orientation -> (swap rows and columns first, then the directions to read rows and columns).
_TURNS = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}


class MissingImageError(FileNotFoundError, ValueError):
    """A path in X does not exist: a wrong value to scikit-learn, a missing file to the system."""


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of a table that is no image: shown as a grey strip, one pixel high."""

    values: np.ndarray


# --------------------------------------------------------------------------- kinds of items


def is_path(item: object) -> bool:
    """Whether an item names a file."""
    return isinstance(item, (str, os.PathLike))


def is_tensor(item: object) -> bool:
    """Whether an item is a torch tensor, told by what it can do: torch stays unimported."""
    return all(hasattr(item, name) for name in ("detach", "cpu", "numpy", "ndim"))


def is_array(item: object) -> bool:
    """Whether an item is an array with two dimensions or more."""
    known = isinstance(item, np.ndarray) or is_tensor(item) or hasattr(item, "__array__")
    return known and getattr(item, "ndim", 0) >= 2


def is_image_item(item: object) -> bool:
    """Whether an item of a list is one image: a path, a Pillow image or an array."""
    return is_path(item) or isinstance(item, Image.Image) or is_array(item)


def describe(item: object) -> str:
    """Say in a few words what an item is, for error messages.

    Returns
    -------
    str
        A path in quotes; else kind and shape.
    """
    if is_path(item):
        return repr(os.fspath(item))  # type: ignore[call-overload]
    if isinstance(item, Strip):
        return f"row of {item.values.size} values"
    if isinstance(item, Image.Image):
        filename = getattr(item, "filename", "")
        origin = f" {filename!r}" if filename else ""
        return f"Pillow image{origin}, mode {item.mode}, {item.width} x {item.height}"
    if is_array(item):
        return f"array of shape {tuple(item.shape)}, {item.dtype}"  # type: ignore[attr-defined]
    return type(item).__name__


# --------------------------------------------------------------------------- the three questions


def decode(item: Any, name: str) -> np.ndarray:
    """Decode one item.

    Parameters
    ----------
    item : path, Pillow image, array or Strip
        The image. Pillow images are left as they are, lazily opened ones unloaded.
    name : str
        How errors call it.

    Returns
    -------
    ndarray of shape (H, W, 3)
        The canonical image: uint8, or float32 in 0..1 (a Strip of floats: as they are).

    Raises
    ------
    ValueError
        If the item cannot be read, or is no image of an accepted layout, type and range.
    """
    if is_path(item):
        with _opened(item, name) as image:
            return canonical(_numbers(image, name), name)
    if isinstance(item, Image.Image):
        with _unshared(item, name) as image:
            return canonical(_numbers(image, name), name)
    if isinstance(item, Strip):
        return strip(item.values, name)
    return canonical(_as_ndarray(item, name), name)


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
    if is_path(item):
        with _opened(item, name) as image:
            return _turned_shape(image, name)
    if isinstance(item, Image.Image):
        with _unshared(item, name) as image:
            return _turned_shape(image, name)
    if isinstance(item, Strip):
        return 1, item.values.size
    height, width = _as_ndarray(item, name).shape[:2]
    return height, width


def check(item: Any, name: str) -> int:
    """Check one item as far as that is cheap: headers of files, all numbers of arrays.

    Parameters
    ----------
    item, name
        See `decode`.

    Returns
    -------
    int
        Length of the shorter side.

    Raises
    ------
    ValueError
        See `decode`.
    """
    if is_path(item):
        with _opened(item, name) as image:
            _check_mode(image, name)
            return min(image.size)
    if isinstance(item, Image.Image):
        _check_mode(item, name)
        return min(item.size)
    if isinstance(item, Strip):
        return min(strip(item.values, name).shape[:2])
    array = _as_ndarray(item, name)
    check_pixels(array, name)
    return min(array.shape[:2])


def _as_ndarray(item: Any, name: str) -> np.ndarray:
    if is_tensor(item):
        tensor = item.detach().cpu()
        # NumPy has no bfloat16.
        return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    if isinstance(item, np.ndarray) or hasattr(item, "__array__"):
        return np.asarray(item)
    raise TypeError(f"{name}: an image must be a path, a Pillow image or an array.")


# --------------------------------------------------------------------------- files


@contextmanager
def _opened(path: _Path, name: str) -> Iterator[Image.Image]:
    """Open a file for as long as it is read; only its header is read yet."""
    with _naming(path, name):
        image = Image.open(path)
    with image:
        yield image


@contextmanager
def _naming(path: _Path | None, name: str) -> Iterator[None]:
    """Turn what Pillow and the system raise into one error that names the image and the remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingImageError(f"{name}: no such file.") from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name}: is not an image that Pillow can read. Leave it out, or convert it to PNG."
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: {error} If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # Decoders raise whatever a damaged file leads them to: OSError, SyntaxError, struct.error.
        if path is not None and os.path.isdir(path):
            raise ValueError(
                f"{name}: is a directory. Pass the files in it: sorted(Path(folder).glob('*.png'))."
            ) from error
        raise ValueError(
            f"{name}: cannot be read ({error}). The file may be damaged or incomplete: copy it "
            "again, or leave it out."
        ) from error


# --------------------------------------------------------------------------- Pillow images


@contextmanager
def _unshared(image: Image.Image, name: str) -> Iterator[Image.Image]:
    """Give an image that may be read without touching the one that the user holds.

    A lazily opened image is read again from its bytes: loading the user's own would fill memory
    with every image of the list, and is not safe from two threads.
    """
    with _naming(None, name), READING:
        encoded = _encoded_bytes(image)
        if encoded is None:
            image.load()  # nothing to do, unless a plugin keeps its pixels out of sight
    if encoded is None:
        yield image
        return
    with _naming(None, name):
        twin = Image.open(BytesIO(encoded))
        if image.tell():
            twin.seek(image.tell())
    with twin:
        yield twin


def _encoded_bytes(image: Image.Image) -> bytes | None:
    """Read the file behind a lazily opened image; None if the pixels are in memory already."""
    # `im` is the pixel buffer; since Pillow 11 it is a property that raises on unloaded images.
    buffer = image._im if hasattr(image, "_im") else image.im
    file: IO[bytes] | None = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if buffer is not None or file is None:
        return None
    position = file.tell()
    file.seek(0)
    encoded = file.read()
    file.seek(position)
    return encoded


def _check_mode(image: Image.Image, name: str) -> None:
    mode = image.mode
    known = mode in _AS_NUMBERS or mode in _THROUGH_RGBA or mode in _STRAIGHT_TO_RGB
    if not (known or mode.startswith("I;16")):
        raise ValueError(f"{name}: colour mode {mode} is not supported. Convert the image to RGB.")


def _numbers(image: Image.Image, name: str) -> np.ndarray:
    """Fetch the pixels of an image, turned upright."""
    _check_mode(image, name)
    with _naming(None, name):
        image.load()
        if image.mode in _THROUGH_RGBA:
            array = np.asarray(image.convert("RGBA"))
        elif image.mode in _STRAIGHT_TO_RGB:
            array = np.asarray(image.convert("RGB"))
        else:
            array = np.asarray(image)
        array = _upright(array, _orientation(image))
    return _from_mode_i(array, name) if image.mode == "I" else array


def _from_mode_i(array: np.ndarray, name: str) -> np.ndarray:
    # Pillow before 11.3 opens 16-bit PNGs in its 32-bit mode: there is no other use of it in
    # photographs, so white is 65535.
    low, high = array.min(), array.max()
    if low < 0 or high > 65535:
        raise ValueError(
            f"{name}: 32-bit integer pixels must lie in 0..65535; got {low}..{high}. "
            "Scale them to floats in 0..1."
        )
    return array.astype(np.uint16)


# --------------------------------------------------------------------------- orientation


def _orientation(image: Image.Image) -> int:
    with READING:
        return image.getexif().get(ExifTags.Base.Orientation, 1)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels as EXIF asks.

    On the array, not by ``ImageOps.exif_transpose``: that copies every image that needs no turn.
    """
    if orientation not in _TURNS:
        return array
    swap, down, right = _TURNS[orientation]
    turned = array.swapaxes(0, 1) if swap else array
    return np.ascontiguousarray(turned[::down, ::right])


def _turned_shape(image: Image.Image, name: str) -> tuple[int, int]:
    with _naming(None, name):
        width, height = image.size
        if width == height or not _may_be_turned(image):
            return height, width
        turned = _orientation(image) in _TURNS and _TURNS[_orientation(image)][0]
        if turned and image.format == "TIFF":
            # Pillow turns TIFFs itself when it loads them, and before 11 tells the size of before.
            image.load()
            return image.height, image.width
    return (width, height) if turned else (height, width)


def _may_be_turned(image: Image.Image) -> bool:
    """Whether to ask for the orientation: for a PNG the answer may cost its decoding."""
    if image.format != "PNG" or "exif" in image.info:
        return True
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    return file is None or _png_has_metadata(file)


def _png_has_metadata(file: IO[bytes]) -> bool:
    """Look for EXIF or XMP in a PNG, by hopping from chunk to chunk: they may follow the pixels."""
    position = file.tell()
    file.seek(8)
    found = False
    while not found and len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        start = file.read(min(length, 24))
        found = kind == b"eXIf" or start.startswith((b"Raw profile type exif", b"XML:com.adobe"))
        file.seek(length - len(start) + 4, os.SEEK_CUR)
    file.seek(position)
    return found
