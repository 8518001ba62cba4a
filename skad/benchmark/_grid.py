"""Values of parameters as a command line writes them: ``k=3,5``."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read ``NAME=VALUE[,VALUE...]``.

    Parameters
    ----------
    texts : sequence of str
        A value is a Python literal, or else a string. Commas inside brackets or quotes belong to it.

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
            raise ValueError(f"--set {text!r}: write NAME=VALUE or NAME=VALUE,VALUE.")
        if name in grid:
            raise ValueError(f"--set names {name!r} twice: write {name}=VALUE,VALUE.")
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
