"""Looking around in folders: images, tables, categories."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the images of a folder.

    Parameters
    ----------
    folder : Path
        One that does not exist has no images.
    suffixes : collection of str
        In lower case; files may have them in any.

    Returns
    -------
    list of Path
        In the order of their names. Hidden files, pipes, devices and other files are left out; links
        that lead nowhere are not, so that whoever reads them complains.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and os.path.splitext(entry.name)[1].lower() in suffixes
            and (entry.is_file() or not os.path.exists(entry.path))
        )
    return [folder / name for name in names]


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder.

    Parameters
    ----------
    folder : Path
        One that does not exist has no folders.

    Returns
    -------
    list of Path
        In the order of their names, without hidden ones.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    return [folder / name for name in names]


def read_table(file: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header.

    Parameters
    ----------
    file : Path
    columns : iterable of str
        Those that are needed.

    Returns
    -------
    list of dict
        A row each, cells stripped of white space.

    Raises
    ------
    ValueError
        If a column or a cell is missing.
    """
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise ValueError(
                f"{os.fspath(file)!r} has no column {', '.join(lacking)}; it has "
                f"{', '.join(header) or 'none'}."
            )
        rows = []
        for row in reader:
            if any(row[name] is None for name in columns):
                raise ValueError(f"{os.fspath(file)!r}, line {reader.line_num}: a cell is missing.")
            rows.append({name: (row[name] or "").strip() for name in header})
    return rows


def check_none_absent(absent: Sequence[str], n: int, where: str) -> None:
    """Complain about files that are not there.

    Parameters
    ----------
    absent : sequence of str
        Their names.
    n : int
        Number of files that were looked for.
    where : str
        What lists them, or where they ought to be.

    Raises
    ------
    FileNotFoundError
        If there are any; the first three are named.
    """
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise FileNotFoundError(
            f"{where}: {len(absent)} of {n} files are absent: {shown}. Unpack the archive again; a part "
            "of a data set would give other figures than the whole."
        )


def choose(category: str | None, found: Sequence[str], path: str | os.PathLike[str]) -> str:
    """Settle which category is meant.

    Parameters
    ----------
    category : str or None
        None: the only one.
    found : sequence of str
        The categories that are there; one at least.
    path : path-like
        Where, for the message.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it does not exist, or is not said and there are several. The message lists them.
    """
    listed = ", ".join(found)
    if category is None:
        if len(found) == 1:
            return found[0]
        raise ValueError(
            f"{os.fspath(path)!r} holds {len(found)} categories; say which, as in "
            f"category={found[0]!r}. There are {listed}."
        )
    if category not in found:
        near = difflib.get_close_matches(str(category), found, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no category {category!r} in {os.fspath(path)!r}.{hint} There are {listed}."
        )
    return category
