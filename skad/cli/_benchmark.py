"""``skad benchmark``: hands over to ``python -m skad.benchmark``."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from skad._common.forks import LOADING

NAME = "benchmark"
HELP = "tables of detectors on local copies of data sets"
DESCRIPTION = "Run detectors over the categories of a local data set, and write tables."
EXAMPLES = """\
  skad benchmark my_parts --method patchcore --set backbone=skad_nano --out tables
  skad benchmark --list
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Name no arguments: `skad.benchmark` reads its own, and never this parser."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line of :mod:`skad.benchmark`; errors end it with code 1."""
    with LOADING:
        from skad.benchmark.__main__ import main

    main(arguments)
    return 0
