"""An ONNX file of skad's: told from others, and from damaged ones, before anything reads it.

The last entry of the file is a checksum over all that comes before. Nothing but the graph of a file is
ever run, and that by ONNX Runtime.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from skad._common.text import shortened

SUFFIX = ".onnx"
CONTENT_KEY, CHECKSUM_KEY = "skad", "skad_checksum"
_DIGEST_SIZE = 32
# How Protocol Buffers write the last entry, ``metadata_props``, of a model: its number and length, key
# and value. What precedes the digest itself is always the same.
_KEY = CHECKSUM_KEY.encode()
_VALUE = b"\x0a" + bytes([len(_KEY)]) + _KEY + b"\x12" + bytes([2 * _DIGEST_SIZE])
_ENTRY = b"\x72" + bytes([len(_VALUE) + 2 * _DIGEST_SIZE]) + _VALUE
_PORTION = 1 << 20


def with_checksum(model: bytes) -> bytes:
    """Append the checksum of a serialised model, as an entry of its own.

    Parameters
    ----------
    model : bytes

    Returns
    -------
    bytes
    """
    digest = hashlib.blake2b(model, digest_size=_DIGEST_SIZE).hexdigest()
    return model + _ENTRY + digest.encode()


def check_file(path: Path) -> str:
    """Refuse a file that skad has not written, or not like that.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
        Its checksum.

    Raises
    ------
    OSError
        If there is no such file, or it must not be read.
    ValueError
        If it is damaged, incomplete, or none of skad's.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", os.fspath(path))
    if not path.is_file():
        raise OSError(errno.EINVAL, "this is no regular file", os.fspath(path))
    length = path.stat().st_size - len(_ENTRY) - 2 * _DIGEST_SIZE
    with path.open("rb") as file:
        found = _digest(file, max(0, length))
        ending = file.read()
    if not ending.startswith(_ENTRY):
        raise ValueError(
            f"{shortened(os.fspath(path))!r} is incomplete, or no file that skad.export_onnx has "
            "written."
        )
    if ending[len(_ENTRY) :] != found.encode():
        raise ValueError(
            f"{shortened(os.fspath(path))!r} is damaged: its checksum does not match. Copy it again, or "
            "export it anew."
        )
    return found


def _digest(file: BinaryIO, length: int) -> str:
    """Digest the first bytes of a file; only a portion of it is held."""
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    while length > 0 and (portion := file.read(min(_PORTION, length))):
        digest.update(portion)
        length -= len(portion)
    return digest.hexdigest()
