"""Fits for the rows of a table, here or on a cluster; what is there already is left as it is."""

from __future__ import annotations

import hashlib
import json
import os
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from skad._common.forks import LOADING
from skad._common.version import __version__
from skad.cli._cluster import DIED, Died, connect
from skad.cli._detectors import expectation, make_detector, summary
from skad.cli._messages import CommandError, UsageError, one_line, say
from skad.cli._table import Line, read_lines
from skad.cli._workers import check_skad

_NOTE = "fitted_from"
# What decides about time and messages, not about the detector.
_FREE = ("n_jobs", "verbose", "memory", "max_memory")
# Files of this machine that a worker looks for in a folder of its own.
_FILES = ("weights", "roi", "memory")


@dataclass(frozen=True)
class Task:
    """A fit, as it travels.

    Parameters
    ----------
    name : str
    images : list of str
    out : str
    kind : str
    params : dict of str to object
    include_backbone : bool
    note : str
        Is put into the file: what it was fitted from.
    version : str, default=that of this skad
    """

    name: str
    images: list[str]
    out: str
    kind: str
    params: dict[str, Any]
    include_backbone: bool
    note: str
    version: str = __version__


@dataclass(frozen=True)
class Outcome:
    """What has become of a fit.

    Parameters
    ----------
    text : str
        What to say.
    fitted : bool
    """

    text: str
    fitted: bool


def fit_table(args: Namespace) -> int:
    """Fit what a table names and is not there yet; answer by the exit code."""
    if os.path.exists(args.out) and not os.path.isdir(args.out):
        raise UsageError(f"-o {args.out!r} is a file: with --table, name a folder")
    lines = read_lines(args)
    tasks = [_task(line, args) for line in lines]
    stored = [_stored(task, line.where) for line, task in zip(lines, tasks, strict=True)]
    left = [task for task, found in zip(tasks, stored, strict=True) if not _is_there(task, found)]
    os.makedirs(args.out, exist_ok=True)
    n_fitted = 0
    for task, outcome in zip(left, _outcomes(args, left), strict=True):
        n_fitted += outcome.fitted
        if outcome.fitted:
            print(f"{task.name}: {outcome.text}", flush=True)
        else:
            say(f"not fitted: {task.name!r}: {outcome.text}")
    failed = len(left) - n_fitted
    told = f", {failed} could not be fitted" if failed else ""
    say(f"{len(tasks)} rows: {n_fitted} fitted, {len(tasks) - len(left)} there already{told}")
    return int(failed > 0)


def _task(line: Line, args: Namespace) -> Task:
    note = json.dumps(_settings(line, args.include_backbone), sort_keys=True)
    return Task(
        line.name, line.images, line.out, line.kind, line.params, args.include_backbone, note
    )


# ---- what is there already ------------------------------------------------------------------------


def _settings(line: Line, include_backbone: bool) -> dict[str, Any]:
    """List what decides about a detector: its parameters, and the images by name, size and date."""
    params = line.detector.get_params(deep=False)
    files = {name: _stamp(params[name]) for name in _FILES if isinstance(params.get(name), str)}
    return {
        "detector": type(line.detector).__name__,
        "images": _digest(line.images),
        "skad": __version__,
        "include_backbone": include_backbone,
        **{name: repr(value) for name, value in params.items() if name not in _FREE},
        **{f"content of {name}": stamp for name, stamp in files.items() if stamp},
    }


def _digest(paths: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(json.dumps([os.fsencode(path).hex(), _stamp(path)]).encode())
    return digest.hexdigest()


def _stamp(path: str) -> list[int]:
    """Size and date of a file; nothing if it is none, which whoever reads it will say."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _stored(task: Task, where: str) -> dict[str, Any] | None:
    """Read what the file that is there was fitted from; None if there is none.

    Raises
    ------
    CommandError
        If the file is of another origin: it is not for this command to replace it.
    """
    if not os.path.exists(task.out):
        return None
    found = _note_in(task.out)
    if found is None:
        raise CommandError(
            f"{where}: {task.out!r} is there, and not as a fit of a table has left it: fitted by "
            "another command, or calibrated since. Move it away, or name another output."
        )
    return found


def _is_there(task: Task, found: dict[str, Any] | None) -> bool:
    """Whether a fit is done; say so, or why it is done once more."""
    if found is None:
        return False
    wanted = json.loads(task.note)
    changed = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if not changed:
        say(f"{task.name}: {task.out!r} is there already")
        return True
    say(f"{task.name}: {task.out!r} is fitted once more, for another {' and '.join(changed)}")
    return False


def _note_in(path: str) -> dict[str, Any] | None:
    """Read what a file was fitted from; None if it does not say."""
    with LOADING:
        import safetensors
    try:
        with safetensors.safe_open(path, framework="np") as file:
            found = json.loads((file.metadata() or {})[_NOTE])
    except (safetensors.SafetensorError, OSError, ValueError, KeyError):
        return None
    return found if isinstance(found, dict) else None


# ---- fits -----------------------------------------------------------------------------------------


def _outcomes(args: Namespace, tasks: Sequence[Task]) -> Iterator[Outcome]:
    if args.cluster is None or not tasks:
        yield from map(fit_one, tasks)
        return
    with connect(args.cluster) as cluster:
        cluster.check(check_skad, __version__)
        found = cluster.in_order(fit_one, ((_absolute(task),) for task in tasks))
        for task, outcome in zip(tasks, found, strict=True):
            yield _seen_here(task, outcome)


def fit_one(task: Task) -> Outcome:
    """Fit and save; what is wrong with this fit is told, and stops no other.

    Parameters
    ----------
    task : Task

    Returns
    -------
    Outcome
    """
    try:
        check_skad(task.version)
        return Outcome(_fit(task), True)
    except Exception as error:
        return Outcome(one_line(error), False)


def _fit(task: Task) -> str:
    with LOADING:
        from skad.persistence import write_detector
    detector = make_detector(task.kind, task.params)
    start = time.perf_counter()
    detector.fit(task.images)
    seconds = time.perf_counter() - start
    write_detector(
        detector, task.out, include_backbone=task.include_backbone, notes={_NOTE: task.note}
    )
    threshold = expectation(detector).splitlines()[0]
    return (
        f"learned from {len(task.images)} good images in {seconds:.1f} s: {summary(detector)}; "
        f"{threshold}"
    )


def _absolute(task: Task) -> Task:
    """Name files as a worker finds them, whose current folder is another."""
    files = {
        name: os.path.abspath(value)
        for name, value in task.params.items()
        if name in _FILES and isinstance(value, str) and os.path.exists(value)
    }
    return replace(
        task,
        images=[os.path.abspath(path) for path in task.images],
        out=os.path.abspath(task.out),
        params={**task.params, **files},
    )


def _seen_here(task: Task, outcome: Outcome | Died) -> Outcome:
    if isinstance(outcome, Died):
        return Outcome(DIED, False)
    if outcome.fitted and not os.path.exists(task.out):
        return Outcome(
            f"a worker has written {os.path.abspath(task.out)!r}, which is not here: workers must share "
            "the folder",
            False,
        )
    return outcome
