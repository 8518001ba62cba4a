"""Images as a command line names them: files, folders, globs, and tables with a column of paths."""

from __future__ import annotations

import csv
import glob
import os
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path

from skad._common.image_files import images, subfolders, suffix_of
from skad.cli._messages import CommandError, UsageError

HELP = (
    "image files, folders (the images in them, not those in their subfolders), globs in quotes "
    '("parts/**/*.png"), or a CSV file with a column "path"'
)
_COLUMN = "path"


def add_images(parser: ArgumentParser, *, nargs: str = "+", what: str = "") -> None:
    """Add the argument that names images."""
    parser.add_argument("images", nargs=nargs, metavar="IMAGES", help=f"{what}{HELP}")


def find_images(named: Sequence[str]) -> list[str]:
    """List the images that a command line names.

    Parameters
    ----------
    named : sequence of str
        Files, folders, globs, CSV files; in this order.

    Returns
    -------
    list of str
        Each file once. A file that was named itself need not exist: whoever reads it says so.

    Raises
    ------
    CommandError
        If a folder, a glob or a table has none.
    """
    found = [path for name in named for path in _found(name)]
    return list(dict.fromkeys(found))


def _found(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        return _in_folder(path)
    if suffix_of(name) == ".csv":
        return _in_table(path)
    if glob.has_magic(name) and not path.exists():
        return _matching(name)
    return [name]


def _in_folder(folder: Path) -> list[str]:
    found = images(folder)
    if not found:
        raise CommandError(f"no images in {os.fspath(folder)!r}{_deeper(folder)}.")
    return [os.fspath(path) for path in found]


def _deeper(folder: Path) -> str:
    having = [sub.name for sub in subfolders(folder) if images(sub)]
    if not having:
        return ""
    listed = ", ".join(having[:4]) + (", ..." if len(having) > 4 else "")
    return (
        f", but in its subfolders ({listed}): name those that are meant, or all of them as "
        f"{os.fspath(folder / '**' / '*.png')!r}"
    )


def _matching(pattern: str) -> list[str]:
    found = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not found:
        raise CommandError(f"no file matches {pattern!r}.")
    return found


def _in_table(path: Path) -> list[str]:
    names, rows = read_table(path)
    if _COLUMN not in names:
        raise CommandError(
            f"{os.fspath(path)!r} has no column {_COLUMN!r}, only {', '.join(names) or 'none'}: "
            "write the names of its columns into its first line."
        )
    place = names.index(_COLUMN)
    found = [_cell(row, place, f"{os.fspath(path)!r}, row {i}") for i, row in rows]
    if not found:
        raise CommandError(f"{os.fspath(path)!r} lists no images.")
    return found


def read_table(path: str | os.PathLike[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a CSV file whose first line names its columns.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    names : list of str
        Of the columns, in lower case; empty for an empty file.
    rows : list of (int, list of str)
        Each with its number in the file; empty lines are left out.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        header = file.readline()
        # Spreadsheets write semicolons where the comma is in numbers.
        delimiter = max(",;\t", key=header.count)
        file.seek(0)
        rows = list(csv.reader(file, delimiter=delimiter))
    names = [cell.strip().lower() for cell in rows[0]] if rows else []
    return names, [(i, row) for i, row in enumerate(rows[1:], 2) if row]


def _cell(row: list[str], place: int, where: str) -> str:
    text = row[place].strip() if place < len(row) else ""
    if not text:
        raise CommandError(f"{where}: the path is empty.")
    return text


def refuse_overwriting(outputs: Iterable[str | None], inputs: Iterable[str]) -> None:
    """Raise a UsageError if what is to be written would take the place of what is read, or written."""
    read, written = {os.path.realpath(path) for path in inputs}, set()
    for path in outputs:
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in read:
            raise UsageError(f"{path!r} is read by this command: write to another file")
        if real in written:
            raise UsageError(f"{path!r} is to be written twice: name two files")
        written.add(real)
