"""Fitted detectors in files: ``.skad``, and exported ones."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from skad._common.forks import LOADING
from skad._common.image_files import suffix_of
from skad.cli._messages import CommandError, UsageError

SKAD, ONNX = ".skad", ".onnx"


def add_model(parser: ArgumentParser, what: str = "a fitted detector, .skad or .onnx") -> None:
    """Add the argument that names a detector."""
    parser.add_argument("model", metavar="MODEL", help=what)


def load_model(path: str, *suffixes: str) -> Any:
    """Load a detector.

    Parameters
    ----------
    path : str
    *suffixes : str
        Which files the command takes; none: all.

    Returns
    -------
    object
        Fitted, with the methods of a detector.

    Raises
    ------
    UsageError
        For another suffix.
    CommandError
        If there is no such file.
    """
    check_model_file(path, *suffixes)
    with LOADING:
        import skad
    return skad.load(path)


def check_model_file(path: str, *suffixes: str) -> None:
    """Refuse, before any work, what is no file of a detector.

    Parameters
    ----------
    path : str
    *suffixes : str
        Which files the command takes; none: all.

    Raises
    ------
    UsageError
        For another suffix.
    CommandError
        If there is no such file.
    """
    taken = suffixes or (SKAD, ONNX)
    if suffix_of(path) not in taken:
        raise UsageError(f"the model {path!r} must be a {' or '.join(taken)} file")
    if not os.path.exists(path):
        raise CommandError(f"{path!r}: there is no such file.")


def check_new_file(path: str, *suffixes: str) -> None:
    """Refuse, before any work, a file that could not be written at its end.

    Parameters
    ----------
    path : str
    *suffixes : str
        One of which it must have; none: whatever it has.

    Raises
    ------
    UsageError
        For another suffix.
    CommandError
        If its folder does not exist or must not be written to, or `path` is a folder.
    """
    if suffixes and suffix_of(path) not in suffixes:
        raise UsageError(f"the file {path!r} must end in {' or '.join(suffixes)}")
    folder = Path(path).parent
    if not folder.is_dir():
        raise CommandError(f"the folder {os.fspath(folder)!r} does not exist: create it first.")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"the folder {os.fspath(folder)!r} must not be written to.")
    if Path(path).is_dir():
        raise CommandError(f"{path!r} is a folder: name a file in it.")
