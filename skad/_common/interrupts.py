"""Ctrl-C during a long training: finish the step, then stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether the user has asked to stop."""

    requested: bool = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Note Ctrl-C instead of raising KeyboardInterrupt in the middle of a step.

    A second one raises at once. Only the main thread receives signals; elsewhere, and where the
    program has a handler of its own, nothing changes.

    Yields
    ------
    Interrupt
    """
    interrupt = Interrupt()

    def note(signum: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    except KeyboardInterrupt:
        # From a callback, or the second one: the caller's loop is between or within steps.
        if interrupt.requested:
            raise
        interrupt.requested = True
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
