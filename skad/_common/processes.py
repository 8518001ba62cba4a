"""Whether the process that left files on a disk is still alive."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import cache
from pathlib import Path

from skad._common.text import readable


@cache
def machine() -> str:
    """Identify the process table that process numbers refer to: a container has its own.

    Returns
    -------
    str
        It changes when the machine restarts.
    """
    # Names may hold bytes that cannot be encoded.
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
        In clock ticks since the machine did; empty if that is not known.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return ""
    # The name of the process comes first, and may hold brackets.
    state, *fields = status.rpartition(b")")[2].decode("ascii").split()
    return "" if state in "ZX" else fields[18]


def is_alive(process: int, start: str) -> bool | None:
    """Tell whether a process of this machine is alive.

    Parameters
    ----------
    process : int
    start : str
        What `start_of` returned for it: process numbers are used again.

    Returns
    -------
    bool or None
        None if that cannot be told.
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
