"""Ordered work in a bounded number of threads, a bounded number of tasks ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_MAX_WORKERS = 8


def available_workers() -> int:
    """Count the threads worth starting for decoding: the CPUs of this process, at most 8.

    Returns
    -------
    int
        At least 1.
    """
    if not hasattr(os, "sched_getaffinity"):
        return min(_MAX_WORKERS, os.cpu_count() or 1)
    # cpu_count is the machine's; a container or a loky worker may own fewer.
    return min(_MAX_WORKERS, len(os.sched_getaffinity(0)))


def ordered_map(
    function: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    *,
    n_workers: int,
    window: int,
) -> Generator[_Result, None, None]:
    """Map a function over tasks in threads; results and errors come in the order of the tasks.

    Parameters
    ----------
    function : callable
        Called once for each task, from any thread.
    tasks : iterable
        Consumed lazily, `window` tasks ahead of the consumer.
    n_workers : int
        Number of threads; 0 works in the calling thread, one task at a time.
    window : int
        The largest number of tasks started or waiting beyond those already handed over, at least 1.

    Yields
    ------
    object
        ``function(task)``. The first failing task, in order, raises here; closing the generator
        cancels what has not started and waits for what has.
    """
    if n_workers == 0:
        yield from map(function, tasks)
        return
    # A pool of its own for every stream: nothing outlives the call, and nothing is there to be
    # inherited by a process that forks.
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="skad-images")
    pending: deque[Future[_Result]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) == window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
