"""Whether the process that has left something on a disk still lives."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import cache
from pathlib import Path

from skad._validation.text import readable


@cache
def machine() -> str:
    """Name the table of processes that numbers refer to: a container has one of its own.

    Returns
    -------
    str
        Another one after the machine was started anew.
    """
    # Names may hold bytes that no encoding can write again.
    parts = [readable(socket.gethostname())]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return "/".join(parts)


def start_of(process: int) -> str:
    """Read when a process of this machine started.

    Parameters
    ----------
    process : int

    Returns
    -------
    str
        In ticks since the machine did; empty where that cannot be had.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return ""
    # The name of the process comes before: any bytes, brackets among them, cut after fifteen.
    state, *fields = status.rpartition(b")")[2].decode("ascii").split()
    return "" if state in "ZX" else fields[18]


def is_alive(process: int, start: str) -> bool | None:
    """Tell whether a process of this machine lives.

    Parameters
    ----------
    process : int
    start : str
        What `start_of` said of it: numbers are given again.

    Returns
    -------
    bool or None
        None where that cannot be asked.
    """
    # On Windows, asking a process by a signal ends it.
    if os.name != "posix":
        return None
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        pass
    return start_of(process) == start
