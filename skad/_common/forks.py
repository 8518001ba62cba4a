"""Processes that are forked while other threads are at work.

The child inherits memory and locks but only the thread that forked. What the other threads were doing
is never finished: locks that nobody releases, modules half imported, torch's pool of threads without
its threads. Three rules keep a child alive:

- A fork waits until no thread is loading (`LOADING`): the child could not repair what is half built.
- Locks of single objects (`ObjectLock`) are new in the child: what they guard is valid at any moment.
- A child works in one thread and needs no pool.

joblib's default (loky) starts fresh processes and needs none of this; its backend "multiprocessing", and
servers that fork after loading a model, do.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import sys
import threading
from types import TracebackType
from weakref import WeakSet

# Held while libraries are imported, backbones are built and torch's global generator is borrowed.
LOADING = threading.RLock()
# Held while a Pillow image is read: users may hold one in several lists and threads, and its file
# position and its EXIF cache are state that reading changes.
READING = threading.RLock()

# A thread that holds one of them never asks for one before it.
_WAITED_FOR = (LOADING, READING)


class ObjectLock:
    """A lock of one object, which is free in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _object_locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


_object_locks: WeakSet[ObjectLock] = WeakSet()
_has_worked = False


def survive_forks() -> None:
    """Let children that are forked from now on work in one thread; called before networks run."""
    global _has_worked
    _has_worked = True


def _wait() -> None:
    for lock in _WAITED_FOR:
        lock.acquire()


def _go_on() -> None:
    for lock in reversed(_WAITED_FOR):
        lock.release()


def _begin_as_child() -> None:
    for lock in _object_locks:
        lock._lock = threading.Lock()
    _go_on()
    if _has_worked:
        _work_in_one_thread()


def _work_in_one_thread() -> None:
    # A child imports nothing: its parent may have been in the middle of it.
    sys.modules["torch"].set_num_threads(1)
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    # With this module, whose locks nobody can hold before; and after the modules above, which take locks
    # of their own at a fork: the last to register takes its locks first, and a loading thread may need
    # theirs.
    os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_begin_as_child)
