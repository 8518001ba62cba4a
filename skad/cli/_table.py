"""A table of lines: each row is a detector to be fitted. All of it is checked before the first fit."""

from __future__ import annotations

import difflib
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skad._common.image_files import suffix_of
from skad.cli._detectors import (
    CLASSES,
    given,
    make_detector,
    parameters_of_all,
    read_parameters,
)
from skad.cli._inputs import find_images, read_table, refuse_overwriting
from skad.cli._messages import CommandError, UsageError
from skad.cli._models import SKAD, check_new_file

COLUMNS = (
    "name, images (a folder, a glob or a CSV file with a column of paths), and if wanted output "
    "(default: NAME.skad), detector, false_alarm_rate and parameters of detectors by their names; an "
    "empty cell leaves what the options say"
)
_NEEDED = ("name", "images")
# What is no parameter of a detector.
_OWN = (*_NEEDED, "output", "detector")
_OTHER_NAMES = {"false_alarm_rate": "target_false_alarm_rate"}


@dataclass(frozen=True)
class Line:
    """A row: a detector to be fitted.

    Parameters
    ----------
    name : str
    images : list of str
        Good ones.
    out : str
    kind : str
        Of the detector, in :data:`skad.cli._detectors.CLASSES`.
    params : dict of str to object
        That are not the defaults.
    detector : detector
        Unfitted, with these parameters.
    where : str
        The row, for messages.
    """

    name: str
    images: list[str]
    out: str
    kind: str
    params: dict[str, Any]
    detector: Any
    where: str


def read_lines(args: Namespace) -> list[Line]:
    """Read the table that a command line names.

    Parameters
    ----------
    args : Namespace
        Of ``skad fit``; its options hold for all rows whose cells do not say otherwise.

    Returns
    -------
    list of Line

    Raises
    ------
    CommandError
        At the first thing that is wrong: a column that is missing or unknown, a name or an output that
        comes twice, no images, a parameter that cannot be.
    UsageError
        If the options themselves are wrong.
    """
    columns, rows = read_table(args.table)
    _check_columns(columns, args.table)
    shared = given(args)
    lines = [
        _line(_cells(columns, row, where), where, args, shared)
        for i, row in rows
        if (where := f"{args.table!r}, row {i}") and any(map(str.strip, row))
    ]
    if not lines:
        raise CommandError(f"{args.table!r} has no rows.")
    _refuse_doubles(((line.name, line.where) for line in lines), "the name")
    _refuse_doubles(((os.path.realpath(line.out), line.where) for line in lines), "the output")
    for line in lines:
        with _Where(line.where):
            refuse_overwriting([line.out], [*line.images, args.table])
    return lines


class _Where:
    """Names the row in errors about it: a table is a file, and no part of the command line."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, UsageError | CommandError | OSError):
            raise CommandError(f"{self._where}: {_sentence(str(error))}") from error


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _check_columns(columns: Sequence[str], table: str) -> None:
    for name in _NEEDED:
        if name not in columns:
            raise CommandError(
                f"{table!r} has no column {name!r}, only {', '.join(columns) or 'none'}: its first line "
                "must name its columns."
            )
    known = {*_OWN, *_OTHER_NAMES, *parameters_of_all(), ""}
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "no detector has it."
            raise CommandError(f"{table!r}: the column {name!r} is no parameter: {hint}")
        if name and columns.count(name) > 1:
            raise CommandError(f"{table!r} has two columns {name!r}.")


def _cells(columns: Sequence[str], row: Sequence[str], where: str) -> dict[str, str]:
    """Give the cells that are filled their names."""
    filled = {i: text.strip() for i, text in enumerate(row) if text.strip()}
    if any(i >= len(columns) or not columns[i] for i in filled):
        raise CommandError(
            f"{where}: a cell stands in no named column: put one that holds commas into quotes."
        )
    return {columns[i]: text for i, text in filled.items()}


def _line(cells: Mapping[str, str], where: str, args: Namespace, shared: Mapping[str, Any]) -> Line:
    filled = {name: text.strip() for name, text in cells.items() if text.strip()}
    with _Where(where):
        for name in _NEEDED:
            if name not in filled:
                raise CommandError(f"{name!r} is empty.")
        kind = filled.get("detector", args.detector)
        if kind not in CLASSES:
            raise CommandError(f"there is no detector {kind!r}, only {', '.join(CLASSES)}.")
        params = {**shared, **dict(_parameters(filled))}
        detector = make_detector(kind, params, "a column, or --set")
        out = os.path.join(args.out, filled.get("output", f"{filled['name']}{SKAD}"))
        _check_output(out, args.out)
        images = find_images([filled["images"]])
    return Line(filled["name"], images, out, kind, params, detector, where)


def _parameters(filled: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, text in filled.items():
        if name not in _OWN:
            named = _OTHER_NAMES.get(name, name)
            yield named, read_parameters([f"{named}={text}"], "the column")[named]


def _check_output(out: str, folder: str) -> None:
    """Refuse what could not be written; the folder itself is made later."""
    if Path(out).parent == Path(folder) and not os.path.exists(folder):
        if suffix_of(out) != SKAD:
            raise UsageError(f"the file {out!r} must end in {SKAD}")
    else:
        check_new_file(out, SKAD)


def _refuse_doubles(found: Iterator[tuple[str, str]], what: str) -> None:
    seen: dict[str, str] = {}
    for value, where in found:
        if value in seen:
            raise CommandError(
                f"{where}: {what} {value!r} is that of {seen[value].rpartition(', ')[2]} too."
            )
        seen[value] = where
