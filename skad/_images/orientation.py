"""Turning images as their EXIF data ask."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

from skad._common.forks import READING

from .encoded import file_of, read_from_start

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
# How EXIF and XMP begin in a PNG.
_METADATA_OF_PNG = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


def orientation(image: Image.Image) -> int:
    """Read the EXIF orientation of an image; 1 if it needs no turn."""
    with READING:
        return image.getexif().get(ExifTags.Base.Orientation, 1)


def upright(array: np.ndarray, turn: int) -> np.ndarray:
    """Turn pixels by an EXIF orientation.

    On the array, not by ``ImageOps.exif_transpose``: that copies every image that needs no turn.
    """
    if turn not in _TURNS:
        return array
    swap, down, right = _TURNS[turn]
    turned = array.swapaxes(0, 1) if swap else array
    return np.ascontiguousarray(turned[::down, ::right])


def upright_shape(image: Image.Image) -> tuple[int, int]:
    """Height and width of an image after the turn, from its header if possible."""
    width, height = image.size
    if width == height or not _may_be_turned(image):
        return height, width
    turn = orientation(image)
    turned = turn in _TURNS and _TURNS[turn][0]
    if turned and image.format == "TIFF":
        # Pillow turns TIFFs itself when it loads them, and before 11 tells the size of before.
        image.load()
        return image.height, image.width
    return (width, height) if turned else (height, width)


def _may_be_turned(image: Image.Image) -> bool:
    """Whether to ask for the orientation: Pillow decodes a whole PNG for the answer.

    EXIF and XMP of a PNG may follow its pixels, but not without their names in the file.
    """
    file = file_of(image)
    if image.format != "PNG" or "exif" in image.info or file is None:
        return True
    content = read_from_start(file)
    return any(name in content for name in _METADATA_OF_PNG)
