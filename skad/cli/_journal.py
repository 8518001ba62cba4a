"""How far a run has come: notes beside its tables, from which another goes on after a kill.

A note says how many images are done, how long each table was then, and what stood in it. It is written
once the tables are on the disk. So whatever the moment of a kill, or of a power cut, what a table holds
beyond the last note is cut off and written again: no row is half, missing or doubled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skad._common.files import write_text
from skad.cli._messages import CommandError
from skad.cli._outputs import Lines
from skad.cli._scores import PORTION, Failure, Finding, reason
from skad.cli._signals import whole

SUFFIX = ".progress"
_KIND = "skad predict, progress"
_BLOCK = 1 << 20
_REMEDY = "Without --resume it is begun anew."


class Kept(Lines):
    """A file of lines that knows its length and its content.

    Parameters
    ----------
    path : str
    size : int, default=0
        How much of what is there is kept; the rest is cut off.
    content : str, default=""
        Digest of what is kept, as a note has it.

    Raises
    ------
    CommandError
        If it holds something else.
    """

    def __init__(self, path: str, size: int = 0, content: str = "") -> None:
        self._digest, self.size = _digest(), size
        if size:
            self._read(path, content)
            os.truncate(path, size)
        super().__init__(path, append=bool(size))

    def _read(self, path: str, content: str) -> None:
        left = self.size
        try:
            with open(path, "rb") as file:
                while left and (block := file.read(min(left, _BLOCK))):
                    self._digest.update(block)
                    left -= len(block)
        except FileNotFoundError:
            pass
        if left or self._digest.hexdigest() != content:
            raise CommandError(
                f"{path!r} is not what the notes on it tell: it was changed since, or removed. {_REMEDY}"
            )

    def _put(self, left: bytes) -> None:
        super()._put(left)
        self._digest.update(left)
        self.size += len(left)

    @property
    def state(self) -> tuple[int, str]:
        """Length, and digest of what is in it."""
        return self.size, self._digest.hexdigest()


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)


@dataclass
class Point:
    """What is done.

    Parameters
    ----------
    done : int
        Number of images, from the first on.
    names : str
        Digest of their paths.
    files : list of (int, str)
        Length and digest of each table.
    failed : list of (str, str)
        Path and reason of images that could not be scored, since the point before.
    good, defective : int
    """

    done: int = 0
    names: str = ""
    files: list[tuple[int, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    good: int = 0
    defective: int = 0


class Journal:
    """Notes on a run, in a file beside its tables.

    Parameters
    ----------
    tables : sequence of str
        The files of lines that the run writes; the notes lie beside the first.
    settings : mapping of str to object
        What decides about the lines: a run goes on where all of it is the same.
    """

    def __init__(self, tables: Sequence[str], settings: Mapping[str, Any]) -> None:
        self.path = journal_path(tables[0])
        self._tables, self._settings = list(tables), dict(settings)
        self._point, self._noted = Point(), 0
        self._is_whole = True
        self._names = _digest()
        self._files: list[Kept] = []
        self._notes: Lines | None = None

    def read(self, paths: Sequence[str]) -> Point:
        """Look up how far an earlier run has come.

        Parameters
        ----------
        paths : sequence of str
            All images of this run.

        Returns
        -------
        Point
            With all images that could not be scored; the beginning, if there was no run.

        Raises
        ------
        CommandError
            If it was another run, or tables are there without notes.
        """
        if not os.path.exists(self.path):
            for table in self._tables:
                if os.path.exists(table):
                    raise CommandError(
                        f"{table!r} is there, but no {self.path!r}, which would say how far it has "
                        f"come. {_REMEDY}"
                    )
            return self._point
        header, points = self._stored()
        self._compare(header)
        for point in points:
            point.failed = [*self._point.failed, *point.failed]
            self._point = point
        self._check_names(paths)
        return replace(self._point)

    def _stored(self) -> tuple[dict[str, Any], list[Point]]:
        """Read all whole lines; a kill may have cut the last one."""
        try:
            header, *rest = map(json.loads, _whole_lines(self.path))
            if header["kind"] != _KIND:
                raise ValueError
            return header["settings"], [Point(**point) for point in rest]
        except (ValueError, KeyError, TypeError) as error:
            raise CommandError(
                f"{self.path!r} holds no notes of skad's on a run: remove it, or name another table."
            ) from error

    def _compare(self, settings: dict[str, Any]) -> None:
        changed = [name for name, now in self._settings.items() if settings.get(name) != now]
        if changed:
            raise CommandError(
                f"{self._tables[0]!r} was begun with another {' and another '.join(changed)}. {_REMEDY}"
            )

    def _check_names(self, paths: Sequence[str]) -> None:
        for path in paths[: self._point.done]:
            self._names.update(_named(path))
        if self._point.done > len(paths) or (
            self._point.done and self._names.hexdigest() != self._point.names
        ):
            raise CommandError(
                f"{self._tables[0]!r} was begun with other images: the {self._point.done} that are done "
                f"are not the first of those named now. {_REMEDY}"
            )

    def open(self) -> list[Kept]:
        """Open the tables where the run goes on, and the notes.

        Returns
        -------
        list of Kept
            One for each table.
        """
        if not self._point.done:
            header = {"kind": _KIND, "settings": self._settings}
            write_text(self.path, json.dumps(header) + "\n")
        else:
            _cut_last_line(self.path)
        states = self._point.files or [(0, "")] * len(self._tables)
        self._files = [
            Kept(table, *state) for table, state in zip(self._tables, states, strict=True)
        ]
        self._notes = Lines(self.path, append=True)
        self._noted, self._point.failed = self._point.done, []
        return self._files

    def note(self, path: str, found: Finding | Failure) -> None:
        """Take down that an image is done: all that is to be written of it is written.

        Parameters
        ----------
        path : str
        found : Finding or Failure
        """
        point = self._point
        self._names.update(_named(path))
        point.done += 1
        point.files = [file.state for file in self._files]
        if isinstance(found, Failure):
            point.failed.append((path, reason(found)))
        elif found.good:
            point.good += 1
        else:
            point.defective += 1
        if point.done - self._noted >= PORTION:
            self._write()

    def _write(self) -> None:
        """Put the tables on the disk, then a note on them."""
        assert self._notes is not None
        with whole():
            self._is_whole = False  # if that fails, what is half must stay the last line
            for file in self._files:
                file.flush()
            self._point.names = self._names.hexdigest()
            self._notes.write(json.dumps(vars(self._point)) + "\n")
            self._notes.flush()
            self._noted, self._point.failed = self._point.done, []
            self._is_whole = True

    def close(self) -> None:
        """Note the rest, and close the notes; whoever opened the tables closes them afterwards."""
        if self._notes is None:
            return
        try:
            if self._is_whole and self._point.done > self._noted:
                self._write()
        finally:
            self._notes.close()
            self._notes = None


def journal_path(table: str) -> str:
    """Name the file of the notes on a table: ``verdicts.csv.progress``."""
    return table + SUFFIX


def _named(path: str) -> bytes:
    return os.fsencode(path) + b"\0"


def _cut_last_line(path: str) -> None:
    """Cut off a last line that is not whole."""
    size = sum(len(line) for line in _whole_lines(path))
    if size < os.path.getsize(path):
        os.truncate(path, size)


def _whole_lines(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))
