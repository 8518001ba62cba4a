"""A bar of progress: on a terminal alone, so that logs stay readable."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WIDTH = 30
_SECONDS_BETWEEN = 0.1


class Bar:
    """Draws how many of `total` images are done.

    Parameters
    ----------
    total : int
    visible : bool
        Whether anything is drawn.
    before : int, default=0
        Images that an earlier run has done.
    """

    def __init__(self, total: int, visible: bool, before: int = 0) -> None:
        self.total, self.visible = max(total, 1), visible
        self.done = self._before = before
        self._start, self._drawn = time.perf_counter(), 0.0

    def advance(self) -> None:
        """Count one image more."""
        self.done += 1
        now = time.perf_counter()
        if self.visible and (now - self._drawn >= _SECONDS_BETWEEN or self.done == self.total):
            self._drawn = now
            self._draw(now - self._start)

    def _draw(self, seconds: float) -> None:
        filled = _WIDTH * self.done // self.total
        bar = "#" * filled + "." * (_WIDTH - filled)
        rate = (self.done - self._before) / max(seconds, 1e-9)
        text = f"\r[{bar}] {self.done} of {self.total}, {rate:.1f} images/s "
        print(text, end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Empty the line, for a message or at the end."""
        if self.visible and self._drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def progress(total: int, before: int = 0) -> Iterator[Bar]:
    """Show a bar while images are worked on, if stderr is a terminal.

    Parameters
    ----------
    total : int
    before : int, default=0
        Images that an earlier run has done.

    Yields
    ------
    Bar
    """
    bar = Bar(total, sys.stderr.isatty(), before)
    try:
        yield bar
    finally:
        bar.clear()
