"""The encoded bytes behind an image, read without moving the position in its file."""

from __future__ import annotations

from typing import IO, Any

from PIL import ImageFile


def file_of(image: Any) -> IO[bytes] | None:
    """Return the open file that a Pillow image is read from; None if there is none, or no longer."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    return None if file is None or file.closed else file


def read_from_start(file: Any, n_bytes: int | None = None) -> Any:
    """Read a file from its start.

    Parameters
    ----------
    file : binary file
        Left at the position where it was.
    n_bytes : int, default=None
        How many bytes to read; None for all.

    Returns
    -------
    bytes
        Or whatever else an object that is used as a file returns.
    """
    position = file.tell()
    file.seek(0)
    try:
        return file.read() if n_bytes is None else file.read(n_bytes)
    finally:
        file.seek(position)
