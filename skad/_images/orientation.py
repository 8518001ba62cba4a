"""Turning images as their EXIF data ask."""

from __future__ import annotations

import os
import struct
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from skad._system.forks import READING

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


def orientation(image: Image.Image) -> int:
    """Ask an image for its EXIF orientation; 1: it lies as it is shown."""
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
