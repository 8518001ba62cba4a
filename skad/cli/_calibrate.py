"""``skad calibrate``: another threshold, without another fit."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from skad._common.forks import LOADING
from skad._common.image_files import suffix_of
from skad.cli._detectors import expectation
from skad.cli._inputs import add_images, find_images, refuse_overwriting
from skad.cli._messages import UsageError
from skad.cli._models import ONNX, SKAD, add_model, check_new_file, load_model

NAME = "calibrate"
HELP = "move the threshold, by fresh good images or another rate"
DESCRIPTION = """\
Set the threshold of a fitted detector anew: from fresh good images that it has not learned from (after a
new lamp or camera), or for another rate of false alarms. Scores stay as they are.
"""
EXAMPLES = """\
  skad calibrate line3.skad parts/good-of-today --false-alarm-rate 0.01
  skad calibrate line3.skad --false-alarm-rate 0.01 -o strict.skad
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_model(parser)
    add_images(parser, nargs="*", what="fresh good parts, none: the rate alone; ")
    parser.add_argument(
        "--false-alarm-rate",
        type=float,
        metavar="RATE",
        help="fraction of good images that may be called defective (default: as it is)",
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="another .skad file (default: MODEL is replaced)"
    )


def run(args: Namespace) -> int:
    """Calibrate and save."""
    rate = args.false_alarm_rate
    if not args.images and rate is None:
        raise UsageError("name fresh good images, or a --false-alarm-rate")
    if rate is not None and not 0 < rate < 1:
        raise UsageError(f"--false-alarm-rate {rate} must lie between 0 and 1")
    out = args.model if args.out is None else args.out
    exported = suffix_of(args.model) == ONNX
    if exported and args.out is not None:
        raise UsageError("an exported detector keeps its threshold beside its file: leave -o out")
    check_new_file(out, ONNX if exported else SKAD)
    paths = find_images(args.images) or None
    refuse_overwriting([out], paths or [])
    model = load_model(args.model)
    before = model.offset_
    model.calibrate(paths, target_false_alarm_rate=rate)
    if not exported:
        _save(model, out, args.model)
    print(f"threshold before: {before:.6g}")
    print(expectation(model))
    print(f"saved: {out}")
    return 0


def _save(model: Any, out: str, read_from: str) -> None:
    """Save a detector, with its backbone where the file that it was read from has it."""
    with LOADING:
        import skad
        from skad.persistence._backbone import is_own_backbone

    skad.save(model, out, include_backbone=is_own_backbone(Path(read_from), model))
