"""Memory as users state it, and arrays that live on disk instead."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import tempfile
from numbers import Real
from typing import IO, Any

import numpy as np

from skad._common.text import shortened

# Longer numbers are not sizes of memory.
_MEMORY = re.compile(
    r"\s*([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})\s*([kMGT]?)(i?)B?\s*",
    re.ASCII | re.IGNORECASE,
)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
# Errors of file systems that cannot reserve space.
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_ZEROS = bytes(1 << 20)


def parse_bytes(limit: int | str, name: str = "max_memory") -> int:
    """Read a number of bytes, or a text such as "4GB" or "500 MiB".

    Parameters
    ----------
    limit : int or str
        At least one byte.
    name : str, default="max_memory"
        The parameter that says so, for the error.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is neither.
    """
    n_bytes = _read(limit)
    if not 1 <= n_bytes < math.inf:
        raise ValueError(
            f"{name}={shortened(repr(limit))} is neither a number of bytes nor like '4GB' or "
            "'500 MiB'; it must be one byte at least."
        )
    return int(n_bytes)


def _read(limit: Any) -> Any:
    if isinstance(limit, Real) and not isinstance(limit, bool):
        return limit if float(limit).is_integer() else math.nan  # such as 5e9
    match = _MEMORY.fullmatch(limit) if isinstance(limit, str) else None
    if match is None:
        return math.nan
    base = 1024 if match[3] else 1000
    return float(match[1]) * base ** _POWERS[match[2].upper()]


def temporary_array(shape: tuple[int, ...], what: str, remedy: str) -> np.ndarray:
    """Memory-map a float32 array in a temporary file, which is removed with the array.

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
        If the disk is too small. All of the space is taken at once: writing to a map on a disk that is
        full by then would kill the process.
    """
    folder, needed = tempfile.gettempdir(), 4 * math.prod(int(n) for n in shape)
    if shutil.disk_usage(folder).free < needed:
        raise _too_small(folder, needed, what, remedy)
    with tempfile.TemporaryFile(prefix="skad-", dir=folder) as file:
        try:
            _take_space(file, needed)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise _too_small(folder, needed, what, remedy) from error
        return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)


def _too_small(folder: str, needed: int, what: str, remedy: str) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"{what} take {needed / 1e9:.2f} GB, more than is free there. Point the environment variable "
        f"TMPDIR to a larger disk, {remedy}",
        folder,
    )


def _take_space(file: IO[bytes], n_bytes: int) -> None:
    """Make a file of zeros whose space on the disk is reserved."""
    if hasattr(os, "posix_fallocate") and n_bytes:
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    # Where there is no such call (macOS, Windows, some network disks), writing takes the space.
    for start in range(0, n_bytes, len(_ZEROS)):
        file.write(_ZEROS[: n_bytes - start])
    file.flush()
