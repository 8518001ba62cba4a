"""The parser: every command with a description and an example, and nothing imported for it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from skad._common.version import __version__
from skad.cli import (
    _benchmark,
    _calibrate,
    _doctor,
    _export,
    _fit,
    _info,
    _predict,
    _report,
    _watch,
)
from skad.cli._messages import say

_DESCRIPTION = """\
Visual anomaly detection: photographs of good parts in, verdicts, scores and heat maps of defects out.
"""
_EPILOG = """\
from good parts to verdicts:
  skad fit parts/good --backbone skad_nano -o line3.skad
  skad predict line3.skad parts/new --csv verdicts.csv --heatmaps pictures

exit codes:
  0  done; every image that was scored is good
  3  every image was scored, and defects were found
  2  wrong usage
  1  anything else, such as an image that could not be scored: never a verdict

skad COMMAND --help has an example of each command.
"""
_COMMANDS = (
    _fit,
    _predict,
    _report,
    _calibrate,
    _export,
    _watch,
    _info,
    _doctor,
    _benchmark,
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with code 2."""
        say(f"{message} (see {self.prog} --help)")
        self.exit(2)


def build_parser() -> Parser:
    """Make the parser of ``skad``.

    Returns
    -------
    Parser
        Of what it reads, ``run`` is the function of the command.
    """
    parser = Parser(
        prog="skad",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skad {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands"
    )
    for module in _COMMANDS:
        _add(commands, module)
    return parser


def _add(commands: Any, module: Any) -> None:
    """Add a command: its module has NAME, HELP, DESCRIPTION, EXAMPLES, add_arguments and run."""
    parser = commands.add_parser(
        module.NAME,
        help=module.HELP,
        description=module.DESCRIPTION,
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument(
        "--traceback", action="store_true", help="after an error, also print where it was raised"
    )
    run: Callable[[argparse.Namespace], int] = module.run
    parser.set_defaults(run=run)
