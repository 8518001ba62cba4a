"""Files whose numbers Pillow does not hand over as they are: refused, by their headers.

Pillow has no image of more than 8 bits per colour. It drops the low bytes of such files, and of some
others mixes up bytes, signs, or black and white, all without a word. The rules here are about what
Pillow 10 to 13 do; a file that they pass scores as the array of its numbers does.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image, ImageFile

# Modes of more than 8 bits, and the formats that Pillow reads into them without changing a number.
_DEEP_MODES = ("I", "F")
_DEEP_FORMATS = frozenset({None, "PNG", "TIFF", "PPM", "JPEG2000"})
# How Pillow calls pixels that it is about to cut to 8 bits. Not "BGR;16": 5 or 6 bits per colour.
_CUT = re.compile(r"(L|LA|RGB|CMYK)\w*;16")

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2
_HEADER = 1 << 16

_REMEDY = (
    "Read it by a library that keeps its numbers and pass the array, such as tifffile.imread(path) or "
    "cv2.imread(path, cv2.IMREAD_UNCHANGED) (colours in the order BGR: [..., ::-1]); or convert it to "
    "8 bits."
)


def check_depth(image: Image.Image, name: str) -> None:
    """Refuse a file whose numbers Pillow changes; only its header is looked at.

    Parameters
    ----------
    image : Pillow image
        Opened, and not loaded: an image in memory counts by what it holds.
    name : str
        How errors call it.

    Raises
    ------
    ValueError
        Naming what is the matter, and the remedy.
    """
    problem = _problem(image)
    if problem:
        raise ValueError(f"{name}: {problem}. {_REMEDY}")


def _problem(image: Image.Image) -> str | None:
    deep = image.mode in _DEEP_MODES or image.mode.startswith("I;16")
    if deep and image.format not in _DEEP_FORMATS:
        return f"holds more than 8 bits as {image.format}, which Pillow does not read faithfully"
    if any(_is_cut(*tile[0::3]) for tile in getattr(image, "tile", [])):
        return _stretched(image.mode) if deep else _cut_to_8(image.mode)
    find = {"TIFF": _tiff_problem, "JPEG2000": _jpeg2000_problem, "AVIF": _avif_problem}
    return find[image.format](image, deep) if image.format in find else None


def _cut_to_8(mode: str) -> str:
    return f"holds more than 8 bits per channel, of which Pillow keeps 8 in the mode {mode}"


def _stretched(mode: str) -> str:
    return (
        f"holds more than 8 bits and fewer than 16, which Pillow stretches to 16 in the mode {mode}"
    )


def _is_cut(codec: str, arguments: Any) -> bool:
    """Whether a decoder of Pillow will cut, or stretch, numbers of 16 bits."""
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    raw = next((a for a in arguments if isinstance(a, str)), "")
    if codec.startswith("ppm"):
        # (raw mode, white): the grey ones of 16 bits are whole.
        return arguments[1] > 255 and (raw != "L" or arguments[1] != 65535)
    return codec == "SGI16" or _CUT.match(raw) is not None


def _tiff_problem(image: Any, deep: bool) -> str | None:
    tags = image.tag_v2
    bits, kinds = (max(tags.get(tag, (1,))) for tag in (_BITS, _SAMPLE_FORMAT))
    if bits > 8 and not deep:
        return _cut_to_8(image.mode)
    if bits <= 8 and kinds == _SIGNED:
        return "holds signed numbers of 8 bits, which Pillow takes for unsigned ones"
    if bits > 8 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return f"says that 0 is white (MinIsWhite), which Pillow overlooks in {bits} bits"
    return None


def _jpeg2000_problem(image: Any, deep: bool) -> str | None:
    header = _read_header(image)
    start = header.find(b"\xff\x4f\xff\x51")  # the codestream, and the sizes in it
    if start < 0 or len(header) < start + 40:
        return None
    (n_channels,) = struct.unpack_from(">H", header, start + 40)
    sizes = header[start + 42 : start + 42 + 3 * n_channels : 3]
    bits = max(((size & 0x7F) + 1 for size in sizes), default=8)
    if any(size & 0x80 for size in sizes):
        return "holds signed numbers, which Pillow takes for unsigned ones"
    if bits > 8 and not deep:
        return _cut_to_8(image.mode)
    if bits > 8 and bits != 16:
        return _stretched(image.mode)
    return None


def _avif_problem(image: Any, deep: bool) -> str | None:
    header = _read_header(image)
    start = header.find(b"av1C")
    many_bits = start >= 0 and len(header) > start + 6 and header[start + 6] & 0x40
    return _cut_to_8(image.mode) if many_bits else None


def _read_header(image: Any) -> bytes:
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if file is None:
        return b""
    position = file.tell()
    file.seek(0)
    header = file.read(_HEADER)
    file.seek(position)
    return header
