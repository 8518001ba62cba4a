"""Keeping the folder of a store as small as it must be, and free of what killed processes have left.

Dates come from one file server, whose clock need not be ours: they are compared with that of a file
just made there. What lies in the future, after a restore or while a clock was wrong, is no date.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from uuid import uuid4

from skad._features.claims import Claims

# What was begun so many seconds ago and is not finished was left by a killed process.
_LEFT_SECONDS = 600.0
# Writes of this process after which the folder is looked at in any case: others write as well.
_LOOK_EVERY = 64
# Part of the limit that is made free beyond what is needed, since a look costs a listing of all files.
_SPARE = 16


class Tidier:
    """The folder of a store, as one process knows it.

    Parameters
    ----------
    folder : str
    claims : Claims
        By which this process sees who works on what.
    """

    def __init__(self, folder: str, claims: Claims) -> None:
        self._folder, self._claims = Path(folder), claims
        # Bytes that its files take, as far as this process knows; at first it has to look.
        self._taken: int | None = None
        self._n_writes = 0

    def make_room(self, n_bytes: int, limit: int) -> None:
        """Have room for a file that is about to be written.

        Parameters
        ----------
        n_bytes : int
        limit : int
            Bytes that all files may take.
        """
        self._n_writes += 1
        if self._taken is None or self._taken + n_bytes > limit or self._n_writes > _LOOK_EVERY:
            self.reduce(limit, n_bytes)
        self._taken = (self._taken or 0) + n_bytes

    def reduce(self, limit: int, n_bytes: int = 0) -> None:
        """Remove the files unused for longest if all take too much, and what killed processes left.

        Parameters
        ----------
        limit : int
            Bytes that all files may take.
        n_bytes : int, default=0
            That are about to be added.
        """
        now = _clock_of(self._folder)
        self._remove_longest_unasked(limit, n_bytes, now)
        if now is not None:
            self._remove_left(now)
        self._n_writes = 0

    def _remove_longest_unasked(self, limit: int, n_bytes: int, now: float | None) -> None:
        files = self._listing("features")
        taken = sum(size for _, size, _ in files)
        kept = limit - n_bytes
        goal = kept if taken <= kept else kept - limit // _SPARE
        for date, size, file in files:
            if taken > goal:
                _remove(file)  # or another process was faster
                taken -= size
            elif now is not None and date > now + _LEFT_SECONDS:
                # From here on it ages as all others do, instead of outliving them.
                with contextlib.suppress(OSError):
                    os.utime(file)
        self._taken = taken

    def _remove_left(self, now: float) -> None:
        for date, _, file in self._listing("part"):
            if abs(now - date) > _LEFT_SECONDS:
                _remove(file)
        for date, _, file in self._listing("claim"):
            if abs(now - date) > _LEFT_SECONDS and self._claims.is_left(file):
                _remove(file)

    def _listing(self, suffix: str) -> list[tuple[float, int, Path]]:
        """Dates, sizes and paths of files, the earliest first."""
        found = []
        for file in self._folder.glob(f"??/*.{suffix}"):
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        return sorted(found)


def _clock_of(folder: Path) -> float | None:
    """Time by the clock that dates the files of a folder; None where none can be made."""
    probe = folder / "00" / f"{uuid4().hex}.part"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return None
    finally:
        _remove(probe)


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
