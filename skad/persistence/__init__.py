"""Detectors in files that hold numbers and text alone: nothing in them is ever executed.

A ``.skad`` file is a safetensors file. Its tensors are the arrays of the detector; its header holds the
rest as JSON, the versions it was written with, and a checksum over everything. Only what the tables of
`_declared` name is ever made from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sklearn
from sklearn.utils.validation import check_is_fitted

from skad._base import BaseDetector
from skad._common.text import shortened
from skad._common.version import __version__
from skad._common.warn import warn_user
from skad._features.weight_files import BACKBONE_PREFIX
from skad.persistence._archive import read, write
from skad.persistence._backbone import backbone_tensors, find_inside, is_own_backbone
from skad.persistence._content import SUFFIX, Reader, Writer
from skad.persistence._declared import DETECTORS

__all__ = ["load", "save"]

_FORMAT = "1"
# Characters that a message quotes of what is wrong with a file, whose author chooses them.
_LONGEST = 500


def save(
    detector: BaseDetector, path: str | os.PathLike[str], *, include_backbone: bool = False
) -> None:
    """Write a fitted detector to a file without pickle.

    Parameters
    ----------
    detector : detector
        Fitted. A ``memory`` is left behind, since its folder belongs to this machine, and so are
        callbacks.
    path : path-like
        Ends in ``.skad``. An older file of that name is replaced when the new one is complete and on
        the disk, and keeps its mode; a link is followed.
    include_backbone : bool, default=False
        Also write the weights of the backbone, for a machine that has none of them. ``skad_nano`` comes
        with skad and needs no such thing. Where `path` is the file that they are read from, they are
        written in any case.

    Raises
    ------
    ValueError
        For another suffix, or a parameter that is not a number, text or path (a network of your own, a
        RandomState): such detectors can be pickled.
    OSError
        If the file cannot be written; what was there stays.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    See Also
    --------
    load : The way back.

    Examples
    --------
    >>> import skad
    >>> skad.save(det, "line3.skad")  # doctest: +SKIP
    >>> skad.load("line3.skad").predict(paths)  # doctest: +SKIP
    """
    write_detector(detector, path, include_backbone=include_backbone, notes={})


def write_detector(
    detector: BaseDetector,
    path: str | os.PathLike[str],
    *,
    include_backbone: bool,
    notes: Mapping[str, str],
) -> None:
    """Do the work of :func:`save`, and keep notes in the header of the file.

    Parameters
    ----------
    detector, path, include_backbone
        As for :func:`save`.
    notes : mapping of str to str
        For whoever writes the file; :func:`load` does not read them, and what is saved once more has
        none.
    """
    path = _checked_path(path)
    if not isinstance(detector, DETECTORS):
        raise TypeError(f"{type(detector).__name__} is no detector of skad.")
    check_is_fitted(detector, "_params_at_fit")
    include_backbone = is_own_backbone(path, detector) or include_backbone
    writer = Writer()
    content = writer.encode(detector)
    try:
        Reader(writer.tensors).read(content)
    except ValueError as error:
        raise ValueError(
            f"this detector could not be read from a file: {shortened(str(error), _LONGEST)}."
        ) from error
    metadata = {
        **notes,
        "skad_format": _FORMAT,
        "skad_version": __version__,
        "sklearn_version": sklearn.__version__,
        "content": json.dumps(content),
    }
    backbone = backbone_tensors(detector) if include_backbone else {}
    write(path, metadata, writer.tensors | backbone)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a detector that :func:`save` has written.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    detector
        Fitted; scores as it did. Where the file holds the weights of the backbone, its `weights` is
        `path`, made absolute.

    Raises
    ------
    OSError
        If there is no such file (FileNotFoundError), or it must not be read (PermissionError).
    ValueError
        If the file is truncated, was changed, is none of skad's, or holds what no detector can; the
        message names the attribute.

    Warns
    -----
    UserWarning
        If it was written by another version of skad.

    Notes
    -----
    A checksum tells damage, not intent: whoever writes a file chooses the scores. What a file of
    strangers cannot do is run code, name a folder to be written to (`memory` is never read), or make
    scoring fail in other ways than by an error. It can name a file of weights, which is read as tensors
    when the detector first scores, and refused unless it is the backbone of the fit; to read none,
    pass one of your own with ``set_params(weights=...)`` first.
    """
    path = _checked_path(path)
    metadata, tensors = read(path)
    name = repr(os.fspath(path))
    version = _word(metadata["skad_version"])
    if metadata.get("skad_format") != _FORMAT:
        raise ValueError(
            f"{name} has format '{_word(metadata.get('skad_format', ''))}'; this skad ({__version__}) "
            f"reads {_FORMAT!r}. Install the version it was written with: {version}."
        )
    if metadata["skad_version"] != __version__:
        warn_user(
            f"{name} was written by skad {version}, this is {__version__}: compare its scores with "
            "known ones before you rely on it."
        )
    try:
        detector = _detector(metadata["content"], tensors)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"the content of {name} is not what skad writes: {shortened(str(error), _LONGEST)}."
        ) from error
    find_inside(detector, path, tensors)
    return detector


def _detector(content: str, tensors: dict[str, Any]) -> Any:
    own = {n: array for n, array in tensors.items() if not n.startswith(BACKBONE_PREFIX)}
    detector = Reader(own).read(json.loads(content))
    if not isinstance(detector, DETECTORS) or not hasattr(detector, "_params_at_fit"):
        raise ValueError("it is no fitted detector")
    return detector


def _word(text: str) -> str:
    """Show what a file says in one short line."""
    return shortened(repr(text)[1:-1], 60)


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if Path(path).suffix != SUFFIX:
        raise ValueError(f"path={os.fspath(path)!r} must end in {SUFFIX!r}.")
    return Path(path)
