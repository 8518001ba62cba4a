"""Opening images, with errors that name the image and the remedy."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO, TextIOBase
from typing import Any

from PIL import Image, UnidentifiedImageError

from skad._common.forks import READING
from skad._common.text import shortened

from .encoded import file_of, read_from_start
from .items import WANTED, is_path
from .orientation import orientation

# Formats in which further images are previews or layers of the first.
_ONE_PAGE = frozenset({"MPO", "PSD"})
_REDUCED, _IS_REDUCED = 254, 1  # tag of TIFF
_LONGEST_PATH = 4096


class MissingImageError(FileNotFoundError, ValueError):
    """A path in X does not exist: a wrong value to scikit-learn, a missing file to the system."""


class UnreadableImageError(ValueError):
    """An image cannot be read; the message names it and the remedy."""


@contextmanager
def opened(item: Any, name: str) -> Iterator[Image.Image]:
    """Open a path, an encoded image or a Pillow image for as long as it is read.

    Only its header is read. The position in an open file stays where it is, and a Pillow image that is
    not loaded stays so. Loading the user's own would fill memory with every image of
    the list, and is not safe from two threads; so it is read again from its bytes, unless the user has
    asked it for another size, mode or orientation (``draft``, ``thumbnail``, ``getexif()[274] = 1``).

    Parameters
    ----------
    item : path, bytes, open file or Pillow image
    name : str
        How errors call it.

    Yields
    ------
    Pillow image
        Another than the user's, unless that is in memory anyway, or altered.
    """
    with ExitStack() as stack:
        with naming(item, name):
            image = _open(item, name, stack)
        yield image


def _open(item: Any, name: str, stack: ExitStack) -> Image.Image:
    if is_path(item):
        _refuse_streams(item, name)
        # Not by its name: Pillow would map the file, and then mixes up the lines of a turned TIFF.
        return stack.enter_context(Image.open(stack.enter_context(open(item, "rb"))))
    if not isinstance(item, Image.Image):
        return stack.enter_context(Image.open(BytesIO(_read_encoded(item, name))))
    encoded = _encoded_by(item, name)
    if encoded is None:
        return item
    twin = stack.enter_context(Image.open(BytesIO(encoded)))
    if item.tell():
        twin.seek(item.tell())
    if not _is_altered(item, twin):
        return twin
    with READING:
        item.load()
    return item


def _refuse_streams(path: Any, name: str) -> None:
    """Refuse pipes and devices: opening or reading one may never end."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnreadableImageError(
            f"{name}: is not a regular file but a pipe, a socket or a device. Leave it out, or pass its "
            "content as bytes."
        )


def _is_altered(image: Image.Image, twin: Image.Image) -> bool:
    """Whether the user has changed what a lazily opened image will show: its file tells no more."""
    with READING:
        if (image.size, image.mode) != (twin.size, twin.mode):
            return True
        # Of such a PNG nobody has asked the orientation: the answer would have loaded it.
        if image.format == "PNG" and "exif" not in image.info:
            return False
        file = file_of(image)
        if file is None:  # another thread has loaded it meanwhile
            return True
        position = file.tell()
        try:
            return orientation(image) != orientation(twin)
        finally:
            file.seek(position)  # Pillow reads the EXIF of a TIFF from its file


def count_pages(image: Image.Image) -> int:
    """Count the images of equal rank in a file that `opened` has opened; it is left at the first."""
    if image.format in _ONE_PAGE or not getattr(image, "is_animated", False):
        return 1
    n_pages: int = image.n_frames  # type: ignore[attr-defined]
    if image.format == "TIFF":
        for page in range(1, n_pages):
            image.seek(page)
            n_pages -= image.tag_v2.get(_REDUCED, 0) & _IS_REDUCED  # type: ignore[attr-defined]
        image.seek(0)
    return n_pages


def _read_encoded(item: Any, name: str) -> bytes:
    """Content of an image file in memory, or of an open file, which may be in several lists."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    if isinstance(item, TextIOBase):
        raise UnreadableImageError(f"{name}: is opened as text. Open it in binary mode, 'rb'.")
    if getattr(item, "closed", False):
        raise UnreadableImageError(
            f"{name}: is closed. Pass its path, or read it before: file.read()."
        )
    if hasattr(item, "seekable") and not item.seekable():
        raise UnreadableImageError(f"{name}: can be read only once. Pass its content: file.read().")
    with READING:
        content = read_from_start(item)
    if not isinstance(content, (bytes, bytearray)):
        raise UnreadableImageError(
            f"{name}: does not give bytes ({type(content).__name__}); {WANTED}."
        )
    return bytes(content)


def _encoded_by(image: Image.Image, name: str) -> bytes | None:
    """Read the file behind a lazily opened image; None if the pixels are in memory already."""
    with READING:
        file = file_of(image)
        if file is not None and not _in_memory(image):
            encoded: bytes = read_from_start(file)
            return encoded
        try:
            image.load()  # nothing to do, unless a plugin keeps its pixels out of sight
        except Exception as error:
            if file is not None:
                raise
            raise UnreadableImageError(
                f"{name}: is closed. Score it inside its with block, call image.load() there, or pass "
                "the path."
            ) from error
        return None


def _in_memory(image: Image.Image) -> bool:
    """Whether an image has its pixels; to ask in any other way would read them."""
    pixels = None
    with suppress(AssertionError, ValueError):  # Pillow 11 and later: not read yet, or closed
        pixels = image.im
    return pixels is not None


@contextmanager
def naming(item: Any, name: str) -> Iterator[None]:
    """Turn what Pillow and the system raise into one error that names the image and the remedy."""
    try:
        yield
    except (UnreadableImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise MissingImageError(f"{name}: no such file.") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name}: is not an image that Pillow can read. {_other_than_image(item)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"{name}: {error} If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except Exception as error:
        # Decoders raise whatever a damaged file leads them to: OSError, SyntaxError, struct.error.
        raise UnreadableImageError(f"{name}: {_remedy(item, error)}") from error


def _other_than_image(item: Any) -> str:
    if isinstance(item, bytes) and 0 < len(item) < _LONGEST_PATH and min(item) >= ord(" "):
        return "If it is a path, pass it as text: os.fsdecode(path)."
    return "Leave it out, convert it to PNG, or pass its pixels as an array."


def _remedy(item: Any, error: Exception) -> str:
    if is_path(item):
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return "is too long for a path. Pass an encoded image as bytes."
        # A text with a null character is not a path.
        if "\0" not in os.fsdecode(item) and os.path.isdir(item):
            return "is a directory. Pass the files in it: skad.datasets.list_images(folder)."
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (
        f"cannot be read ({shortened(reason)}). The file may be damaged or incomplete: copy it again, "
        "or leave it out."
    )
