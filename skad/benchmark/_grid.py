"""Values of parameters as a command line writes them: ``k=3,5``."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any


def parse_grids(common: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, list[Any]]]:
    """Read the texts of ``--set``, and those of each ``--row``, to which the former are added.

    Parameters
    ----------
    common : sequence of str
    rows : sequence of sequences of str
        May be empty.

    Returns
    -------
    list of dict of str to list
        One for each row, or that of `common` alone.

    Raises
    ------
    ValueError
        As :func:`parse_grid`, or if a name is in a row and in `common`.

    Examples
    --------
    >>> parse_grids(["b=3,9"], [["k=5"], ["k=7", "m=1.0"]])
    [{'k': [5], 'b': [3, 9]}, {'k': [7], 'm': [1.0], 'b': [3, 9]}]
    """
    shared = parse_grid(common)
    grids = [parse_grid(row, "--row") for row in rows]
    for grid in grids:
        for name in grid.keys() & shared.keys():
            raise ValueError(f"--row and --set both name {name!r}: write it in each --row.")
    return [grid | shared for grid in grids or [{}]]


def parse_grid(texts: Sequence[str], option: str = "--set") -> dict[str, list[Any]]:
    """Read ``NAME=VALUE[,VALUE...]``.

    Parameters
    ----------
    texts : sequence of str
        A value is a Python literal, or else a string. Commas inside brackets or quotes belong to it.
    option : str, default="--set"
        Whose texts they are, for errors.

    Returns
    -------
    dict of str to list
        Values by name.

    Raises
    ------
    ValueError
        If a text has no "=", or a name comes twice.

    Examples
    --------
    >>> parse_grid(["layers=(2,3),(1,2,3)", "backbone=skad_nano", "b=None,9"])
    {'layers': [(2, 3), (1, 2, 3)], 'backbone': ['skad_nano'], 'b': [None, 9]}
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"{option} {text!r}: write NAME=VALUE or NAME=VALUE,VALUE.")
        if name in grid:
            raise ValueError(f"{option} names {name!r} twice: write {name}=VALUE,VALUE.")
        grid[name] = [_literal(value) for value in _parted(values)]
    return grid


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _parted(text: str) -> Iterator[str]:
    """Split at the commas outside of brackets and quotes."""
    start, depth, quote = 0, 0, ""
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and not depth:
            yield text[start:i]
            start = i + 1
    yield text[start:]
