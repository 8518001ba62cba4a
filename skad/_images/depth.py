"""Files whose numbers Pillow would change: refused by their headers.

Pillow has no image of more than 8 bits per colour. It silently drops the low bytes of such files, and
confuses bytes, signs, or black and white in some others. The rules here describe Pillow 10 to 13; a
file that passes them scores as the array of its numbers does.
"""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

from PIL import Image

from .encoded import file_of, read_from_start

# Modes of more than 8 bits, and the formats that Pillow reads into them without changing a number.
_DEEP_MODES = ("I", "F")
_DEEP_FORMATS = frozenset({None, "PNG", "TIFF", "PPM", "JPEG2000"})
# How Pillow calls pixels that it is about to cut to 8 bits. Not "BGR;16": 5 or 6 bits per colour.
_CUT = re.compile(r"(L|LA|RGB|CMYK)\w*;16")

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2
_PREMULTIPLIED = "RGBa"  # the layout of a decoder: colours multiplied by alpha
_HEADER = 1 << 16

_REMEDY = (
    "Read it by a library that keeps its numbers and pass the array, such as tifffile.imread(path) or "
    "cv2.imread(path, cv2.IMREAD_UNCHANGED) (colours in the order BGR: [..., ::-1]); or convert it to "
    "8 bits."
)
_INVERTED = (
    "Read it as a = tifffile.imread(path) and invert it: {} - a. Or save it with 0 as black."
)
_SCALED = (
    "Save it with a maxval of 255 or 65535, or divide its numbers by their maxval and pass them as an "
    "array of floats."
)


class _Problem(NamedTuple):
    """What is wrong with a file, and the remedy."""

    matter: str
    remedy: str = _REMEDY


def check_depth(image: Image.Image, name: str) -> None:
    """Refuse a file whose numbers Pillow changes; only its header is looked at.

    Parameters
    ----------
    image : Pillow image
        Opened, and not loaded; an image in memory is taken as it is.
    name : str
        How errors call it.

    Raises
    ------
    ValueError
        Names the problem and the remedy.
    """
    problem = _problem(image)
    if problem is not None:
        raise ValueError(f"{name}: {problem.matter}. {problem.remedy}")


def _problem(image: Image.Image) -> _Problem | None:
    deep = image.mode in _DEEP_MODES or image.mode.startswith("I;16")
    if deep and image.format not in _DEEP_FORMATS:
        return _Problem(
            f"holds more than 8 bits as {image.format}, which Pillow does not read faithfully"
        )
    # None for an icon before Pillow 11.
    if any(_is_cut(*_decoder(tile)) for tile in getattr(image, "tile", None) or ()):
        return _stretched(image.mode) if deep else _cut_to_8(image.mode)
    find = {
        "TIFF": _tiff_problem,
        "JPEG2000": _jpeg2000_problem,
        "AVIF": _avif_problem,
        "PPM": _pnm_problem,
    }
    return find[image.format](image, deep) if image.format in find else None


def _cut_to_8(mode: str) -> _Problem:
    return _Problem(
        f"holds more than 8 bits per channel, of which Pillow keeps 8 in the mode {mode}"
    )


def _stretched(mode: str) -> _Problem:
    return _Problem(
        f"holds more than 8 bits and fewer than 16, which Pillow stretches to 16 in the mode {mode}"
    )


def _decoder(tile: Any) -> tuple[str, str, tuple[Any, ...]]:
    """Name of Pillow's decoder, the layout that it unpacks, and all its arguments."""
    codec, arguments = tile[0], tile[3] if isinstance(tile[3], tuple) else (tile[3],)
    return codec, next((a for a in arguments if isinstance(a, str)), ""), arguments


def _is_cut(codec: str, raw: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a decoder of Pillow will cut, or stretch, numbers of 16 bits."""
    white = _white(codec, arguments)
    if white > 255:
        return raw != "L" or white != 65535  # the grey ones of 16 bits are whole
    return codec == "SGI16" or _CUT.match(raw) is not None


def _white(codec: str, arguments: tuple[Any, ...]) -> int:
    """Tell the number of white in a Netpbm file; 255 for other files, and where it is not given."""
    return int(arguments[1]) if codec.startswith("ppm") and len(arguments) > 1 else 255


def _pnm_problem(image: Any, deep: bool) -> _Problem | None:
    for tile in image.tile:
        codec, _, arguments = _decoder(tile)
        white = _white(codec, arguments)
        if white < 255 and 255 % white:
            return _Problem(f"has {white} as white, which Pillow rounds to 0..255", _SCALED)
    return None


def _tiff_problem(image: Any, deep: bool) -> _Problem | None:
    tags = image.tag_v2
    bits, kinds = (max(tags.get(tag, (1,))) for tag in (_BITS, _SAMPLE_FORMAT))
    if bits > 8 and not deep:
        return _cut_to_8(image.mode)
    if bits <= 8 and kinds == _SIGNED:
        return _Problem("holds signed numbers of 8 bits, which Pillow takes for unsigned ones")
    if bits > 8 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        white = "1" if image.mode == "F" else "np.iinfo(a.dtype).max"
        return _Problem(
            f"has 0 as white (MinIsWhite), which Pillow ignores at {bits} bits",
            _INVERTED.format(white),
        )
    if any(_decoder(tile)[1].startswith(_PREMULTIPLIED) for tile in image.tile):
        return _Problem(
            "holds colours multiplied by alpha (ExtraSamples = 1), which Pillow divides by it"
        )
    return None


def _jpeg2000_problem(image: Any, deep: bool) -> _Problem | None:
    header = _read_header(image)
    start = header.find(b"\xff\x4f\xff\x51")  # the codestream, and the sizes in it
    if start < 0 or len(header) < start + 40:
        return None
    (n_channels,) = struct.unpack_from(">H", header, start + 40)
    sizes = header[start + 42 : start + 42 + 3 * n_channels : 3]
    bits = max(((size & 0x7F) + 1 for size in sizes), default=8)
    if any(size & 0x80 for size in sizes):
        return _Problem("holds signed numbers, which Pillow takes for unsigned ones")
    if bits > 8 and not deep:
        return _cut_to_8(image.mode)
    if bits > 8 and bits != 16:
        return _stretched(image.mode)
    return None


def _avif_problem(image: Any, deep: bool) -> _Problem | None:
    header = _read_header(image)
    start = header.find(b"av1C")
    many_bits = start >= 0 and len(header) > start + 6 and header[start + 6] & 0x40
    return _cut_to_8(image.mode) if many_bits else None


def _read_header(image: Image.Image) -> bytes:
    file = file_of(image)
    return b"" if file is None else read_from_start(file, _HEADER)
