"""Warnings about files: given once per call, and not from the threads that read the files.

Pillow warns through Python's `warnings`, once for every file and every time that it is opened, from
whichever thread does that. `warnings.catch_warnings` would not help: it exchanges the filters of the
whole process, and two threads that do so put back each other's. Instead one filter is put in front that
never matches anything, except in a thread that is `listening` at this moment: whether it stays there,
or is lost when somebody restores older filters, changes nothing for others.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from skad._common.warn import warn_user

Item = TypeVar("Item")


class _Thread(threading.local):
    """Warnings that this thread has collected; None if it is not listening."""

    heard: list[str] | None = None


class _WhileListening:
    """Takes the place of a filter's regular expression."""

    # For those who rebuild filters from their texts, as scikit-learn does in workers: matches nothing.
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
# Kinds of remarks that the current call has made already; None outside of `one_call`.
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect the warnings of this thread instead of showing them.

    Nested blocks collect into the same list.

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
    """Make each kind of remark once, however often the block opens the same files."""
    if _said.get() is not None:
        yield
        return
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def in_one_call(items: Iterator[Item]) -> Iterator[Item]:
    """Make each kind of remark once while items are made; whoever takes them makes remarks of his own.

    Parameters
    ----------
    items : iterator

    Yields
    ------
    object
        The items.
    """
    outer = _said.get()
    said = set() if outer is None else outer
    while True:
        token = _said.set(said)
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            _said.reset(token)
        yield item


def say(kind: str, message: str, category: type[Warning]) -> None:
    """Warn the user, unless the call has made a remark of this kind already.

    Parameters
    ----------
    kind : str
        Each kind is said once per `one_call`.
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
