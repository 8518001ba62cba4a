"""What workers of a cluster run: paths come in, verdicts go out; a detector is loaded once in each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from skad._common.forks import LOADING, ObjectLock
from skad._common.version import __version__
from skad.cli._messages import CommandError, one_line
from skad.cli._models import load_model
from skad.cli._outputs import NoPictureError, Pictures
from skad.cli._scores import Failure, Finding, reason, score_images

_loading = ObjectLock()
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A detector that every worker must have: by its place and its content.

    Parameters
    ----------
    path : str
        Absolute.
    digest : str
        As :func:`content_of` gives it.
    version : str, default=that of this skad
        Of the skad that scores with it: another may score otherwise.
    """

    path: str
    digest: str
    version: str = __version__

    @classmethod
    def of(cls, path: str) -> ModelFile:
        """Take a file of this machine."""
        return cls(os.path.abspath(path), content_of(path))


# Of the latest detector alone: banks may be large.
_loaded: dict[ModelFile, Any] = {}


def content_of(path: str) -> str:
    """Digest a detector's file, and the thresholds that may stand beside it.

    Parameters
    ----------
    path : str

    Returns
    -------
    str
        Two files of one digest give the same verdicts.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with LOADING:
        from pathlib import Path

        from skad._runtime.thresholds_file import thresholds_path
    digest = hashlib.blake2b(digest_size=16)
    beside = thresholds_path(Path(path))
    for name in (path, *([beside] if beside.exists() else ())):
        with open(name, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def check_skad(version: str) -> None:
    """Refuse a client of another version.

    Raises
    ------
    CommandError
        If this worker's skad is not of that version.
    """
    if version != __version__:
        raise CommandError(
            f"{_here()} has skad {__version__}, this is {version}: install the same on both."
        )


def check_model(model: ModelFile) -> None:
    """Refuse a detector that is another here.

    Raises
    ------
    CommandError
        If this worker's skad is of another version, or its file is not there or another.
    """
    check_skad(model.version)
    try:
        digest = content_of(model.path)
    except OSError as error:
        raise CommandError(
            f"{_here()}: {one_line(error)} Workers read the folders of this machine by the same names."
        ) from error
    if digest != model.digest:
        raise CommandError(
            f"{_here()}: {model.path!r} is another file than on this machine, or was replaced since "
            "the start: give all workers the same."
        )


@dataclass(frozen=True)
class Job:
    """What is asked for of all images.

    Parameters
    ----------
    model : ModelFile
    regions : bool
    folder : str or None
        For pictures, absolute. They are written by the workers: maps do not travel.
    """

    model: ModelFile
    regions: bool
    folder: str | None


def score_portion(job: Job, paths: Sequence[str], names: Sequence[str]) -> list[Finding | Failure]:
    """Score some images.

    Parameters
    ----------
    job : Job
    paths : sequence of str
        Absolute.
    names : sequence of str
        Of their pictures, where these are wanted.

    Returns
    -------
    list of Finding or Failure
        One for each path, without maps. Errors are text in the words of skad's command line, since
        not every exception can travel.

    Raises
    ------
    CommandError
        If the detector cannot be loaded.
    """
    detector = _detector(job.model)
    pictures = None
    if job.folder is not None:
        named = dict(zip(paths, names, strict=True))
        # A worker that dask takes for dead may still be drawing what another has got.
        pictures = Pictures(job.folder, named, detector, by=f".{uuid4().hex[:8]}")
    found = score_images(detector, paths, regions=job.regions, heatmaps=pictures is not None)
    return [_to_travel(one, pictures, job.regions) for one in found]


def _to_travel(
    found: Finding | Failure, pictures: Pictures | None, regions: bool
) -> Finding | Failure:
    if isinstance(found, Failure):
        return Failure(found.path, CommandError(reason(found)))
    undrawn = None
    try:
        if pictures is not None:
            pictures.write(found)
    except NoPictureError as error:
        undrawn = reason(Failure(found.path, error))
    return replace(found, heatmap=None, regions=found.regions if regions else None, undrawn=undrawn)


def _detector(model: ModelFile) -> Any:
    """Load a detector, once in this process."""
    with _loading:
        if model not in _loaded:
            _loaded.clear()
            check_model(model)
            try:
                _loaded[model] = _ready(model.path)
            except Exception as error:
                raise CommandError(f"{_here()}: {one_line(error)}") from None
        return _loaded[model]


def _ready(path: str) -> Any:
    detector = load_model(path)
    if hasattr(detector, "_as_fitted"):
        detector._as_fitted()  # weights that are missing are no fault of any image
    return detector


def _here() -> str:
    """Name this worker."""
    with LOADING:
        import distributed
    try:
        return f"the worker {distributed.get_worker().address}"
    except ValueError:  # called by the scheduler's client.run, outside of any task
        return "a worker"
