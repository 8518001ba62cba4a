"""What is said on stderr: one line each, by name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from skad._common.text import readable, shortened

_LONGEST = 600
# What libraries and the system raise with a message that a user can follow, as skad does.
_OF_OTHERS = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)


class UsageError(Exception):
    """The command line asks for what cannot be: exit code 2."""


class CommandError(Exception):
    """What the command line names cannot be used: exit code 1."""


def say(text: str) -> None:
    """Print a line to stderr, as skad's."""
    print(f"skad: {readable(text)}", file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """Say in one line what went wrong.

    Parameters
    ----------
    error : exception

    Returns
    -------
    str
        Its message; with its class where that is no error of skad's, and a hint to ``--traceback``.
    """
    text = shortened(" ".join(_message(error).split()), _LONGEST)
    if isinstance(error, _OF_OTHERS) or type(error).__module__.startswith("skad."):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text} (--traceback shows where)"


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = "" if error.filename is None else f"{error.filename!r}: "
        return f"{named}{error.strerror}."
    return str(error)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print warnings as lines of skad's: where in its code they come from tells a user nothing."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        say(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
