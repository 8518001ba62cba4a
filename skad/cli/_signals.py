"""Ctrl-C and SIGTERM: a command ends at once, but never in the middle of what it writes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asks the command to end; no ``except Exception`` on the way may swallow it."""


class _Hold:
    """Whether the program is in the middle of writing, and what has been asked for meanwhile."""

    depth = 0
    asked: str | None = None


def _stop(signum: int, frame: FrameType | None) -> None:
    name = signal.Signals(signum).name
    if _Hold.depth:
        _Hold.asked = name
        return
    raise Stopped(name)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn signals that ask to end into :class:`Stopped`.

    Only the main thread receives signals: elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield
    finally:
        _Hold.depth, _Hold.asked = 0, None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def whole() -> Iterator[None]:
    """Let the block come to its end before a signal ends the command."""
    _Hold.depth += 1
    try:
        yield
    finally:
        _Hold.depth -= 1
        asked, _Hold.asked = (_Hold.asked, None) if not _Hold.depth else (None, _Hold.asked)
    if asked is not None:
        raise Stopped(asked)
