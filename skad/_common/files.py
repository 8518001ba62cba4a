"""Files that are replaced as a whole: a reader finds the old one or the new one, whatever happens.

What is written goes into a folder of its own beside the file, and takes the file's place when it is
complete and on the disk. The folder's name says which process works there, so that what a killed one
has left is removed by the next that writes a file beside it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

from skad._common.processes import is_alive, machine, start_of

_PREFIX, _SUFFIX = ".skad-", ".part"
# Nobody writes one file for so long.
_STALE_SECONDS = 24 * 3600.0


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under another name, which then replaces `path`.

    Parameters
    ----------
    path : path-like
        A link is followed. A file that is there keeps its mode, and its owner and group where this
        process may give a file to them; a new one has what the umask leaves.

    Yields
    ------
    Path
        Where to write. What fails in the block leaves the old file as it was.

    Raises
    ------
    OSError
        If the file cannot be written; the exception names `path`, whatever the name in use was.
    """
    target = Path(os.path.realpath(path))
    with _named(path, target.parent):
        old = _status_of(target)
        workshop = _open_workshop(target.parent)
        try:
            unfinished = workshop / "content"
            yield unfinished
            mode = _new_mode(workshop) if old is None else stat.S_IMODE(old.st_mode)
            os.chmod(unfinished, mode)
            _flush(unfinished)
            if old is not None:
                _give_to(unfinished, old)
            os.replace(unfinished, target)
            with contextlib.suppress(OSError):  # Windows, and some file systems, know no such thing
                _flush(target.parent)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, whole or not at all.

    Parameters
    ----------
    path : path-like
        As for :func:`replacing`.
    text : str
        Written as UTF-8; what is not valid Unicode, as in some file names, is escaped.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path`.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def _status_of(target: Path) -> os.stat_result | None:
    """Look at the file that will be replaced; an error if it must not be."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file and cannot be replaced", str(target))
    if not os.access(target, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    return status


def _give_to(path: Path, old: os.stat_result) -> None:
    """Give a file the owner and group of another; only the group where no more is permitted."""
    new = path.stat()
    if not hasattr(os, "chown") or (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid):
        return
    for owner in (old.st_uid, -1):
        with contextlib.suppress(OSError):  # not permitted, or no such owner or group here
            os.chown(path, owner, old.st_gid)
            # chown may clear bits of the mode; only the new owner may be permitted to set them again.
            os.chmod(path, stat.S_IMODE(old.st_mode))
            return


def _new_mode(workshop: Path) -> int:
    """Mode of a new file by the umask, which a new folder shows: to ask for it would change it."""
    return stat.S_IMODE(workshop.stat().st_mode) & 0o666


def _flush(path: Path) -> None:
    """Wait until what was written is on the disk."""
    # Windows flushes only what is open for writing; folders cannot be.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _named(path: str | os.PathLike[str], folder: Path) -> Iterator[None]:
    """Name the user's path in errors about other files of its folder."""
    try:
        yield
    except OSError as error:
        # A full disk is noticed in writing, where the system names no file.
        where = Path(error.filename or folder)
        if error.errno is None or not where.is_relative_to(folder):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


# ---- folders of processes ----------------------------------------------------------------------------


def _open_workshop(folder: Path) -> Path:
    """Make a folder for this process, and remove those of dead processes."""
    process = os.getpid()
    # A short name: file systems limit the length.
    name = f"{_PREFIX}{_host()}-{process}-{start_of(process)}-{uuid4().hex[:8]}{_SUFFIX}"
    workshop = folder / name
    workshop.mkdir()
    # Compared on the clock of the file system, which need not be ours.
    now = workshop.stat().st_mtime
    for other in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # its process may be about to remove it
            if other.stat().st_mtime < now - _STALE_SECONDS or _is_orphan(other.name):
                shutil.rmtree(other, ignore_errors=True)
    return workshop


def _is_orphan(name: str) -> bool:
    """Whether the process that a folder is named after has ended; False if unknown."""
    host, number, start, *_ = [*name.removeprefix(_PREFIX).split("-"), "", ""]
    known = host == _host() and number.isdecimal()
    return known and is_alive(int(number), start) is False


@cache
def _host() -> str:
    return hashlib.blake2b(machine().encode(), digest_size=4).hexdigest()
