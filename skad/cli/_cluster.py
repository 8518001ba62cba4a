"""A cluster of dask: tasks go out in portions, a window of them at a time, and come back in order."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from skad._common.forks import LOADING
from skad.cli._messages import CommandError, say

# Tasks for each thread of the workers that are out at a time: one is worked on while others wait.
_AHEAD = 3
_CONNECT_SECONDS, _LOOK_SECONDS = 30.0, 5.0
# asyncio's is what dask raises; older versions raise the other.
_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
# What is said of a task without a result.
DIED = "every worker that had it has died, for want of memory perhaps: their logs tell more."


class Died(NamedTuple):
    """No result: whichever worker had the task has died, as often as dask tries."""


def add_cluster(parser: ArgumentParser, what: str) -> None:
    """Add the option that names a cluster."""
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help=f"of a dask scheduler, such as tcp://scheduler:8786, whose workers {what}; they see the "
        "same folders under the same names and have the same skad (needs skad[dask])",
    )


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Connect to a scheduler, and wait for its first worker.

    Parameters
    ----------
    address : str

    Yields
    ------
    Cluster

    Raises
    ------
    CommandError
        If dask is not installed, or no scheduler or no worker answers.
    """
    try:
        with LOADING:
            import distributed
    except ImportError as error:
        raise CommandError(f'--cluster needs dask ({error}): pip install "skad[dask]".') from error
    # What goes wrong is raised as well, and told in one line.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, distributed.TimeoutError) as error:
        raise CommandError(f"no scheduler of dask answers at {address!r}.") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except distributed.TimeoutError as error:
            raise CommandError(
                f"the scheduler at {address!r} has no workers: start one."
            ) from error
        yield Cluster(client, address)


class Cluster:
    """The workers of a scheduler.

    Parameters
    ----------
    client : distributed.Client
    address : str
        Of the scheduler, for messages.
    """

    def __init__(self, client: Any, address: str) -> None:
        with LOADING:
            import distributed
            from distributed.scheduler import KilledWorker
        self._client, self._address = client, address
        self._timeout, self._killed_worker = distributed.TimeoutError, KilledWorker
        self._n_ahead, self._looked = 0, float("-inf")

    def check(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on every worker that is there; what it raises is raised here."""
        self._client.run(function, *args)

    def in_order(
        self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[Any]:
        """Call a function for each task, on whichever worker is free.

        Parameters
        ----------
        function : callable
            Of a module that the workers can import. What it raises ends everything: it catches what
            concerns its own task alone.
        tasks : iterable of tuple
            Arguments; read as results come in.

        Yields
        ------
        object or Died
            The results, in the order of the tasks.

        Raises
        ------
        CommandError
            If the scheduler has gone.
        """
        tasks, out = iter(tasks), deque[Any]()
        while True:
            while len(out) < self._window() and (task := next(tasks, None)) is not None:
                out.append(self._client.submit(function, *task, pure=False))
            if not out:
                return
            yield self._result(out.popleft())

    def _window(self) -> int:
        """Count the tasks that may be out; workers come and go."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._n_ahead = _AHEAD * max(1, sum(self._client.nthreads().values()))
        return self._n_ahead

    def _result(self, future: Any) -> Any:
        try:
            return self._waited_for(future)
        except self._killed_worker:
            return Died()
        except _CANCELLED as error:
            raise CommandError(
                f"the scheduler at {self._address!r} has gone, or has dropped what was asked of it."
            ) from error

    def _waited_for(self, future: Any) -> Any:
        """Wait for a result, and say once if there is nobody to give it."""
        told = False
        while not future.done():
            try:
                return future.result(timeout=_CONNECT_SECONDS)
            except self._timeout:  # of this wait, or of what was called
                if not told and not self._client.nthreads():
                    told = True
                    say(
                        f"the scheduler at {self._address!r} has no workers any more: waiting for one"
                    )
        return future.result()
