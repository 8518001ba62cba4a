"""What is to be said of files: once per call, and not from the threads that read them.

Pillow warns through Python's `warnings`, once for every file and every time that it is opened, from
whichever thread does that. `warnings.catch_warnings` would not help: it exchanges the filters of the
whole process, and two threads that do so put back each other's. Instead one filter is put in front that
never matches anything, except in a thread that is `listening` at this moment: it can stay where it is,
or get lost when somebody puts back older filters, without changing what others see.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, cast

from skad._validation.warn import warn_user


class _Thread(threading.local):
    """What this thread has heard; None: it is not listening."""

    heard: list[str] | None = None


class _WhileListening:
    """Takes the place of a filter's regular expression."""

    # Where filters are made anew from their texts, as scikit-learn does in its workers: matches nothing.
    pattern = "(?!)"

    def match(self, text: str) -> bool:
        if _thread.heard is None:
            return False
        _thread.heard.append(text)
        return True

    def __reduce__(self) -> str:
        # Filters are sent to worker processes.
        return "_WHILE_LISTENING"


_thread = _Thread()
_WHILE_LISTENING = _WhileListening()
_FILTER = ("ignore", _WHILE_LISTENING, Warning, None, 0)
# Kinds of remarks that the call at work has made already; None: every remark is a call's of its own.
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Hear warnings of this thread instead of showing them.

    Who listens inside of another's listening hears into the same list.

    Yields
    ------
    list of str
        Their texts, as they come.
    """
    _put_in_front(cast("list[Any]", warnings.filters))
    before = _thread.heard
    _thread.heard = heard = [] if before is None else before
    try:
        yield heard
    finally:
        _thread.heard = before


def _put_in_front(filters: list[Any]) -> None:
    if filters[:1] == [_FILTER]:
        return
    with suppress(ValueError):  # it is not there, or another thread was faster
        filters.remove(_FILTER)
    filters.insert(0, _FILTER)


@contextmanager
def one_call() -> Iterator[None]:
    """Say each kind of remark once, in whatever opens files several times over the same images."""
    if _said.get() is not None:
        yield
        return
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def say(kind: str, message: str, category: type[Warning]) -> None:
    """Warn the user, if the call has not said the like before.

    Parameters
    ----------
    kind : str
        What is said once per `one_call`.
    message : str
    category : type of Warning
        The warning points to the line that called skad.
    """
    said = _said.get()
    if said is not None and kind in said:
        return
    if said is not None:
        said.add(kind)
    warn_user(message, category)
