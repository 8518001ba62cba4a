"""``skad fit``: a detector from photographs of good parts."""

from __future__ import annotations

import difflib
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from skad._common.forks import LOADING
from skad.cli._inputs import add_images, find_images, refuse_overwriting
from skad.cli._messages import UsageError
from skad.cli._models import SKAD, check_new_file

NAME = "fit"
HELP = "learn what good parts look like"
DESCRIPTION = """\
Learn from photographs of good parts, set a threshold from them alone, and save the detector.
Two fits on the same images give the same detector.
"""
EXAMPLES = """\
  skad fit parts/good --backbone skad_nano -o line3.skad
  skad fit "parts/**/good/*.png" --detector reconpatch --set epochs=5 --set k=3 -o line3.skad
  skad fit good.csv --set image_size="(240, 320)" --false-alarm-rate 0.01 -o line3.skad
"""
_CLASSES = {
    "patchcore": "PatchCoreDetector",
    "reconpatch": "ReConPatchDetector",
    "recontrast": "ReContrastDetector",
    "dinomaly": "DinomalyDetector",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_images(parser, what="good parts: ")
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE", help="the detector, a .skad file"
    )
    parser.add_argument(
        "--detector",
        choices=list(_CLASSES),
        default="patchcore",
        help="default: patchcore, which fits in seconds and has nothing to tune",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="the network that sees the images: skad_nano comes with skad and needs no download; any "
        "model of timm's (default: the detector's)",
    )
    parser.add_argument(
        "--false-alarm-rate",
        type=float,
        metavar="RATE",
        help="fraction of good images that may be called defective (default: 0.05)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="other parameters of the detector, such as image_size=320 or weights=resnet18.safetensors",
    )
    parser.add_argument(
        "--include-backbone",
        action="store_true",
        help="also save the backbone's weights, for a machine that has none of them",
    )


def run(args: Namespace) -> int:
    """Fit and save."""
    check_new_file(args.out, SKAD)
    detector = _make(args)
    paths = find_images(args.images)
    refuse_overwriting([args.out], paths)
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


def _make(args: Namespace) -> Any:
    """Make the detector, and refuse parameters before any work."""
    with LOADING:
        import skad
    cls = getattr(skad, _CLASSES[args.detector])
    given = {**_parameters(args.set), **_named(args)}
    known = cls().get_params()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"--set: {cls.__name__} has no parameter {name!r}: {hint}")
    # A terminal shows what is being done; two runs agree unless another seed is asked for.
    detector = cls(**{"random_state": 0, "verbose": int(sys.stderr.isatty()), **given})
    try:
        detector._validate_params()
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    return detector


def _parameters(texts: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE``, one value each."""
    with LOADING:
        from skad.benchmark._grid import parse_grid

    try:
        grid = parse_grid(texts)
    except ValueError as error:
        raise UsageError(str(error).rstrip(".")) from error
    for name, values in grid.items():
        if len(values) != 1:
            raise UsageError(
                f"--set {name}: a fit takes one value; a tuple is written in brackets, as in "
                f'{name}="({", ".join(map(str, values))})"'
            )
    return {name: value for name, (value,) in grid.items()}


def _named(args: Namespace) -> dict[str, Any]:
    """Take the parameters that have options of their own."""
    options = {"backbone": args.backbone, "target_false_alarm_rate": args.false_alarm_rate}
    for name, value in options.items():
        if value is not None and any(text.partition("=")[0] == name for text in args.set):
            raise UsageError(f"{name} is given twice, by an option of its own and by --set")
    return {name: value for name, value in options.items() if value is not None}


def summary(detector: Any) -> str:
    """Name a detector, its backbone and what it sees, in a few words."""
    size = getattr(detector, "image_size_", None)
    seen = f", {size[0]} x {size[1]} pixels" if isinstance(size, tuple) else ""
    if isinstance(size, int):
        seen = f", {size} x {size} pixels"
    backbone = getattr(detector, "backbone", None)
    name = f", {backbone}" if isinstance(backbone, str) else ""
    return f"{type(detector).__name__}{name}{seen}"


def expectation(detector: Any) -> str:
    """Say what the threshold is, and how many false alarms to expect."""
    text = f"threshold: {detector.offset_:.6g} (a lower score is defective)"
    known = detector.calibration_scores_
    rate = getattr(detector, "target_false_alarm_rate", None)
    # A percentile of training scores promises nothing about new images.
    if getattr(detector, "contamination", "auto") != "auto" or known is None or rate is None:
        return text
    n = len(known)
    called = sum(score < detector.offset_ for score in known)
    return (
        f"{text}; expect {100 * rate:g} false alarms in 100 good images\n"
        f"of the {n} good images that set it, none of which was learned from when it was scored, "
        f"{called} {'is' if called == 1 else 'are'} below it"
    )
