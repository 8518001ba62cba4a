"""Thresholds that were moved on the line: a file beside the exported one, which stays as it is."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from skad._common.files import write_text
from skad._common.text import shortened
from skad._common.warn import warn_user
from skad._runtime.content import Thresholds

_FORMAT = 1
_SUFFIX = ".calibration.json"


def thresholds_path(path: Path) -> Path:
    """Name the file of the thresholds of an exported file: ``line3.onnx.calibration.json``."""
    return path.with_name(path.name + _SUFFIX)


def write_thresholds(path: Path, checksum: str, thresholds: Thresholds) -> None:
    """Write thresholds beside an exported file, whole or not at all.

    Parameters
    ----------
    path : Path
        Of the exported file.
    checksum : str
        Of that file: to no other do the thresholds belong.
    thresholds : Thresholds
    """
    content = {"format": _FORMAT, "belongs_to": checksum, **asdict(thresholds)}
    write_text(thresholds_path(path), json.dumps(content, indent=1) + "\n")


def read_thresholds(path: Path, checksum: str) -> Thresholds | None:
    """Read thresholds from beside an exported file.

    Parameters
    ----------
    path : Path
        Of the exported file.
    checksum : str

    Returns
    -------
    Thresholds or None
        None if there are none of this export.

    Raises
    ------
    ValueError
        If the file cannot be read as what skad writes.

    Warns
    -----
    UserWarning
        If the thresholds belong to another export.
    """
    beside = thresholds_path(path)
    try:
        text = beside.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        belongs = content["format"] == _FORMAT and content["belongs_to"] == checksum
        thresholds = Thresholds.of_json(content) if belongs else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{shortened(os.fspath(beside))!r} is not what calibrate writes "
            f"({type(error).__name__}: {shortened(str(error))}): delete it, and calibrate again."
        ) from error
    if thresholds is None:
        warn_user(
            f"{shortened(os.fspath(beside))!r} belongs to another export: the threshold is that of the "
            "export itself. Calibrate again, or delete that file."
        )
    return thresholds
