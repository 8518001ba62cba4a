"""Who works on what: small files by which processes that share a folder keep out of each other's way.

A claim names its process (machine, number and time of its start) and its thread. It is void as soon as
a process of this machine, or a thread of this process, has ended, or where the waiting thread itself
left it behind when it was interrupted. What another machine does cannot be seen from here: its claim
counts for a limited time, measured by the clock of the process that waits. Dates of files are never
compared with that clock, since the file server has its own. At worst two processes do the same work.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from skad._common.processes import is_alive, machine, start_of

# Seconds that a claim of another machine is waited for, and one of this machine whose process lives on.
_PATIENCE, _LONGEST = 10.0, 120.0
# Seconds between two looks at a claim: short at first, then longer.
_FIRST_LOOK, _LAST_LOOK = 0.005, 0.1
# Seconds after which somebody who watches is told.
_TELL_AFTER = 1.0


class Claims:
    """Claims as one process sees them.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "image.claim"
    >>> Claims().take(path)
    True
    """

    def __init__(self) -> None:
        # Claims that others hold: what they looked like, and since when.
        self._seen: dict[Path, tuple[tuple[str, int], float]] = {}
        self._silent: set[str] = set()

    def take(self, path: Path) -> bool:
        """Lay a claim; False if somebody else holds it.

        Parameters
        ----------
        path : pathlib.Path
            In a folder that exists.

        Raises
        ------
        OSError
            If that is impossible here.
        """
        for _ in range(2):
            try:
                claim = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                if not self.is_void(path):
                    return False
                self._remove(path)
                continue
            try:
                os.write(claim, _this_thread().encode())
            except BaseException:  # an interrupt as well: nobody would be known to hold it
                self._remove(path)
                raise
            finally:
                os.close(claim)
            return True
        return False

    def release(self, path: Path) -> None:
        """Take a claim away if it is of this thread."""
        if _read(path) == _this_thread():
            self._remove(path)

    def _remove(self, path: Path) -> None:
        self._seen.pop(path, None)
        with contextlib.suppress(OSError):
            path.unlink()

    def wait(self, path: Path, tell: Callable[[str], None] | None = None) -> None:
        """Wait until a claim is gone or void.

        Parameters
        ----------
        path : pathlib.Path
        tell : callable, optional
            Called with a message that says who is waited for, if that takes long.
        """
        begun, look = time.monotonic(), _FIRST_LOOK
        while not self.is_void(path):
            if tell is not None and time.monotonic() - begun > _TELL_AFTER:
                tell(f"waiting for {_described(_read(path) or '')} at {os.fspath(path)!r}")
                tell = None
            time.sleep(look)
            look = min(1.5 * look, _LAST_LOOK)
        self._seen.pop(path, None)

    def is_void(self, path: Path) -> bool:
        """Whether a claim is gone, or its owner has ended or seems to have stopped."""
        owner = _read(path)
        if owner is None:
            return True
        lives = _lives(owner)
        if lives is False:
            return True
        waited = self._unchanged_for(path, owner)
        if lives:
            return waited > _LONGEST
        if waited > _PATIENCE:
            # One that says nothing here says nothing elsewhere: it is waited for once.
            self._silent.add(owner)
        return owner in self._silent

    def is_left(self, path: Path) -> bool:
        """Whether a claim that is old, by the clock of its file server, is of no use to anyone."""
        owner = _read(path)
        return owner is None or _lives(owner) is None or self.is_void(path)

    def _unchanged_for(self, path: Path, owner: str) -> float:
        """Seconds since a claim first looked as it does now, by the clock of this process."""
        try:
            signs = owner, path.stat().st_mtime_ns
        except OSError:
            return 0.0
        now = time.monotonic()
        if path not in self._seen or self._seen[path][0] != signs:
            self._seen[path] = signs, now
        return now - self._seen[path][1]


def _read(path: Path) -> str | None:
    """Owner of a claim; empty if it does not say, None if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(500).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _described(owner: str) -> str:
    machine, _, process = owner.partition("\n")
    if not process.strip():
        return "another process"
    return f"process {process.split()[0]} on {machine.split('/')[0]}"


@cache
def _owner(process: int) -> str:
    return f"{machine()}\n{process} {start_of(process)}"


def _this_thread() -> str:
    return f"{_owner(os.getpid())}\n{threading.get_native_id()}"


def _lives(owner: str) -> bool | None:
    """Whether somebody works on what a claim is of; None if that cannot be seen from here."""
    where, process, thread, *_ = [*owner.split("\n"), "", ""]
    number, _, start = process.partition(" ")
    if where != machine() or not number.isdecimal():
        return None
    alive = is_alive(int(number), start)
    if alive and thread and int(number) == os.getpid():
        return thread in _other_threads()
    return alive


def _other_threads() -> set[str]:
    """Numbers of the threads of this process, without the one that asks: it works on nothing else."""
    own = threading.get_native_id()
    return {str(t.native_id) for t in threading.enumerate() if t.native_id != own}
