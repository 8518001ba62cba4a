"""Files that grow while images are scored: at any moment they hold whole lines, and whole pictures."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from skad._common.forks import LOADING
from skad._common.text import readable
from skad.cli._scores import Failure, Finding, reason

_COLUMNS = ("path", "score", "p_value", "verdict")


class Lines:
    """A file that grows line by line; each is handed to the system as a whole.

    Parameters
    ----------
    path : str
    append : bool, default=False
        Go on where the file ends; else it is emptied.
    """

    def __init__(self, path: str, *, append: bool = False) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
        self._file = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)

    def write(self, text: str) -> None:
        """Write a line, which ends in a line feed."""
        # Names of files may hold bytes that are no text: they are written as they are.
        self._put(text.encode("utf-8", "surrogateescape"))

    def _put(self, left: bytes) -> None:
        while left:
            left = left[os.write(self._file, left) :]

    def flush(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Csv:
    """A table: path, score, p_value, verdict. An image that could not be scored has no row.

    Parameters
    ----------
    to : Lines or text stream
    header : bool, default=True
        Whether the names of the columns are still to be written.
    """

    def __init__(self, to: Lines | TextIO, *, header: bool = True) -> None:
        self._to = to
        if header:
            self._to.write(_csv_line(_COLUMNS))

    def write(self, found: Finding | Failure) -> None:
        """Write the row of an image."""
        if isinstance(found, Finding):
            p_value = "" if found.p_value is None else repr(found.p_value)
            line = _csv_line((found.path, repr(found.score), p_value, found.verdict))
            # A terminal shows characters alone; a file gets the name of an image byte by byte.
            self._to.write(line if isinstance(self._to, Lines) else readable(line))

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._to, Lines):
            self._to.close()


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


class Jsonl:
    """A line of JSON for each image: path, score, p_value, verdict, size and regions, or the error.

    Parameters
    ----------
    to : Lines
    """

    def __init__(self, to: Lines) -> None:
        self._to = to

    def write(self, found: Finding | Failure) -> None:
        """Write the line of an image."""
        self._to.write(json_line(found))

    def close(self) -> None:
        """Close the file."""
        self._to.close()


def json_line(found: Finding | Failure, **more: Any) -> str:
    """Say in a line of JSON what was found in an image.

    Parameters
    ----------
    found : Finding or Failure
    **more
        Further entries, which follow the path.

    Returns
    -------
    str
        Ends in a line feed.
    """
    line: dict[str, Any] = {"image": found.path, **more}
    if isinstance(found, Failure):
        return json.dumps({**line, "error": reason(found)}) + "\n"
    line |= {"score": found.score, "p_value": found.p_value, "verdict": found.verdict}
    if found.regions is not None:
        of_regions = json.loads(found.regions.to_json_lines())
        line |= {name: value for name, value in of_regions.items() if name != "image"}
    return json.dumps(line, allow_nan=False) + "\n"


class NoPictureError(Exception):
    """An image that was scored cannot be read any more."""


class Pictures:
    """A picture for each image that was scored, with its heat map over it.

    Parameters
    ----------
    folder : str
        Made if it does not exist.
    names : dict of str to str
        Of the pictures, by the path of the image: :func:`picture_names`.
    model : fitted detector, or an exported one
    by : str, default=""
        Who draws, where several processes may draw the same picture at a time.
    """

    def __init__(self, folder: str, names: dict[str, str], model: Any, by: str = "") -> None:
        with LOADING:
            from skad._overlay import HeatmapOverlay
        self._folder, self._names, self._by = Path(folder), names, by
        self._overlay = HeatmapOverlay(model)
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, found: Finding | Failure) -> None:
        """Draw the picture of an image, which replaces an older one as a whole.

        Raises
        ------
        NoPictureError
            If the image cannot be read any more.
        """
        if isinstance(found, Failure) or found.heatmap is None:
            return
        try:
            picture = self._overlay.draw(found.path, found.heatmap, found.regions[0])
        except ValueError as error:
            raise NoPictureError(str(error)) from error
        path = self._folder / self._names[found.path]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all; to wait for the disk, as for a detector, would take longer than to draw.
        unfinished = path.with_name(f".{path.name}{self._by}.part")
        picture.save(unfinished, format="PNG", compress_level=1)
        os.replace(unfinished, path)

    def close(self) -> None:
        """Do nothing: every picture is on the disk."""


class Drawn:
    """Stands for the pictures of images that workers of a cluster have scored, and drawn."""

    def write(self, found: Finding | Failure) -> None:
        """Pass on what a worker says.

        Raises
        ------
        NoPictureError
            If the image could not be read any more.
        """
        if isinstance(found, Finding) and found.undrawn is not None:
            raise NoPictureError(found.undrawn)

    def close(self) -> None:
        """Do nothing: every picture is on the disk."""


def picture_names(paths: Sequence[str]) -> dict[str, str]:
    """Name a picture for each image, so that no two are the same.

    Parameters
    ----------
    paths : sequence of str

    Returns
    -------
    dict of str to str
        By path: the name of the image with ``.png``, below the folders in which images differ. Where
        images differ in their suffixes alone, suffixes stay in the names.

    Examples
    --------
    >>> picture_names(["new/a/1.png", "new/b/1.jpg"])
    {'new/a/1.png': 'a/1.png', 'new/b/1.jpg': 'b/1.png'}
    >>> picture_names(["new/1.jpg", "new/1.bmp"])
    {'new/1.jpg': '1.jpg.png', 'new/1.bmp': '1.bmp.png'}
    """
    absolute = {path: os.path.abspath(path) for path in paths}
    folders = {os.path.dirname(path) for path in absolute.values()}
    try:
        top = os.path.commonpath(folders) if folders else ""
    except ValueError:  # on several drives
        return {path: f"{i}-{os.path.basename(path)}.png" for i, path in enumerate(paths)}
    below = {path: os.path.relpath(file, top) for path, file in absolute.items()}
    short = {path: os.path.splitext(name)[0] for path, name in below.items()}
    chosen = short if len(set(short.values())) == len(short) else below
    return {path: f"{name}.png" for path, name in chosen.items()}
