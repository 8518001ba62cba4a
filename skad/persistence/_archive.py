"""The file itself: safetensors, with text in the header and a checksum over everything."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import safetensors.numpy

from skad._common.files import replacing
from skad._common.text import shortened

# How safetensors passes on what the system says.
_SYSTEM_ERROR = re.compile(r"(?:os error |code: )(\d+)")


def write(path: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> None:
    """Write a file, whole or not at all.

    Parameters
    ----------
    path : Path
    metadata : dict of str to str
        Gets a checksum.
    tensors : dict of str to ndarray

    Raises
    ------
    OSError
        If that fails; it names `path`.
    """
    metadata = {**metadata, "checksum": checksum(metadata, tensors)}
    with replacing(path) as unfinished:
        try:
            safetensors.numpy.save_file(tensors, unfinished, metadata=metadata)
        except safetensors.SafetensorError as error:
            number = _SYSTEM_ERROR.search(str(error))
            if number is None:
                raise OSError(errno.EIO, str(error), os.fspath(path)) from error
            code = int(number[1])
            raise OSError(code, os.strerror(code), os.fspath(path)) from error


def read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Read metadata and tensors, if they are what was written.

    Parameters
    ----------
    path : Path

    Returns
    -------
    metadata : dict of str to str
    tensors : dict of str to ndarray

    Raises
    ------
    OSError
        If there is no file, or it must not be read.
    ValueError
        If it was changed, or is none of skad's.
    """
    _check_readable(path)
    damaged = f"{os.fspath(path)!r} is damaged, incomplete or no file of skad's"
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (
        safetensors.SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        raise ValueError(f"{damaged}: {shortened(str(error))}") from error
    if not {"content", "checksum", "skad_version"} <= metadata.keys():
        raise ValueError(f"{damaged}: it lacks skad's header.")
    if metadata["checksum"] != checksum(metadata, tensors):
        raise ValueError(f"{damaged}: its checksum does not match.")
    return metadata, tensors


def _check_readable(path: Path) -> None:
    name = os.fspath(path)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", name)
    if not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "this is no regular file", name)
    with path.open("rb"):
        pass


def checksum(metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> str:
    """Digest header and tensors.

    Parameters
    ----------
    metadata : dict of str to str
        A checksum in it does not count.
    tensors : dict of str to ndarray

    Returns
    -------
    str
    """
    digest = hashlib.blake2b(digest_size=32)
    header = {name: text for name, text in metadata.items() if name != "checksum"}
    digest.update(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, tensor.shape, tensor.dtype.str]).encode())
        digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
