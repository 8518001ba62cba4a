"""Processes that are forked after torch has worked in several threads.

The child inherits the thread pool's books but not its threads, and waits for them for ever. joblib's
default (loky) starts fresh processes; its backend "multiprocessing", and servers that fork after loading
a model, do not. A child that works in one thread needs no pool.
"""

from __future__ import annotations

import os
import sys
import threading

import torch

_lock = threading.Lock()
_registered = False


def survive_forks() -> None:
    """Let children that are forked from now on work in one thread; called before networks run."""
    global _registered
    with _lock:
        if not _registered and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_work_in_one_thread)
            _registered = True


def _work_in_one_thread() -> None:
    torch.set_num_threads(1)
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)
