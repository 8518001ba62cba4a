"""``skad fit``: a detector from photographs of good parts, or one for each row of a table."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace

from skad._common.forks import LOADING
from skad.cli._cluster import add_cluster
from skad.cli._detectors import add_detector, expectation, given, make_detector, summary
from skad.cli._fits import fit_table
from skad.cli._inputs import add_images, find_images, refuse_overwriting
from skad.cli._messages import UsageError
from skad.cli._models import SKAD, check_new_file
from skad.cli._table import COLUMNS

NAME = "fit"
HELP = "learn what good parts look like"
DESCRIPTION = """\
Learn from photographs of good parts, set a threshold from them alone, and save the detector.
Two fits on the same images give the same detector.

With --table, one detector for each row of a table. What is there already, of the same images and
settings, is not fitted again: after a kill the same command goes on.
"""
EXAMPLES = """\
  skad fit parts/good --backbone skad_nano -o line3.skad
  skad fit "parts/**/good/*.png" --detector reconpatch --set epochs=5 --set k=3 -o line3.skad
  skad fit good.csv --set image_size="(240, 320)" --false-alarm-rate 0.01 -o line3.skad
  skad fit --table lines.csv --backbone skad_nano -o detectors
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_images(parser, nargs="*", what="good parts: ")
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        metavar="FILE",
        help="the detector, a .skad file; with --table, the folder for all of them",
    )
    parser.add_argument("--table", metavar="CSV", help=f"a row for each detector: {COLUMNS}")
    add_detector(parser)
    parser.add_argument(
        "--include-backbone",
        action="store_true",
        help="also save the backbone's weights, for a machine that has none of them",
    )
    add_cluster(parser, "fit the rows of the table, one at a time in each thread")


def run(args: Namespace) -> int:
    """Fit and save."""
    if args.table is not None:
        if args.images:
            raise UsageError("name images, or a --table of them, not both")
        return fit_table(args)
    if not args.images:
        raise UsageError("name images of good parts, or a --table of them")
    if args.cluster is not None:
        raise UsageError("--cluster fits the rows of a --table; one fit is done by this machine")
    check_new_file(args.out, SKAD)
    paths = find_images(args.images)  # before torch is imported: a wrong name is told at once
    refuse_overwriting([args.out], paths)
    detector = make_detector(args.detector, given(args))
    start = time.perf_counter()
    detector.fit(paths)
    seconds = time.perf_counter() - start
    with LOADING:
        import skad
    skad.save(detector, args.out, include_backbone=args.include_backbone)
    print(f"learned from {len(paths)} good images in {seconds:.1f} s: {summary(detector)}")
    print(expectation(detector))
    print(f"saved: {args.out} ({os.path.getsize(args.out) / 1e6:.1f} MB)")
    return 0
