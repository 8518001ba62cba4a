"""Progress of long steps: scikit-learn's callbacks where they exist, and ``verbose``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skad._sklearn_compat import callback_context

# Called with the number of units of a stage that are done.
Advance = Callable[[int], None]

_SECONDS_BETWEEN_LINES = 2.0


def say(estimator: Any, text: str) -> None:
    """Print a line, as ``verbose`` does."""
    print(f"[{type(estimator).__name__}] {text}", file=sys.stderr)


class FitProgress:
    """Reports the stages of one ``fit`` and the steps inside each stage.

    Parameters
    ----------
    estimator : estimator
        The estimator that is being fitted; its ``verbose`` is read.
    n_stages : int
        Number of stages that will be entered.
    X, y : object
        What ``fit`` was given; handed to the callbacks that ask for it.
    """

    def __init__(self, estimator: Any, n_stages: int, X: Any = None, y: Any = None) -> None:
        self.estimator = estimator
        self._data = {"X": X, "y": y}
        self._context = callback_context(estimator, n_stages)

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Surround the whole fit."""
        if self._context is not None:
            self._context.call_on_fit_task_begin(estimator=self.estimator, **self._data)
        yield
        if self._context is not None:
            self._context.call_on_fit_task_end(estimator=self.estimator, **self._data)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """Enter a stage of `total` units; yields a function to call with the units done."""
        lines = _StageLines(self.estimator, name, total)
        ticks = _StageTicks(self.estimator, self._context, name, total)
        ticks.begin()

        def advance(done: int) -> None:
            ticks.update(done)
            lines.update(done)

        yield advance
        ticks.end()
        lines.finish()


class _StageTicks:
    """A stage as scikit-learn's callbacks see it: a task of at most 100 equal subtasks.

    The cap keeps the tree of contexts small when a stage has thousands of centers or images.
    """

    def __init__(self, estimator: Any, parent: Any, name: str, total: int) -> None:
        self.estimator, self.name, self.total = estimator, name, max(total, 1)
        self.n_ticks, self.ticked = min(self.total, 100), 0
        self.context = None
        if parent is not None:
            self.context = parent.subcontext(task_name=name, max_subtasks=self.n_ticks)

    def begin(self) -> None:
        if self.context is not None:
            self.context.call_on_fit_task_begin(estimator=self.estimator)

    def update(self, done: int) -> None:
        if self.context is None:
            return
        while self.ticked < min(done, self.total) * self.n_ticks // self.total:
            self.ticked += 1
            step = self.context.subcontext(task_name=f"{self.name} step")
            step.call_on_fit_task_begin(estimator=self.estimator)
            step.call_on_fit_task_end(estimator=self.estimator)

    def end(self) -> None:
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.estimator)


class _StageLines:
    """The lines that ``verbose`` prints. 1: one per stage; 2: also one every two seconds."""

    def __init__(self, estimator: Any, name: str, total: int) -> None:
        self.prefix = f"[{type(estimator).__name__}] {name}"
        self.verbose = int(estimator.verbose)
        self.total = total
        self.start = self.last = time.perf_counter()

    def update(self, done: int) -> None:
        now = time.perf_counter()
        if self.verbose >= 2 and now - self.last >= _SECONDS_BETWEEN_LINES:
            self.last = now
            print(
                f"{self.prefix}: {done} of {self.total}, {now - self.start:.1f} s", file=sys.stderr
            )

    def finish(self) -> None:
        if self.verbose >= 1:
            seconds = time.perf_counter() - self.start
            print(f"{self.prefix}: {self.total} in {seconds:.1f} s", file=sys.stderr)
