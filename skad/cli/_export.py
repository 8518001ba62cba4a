"""``skad export``: a detector for machines without torch."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from skad._common.forks import LOADING
from skad.cli._inputs import HELP as IMAGES_HELP
from skad.cli._inputs import find_images
from skad.cli._models import ONNX, SKAD, add_model, check_new_file, load_model

NAME = "export"
HELP = "an ONNX file for machines without torch"
DESCRIPTION = """\
Write a fitted detector as an ONNX file, which needs no torch to score images. The file is run and
compared with the detector before it is written.
"""
EXAMPLES = """\
  skad export line3.skad line3.onnx --images parts/new
  skad export line3.skad line3-int8.onnx --images parts/new --int8-from parts/good-of-today
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_model(parser, "a fitted detector, .skad")
    parser.add_argument("out", metavar="FILE", help="the .onnx file to write")
    parser.add_argument(
        "--images", nargs="+", metavar="IMAGES", help=f"to compare the two on: {IMAGES_HELP}"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="what scores and maps may differ by, in parts of the threshold (default: 1e-5; 0.2 with "
        "--int8-from)",
    )
    parser.add_argument(
        "--int8-from",
        nargs="+",
        metavar="IMAGES",
        help="write convolutions in 8-bit integers, and set thresholds anew, by good images that the "
        "detector has not learned from",
    )


def run(args: Namespace) -> int:
    """Export."""
    check_new_file(args.out, ONNX)
    images, good = (
        None if given is None else find_images(given) for given in (args.images, args.int8_from)
    )
    model = load_model(args.model, SKAD)
    with LOADING:
        import skad
    skad.export_onnx(model, args.out, images, tolerance=args.tolerance, int8_from=good)
    print(f"written: {args.out} ({os.path.getsize(args.out) / 1e6:.1f} MB)")
    return 0
