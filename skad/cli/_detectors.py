"""Detectors as a command line describes them, and what is said of one that is fitted."""

from __future__ import annotations

import difflib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from skad._common.forks import LOADING
from skad.cli._messages import UsageError

CLASSES = {
    "patchcore": "PatchCoreDetector",
    "reconpatch": "ReConPatchDetector",
    "recontrast": "ReContrastDetector",
    "dinomaly": "DinomalyDetector",
    "padim": "PaDiMDetector",
    "spade": "SPADEDetector",
}
DEFAULT = "patchcore"


def add_detector(parser: ArgumentParser) -> None:
    """Add the options that describe a detector."""
    parser.add_argument(
        "--detector",
        choices=list(CLASSES),
        default=DEFAULT,
        help=f"default: {DEFAULT}, which fits in seconds and has nothing to tune",
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


def given(args: Namespace) -> dict[str, Any]:
    """Read the parameters that these options give.

    Raises
    ------
    UsageError
        If a text is no parameter, or one is given twice.
    """
    return {**read_parameters(args.set), **_by_own_options(args)}


def make_detector(kind: str, params: Mapping[str, Any], option: str = "--set") -> Any:
    """Make a detector, and refuse parameters before any work.

    Parameters
    ----------
    kind : str
        Of :data:`CLASSES`.
    params : mapping of str to object
    option : str, default="--set"
        Where they are from, for errors.

    Returns
    -------
    detector
        Unfitted.

    Raises
    ------
    UsageError
        If it has no such parameter, or not with this value.
    """
    with LOADING:
        import skad
    cls = getattr(skad, CLASSES[kind])
    known = cls().get_params()
    for name in params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"{option}: {cls.__name__} has no parameter {name!r}: {hint}")
    # A terminal shows what is being done; two runs agree unless another seed is asked for.
    detector = cls(**{"random_state": 0, "verbose": int(sys.stderr.isatty()), **params})
    try:
        detector._validate_params()
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    return detector


def parameters_of_all() -> set[str]:
    """List the parameters that any of the detectors has."""
    with LOADING:
        import skad
    return {name for cls in CLASSES.values() for name in getattr(skad, cls)().get_params()}


def read_parameters(texts: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Read ``NAME=VALUE``, one value each.

    Parameters
    ----------
    texts : sequence of str
    option : str, default="--set"
        Where they are from, for errors.

    Returns
    -------
    dict of str to object

    Raises
    ------
    UsageError
        For a text without "=", a name that comes twice, or several values.
    """
    with LOADING:
        from skad.benchmark._grid import parse_grid

    try:
        grid = parse_grid(texts, option)
    except ValueError as error:
        raise UsageError(str(error).rstrip(".")) from error
    for name, values in grid.items():
        if len(values) != 1:
            raise UsageError(
                f"{option} {name}: a fit takes one value; a tuple is written in brackets, as in "
                f'{name}="({", ".join(map(str, values))})"'
            )
    return {name: value for name, (value,) in grid.items()}


def _by_own_options(args: Namespace) -> dict[str, Any]:
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
