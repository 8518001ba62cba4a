"""An archive goes to workers in portions of paths, and comes back as verdicts, in its order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from skad.cli._cluster import DIED, Cluster, Died
from skad.cli._messages import CommandError
from skad.cli._scores import PORTION, Failure, Finding
from skad.cli._workers import Job, score_portion


def score_on(
    cluster: Cluster, job: Job, paths: Sequence[str], names: Mapping[str, str]
) -> Iterator[Finding | Failure]:
    """Score images on a cluster.

    Parameters
    ----------
    cluster : Cluster
    job : Job
    paths : sequence of str
        As the user names them; workers get them absolute.
    names : mapping of str to str
        Of the pictures, by path; empty: none are drawn.

    Yields
    ------
    Finding or Failure
        One for each image, in the order of `paths`, without maps. Where workers die of a portion, its
        images are tried one by one, and that which kills them is a failure.
    """
    portions = (paths[i : i + PORTION] for i in range(0, len(paths), PORTION))
    # A second pass over what is out: results come in the order of the tasks.
    again = (paths[i : i + PORTION] for i in range(0, len(paths), PORTION))
    tasks = (_task(job, portion, names) for portion in portions)
    for portion, found in zip(again, cluster.in_order(score_portion, tasks), strict=True):
        if not isinstance(found, Died):
            yield from _named(portion, found)
        elif len(portion) == 1:
            yield _died(portion[0])
        else:
            yield from _one_by_one(cluster, job, portion, names)


def _one_by_one(
    cluster: Cluster, job: Job, portion: Sequence[str], names: Mapping[str, str]
) -> Iterator[Finding | Failure]:
    """Find the image that kills workers: each alone, so that it takes no other with it."""
    for path in portion:
        (found,) = cluster.in_order(score_portion, [_task(job, [path], names)])
        if isinstance(found, Died):
            yield _died(path)
        else:
            yield from _named([path], found)


def _task(
    job: Job, portion: Sequence[str], names: Mapping[str, str]
) -> tuple[Job, list[str], list[str]]:
    drawn = [names[path] for path in portion] if names else []
    return job, [os.path.abspath(path) for path in portion], drawn


def _named(
    portion: Sequence[str], found: Sequence[Finding | Failure]
) -> Iterator[Finding | Failure]:
    """Call images as the user does."""
    for path, one in zip(portion, found, strict=True):
        yield replace(one, path=path)


def _died(path: str) -> Failure:
    return Failure(path, CommandError(DIED))
