"""Memory as users state it, and arrays that live on disk instead."""

from __future__ import annotations

import re
import shutil
import tempfile

import numpy as np

_MEMORY = re.compile(r"\s*([0-9.]+)\s*([kMGT]?)(i?)B?\s*", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(limit: int | str) -> int:
    """Read a number of bytes, or a text such as "4GB" or "500 MiB".

    Parameters
    ----------
    limit : int or str
        The parameter ``max_memory`` of a detector.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If the text is neither.
    """
    if not isinstance(limit, str):
        return int(limit)
    match = _MEMORY.fullmatch(limit)
    if match is None:
        raise ValueError(f"max_memory={limit!r} is neither a number of bytes nor like '4GB'.")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** _POWERS[match[2].upper()])


def temporary_array(shape: tuple[int, ...], what: str, remedy: str) -> np.ndarray:
    """Memory-map a float32 array of a temporary file, which is gone with it.

    Parameters
    ----------
    shape : tuple of int
    what, remedy : str
        What the array holds and what to do where the disk is too small, for the error.

    Returns
    -------
    numpy.memmap of float32

    Raises
    ------
    OSError
        If the disk is too small: writing to a map on a full disk would kill the process.
    """
    folder, needed = tempfile.gettempdir(), 4 * int(np.prod(shape, dtype=np.int64))
    if shutil.disk_usage(folder).free < needed:
        raise OSError(
            f"{what} take {needed / 1e9:.2f} GB, more than is free in {folder}. Point the "
            f"environment variable TMPDIR to a larger disk, {remedy}."
        )
    with tempfile.TemporaryFile(prefix="skad-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
