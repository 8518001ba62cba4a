"""``skad`` on the command line: a file for each command, and what they share.

Commands print what they found to stdout, and everything else to stderr. Their exit code is an answer:
0 and 3 are verdicts (all good, defects found), 2 is a wrong command line, 1 is everything else. A module
of this package imports the standard library alone until its command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence

from skad.cli import _benchmark
from skad.cli._messages import UsageError, one_line, one_line_warnings, say
from skad.cli._parser import build_parser
from skad.cli._signals import Stopped, stoppable

__all__ = ["main"]

FAILED, WRONG_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, default=None
        None: those of the process.

    Returns
    -------
    int
        Exit code. 0: done, and every image that was scored is good; 3: every image was scored, and
        defects were found; 2: wrong usage; 1: anything else.

    Raises
    ------
    SystemExit
        After ``--help``, with code 0, and where the arguments cannot be read, with code 2.

    Examples
    --------
    >>> from skad.cli import main
    >>> main(["fit", "parts/good", "-o", "line3.skad"])  # doctest: +SKIP
    0
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["benchmark"]:
        return _benchmark.run(arguments[1:])
    args = build_parser().parse_args(arguments)
    with one_line_warnings():
        return _guarded(args)


def _guarded(args: Namespace) -> int:
    """Run a command, and turn what it raises into one line and an exit code."""
    try:
        with stoppable():
            code: int = args.run(args)
        sys.stdout.flush()
    except UsageError as error:
        say(f"{error} (see skad {args.command} --help)")
        return WRONG_USAGE
    except Stopped as stopped:
        say(f"stopped by {stopped}: what is written so far is whole.")
        return FAILED
    except BrokenPipeError:
        # Whoever was reading has gone; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if args.traceback:
            traceback.print_exc()
        say(one_line(error))
        return FAILED
    return code
