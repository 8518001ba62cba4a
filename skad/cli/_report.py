"""``skad report``: a page with figures, histogram and the worst cases."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, NamedTuple

from skad._common.forks import LOADING
from skad._common.image_files import images, subfolders
from skad.cli._inputs import add_images, find_images, refuse_overwriting
from skad.cli._messages import CommandError, UsageError
from skad.cli._models import SKAD, add_model, check_new_file, load_model

NAME = "report"
HELP = "one HTML file: figures, histogram, worst cases with heat maps"
DESCRIPTION = """\
Write a report on a detector and a set of images into one HTML file.

A folder whose images lie in subfolders is a test set with labels: "good" holds good parts, each other
subfolder a kind of defect. Then the report has figures, false alarms and missed defects.
"""
EXAMPLES = """\
  skad report line3.skad parts/new -o report.html
  skad report line3.skad parts/test --masks parts/ground_truth -o report.html

masks are found as skad.datasets.load_folder does: ground_truth/<kind>/<image>_mask.png or <image>.png
for test/<kind>/<image>.png; of a folder without subfolders, ground_truth/<image>_mask.png
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_model(parser, "a fitted detector, .skad")
    add_images(parser, what="new images, or the folder of a test set: ")
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE", help="the page, an .html file"
    )
    parser.add_argument(
        "--masks", metavar="FOLDER", help="ground truth: images whose pixels are black where good"
    )
    parser.add_argument("--title", help="of the page (default: the class of the detector)")
    parser.add_argument(
        "--examples", type=int, default=6, metavar="N", help="images per section (default: 6)"
    )


class Labelled(NamedTuple):
    """Images to report on, with what is known of them."""

    images: list[str]
    labels: list[int] | None = None
    masks: list[str | None] | None = None


def run(args: Namespace) -> int:
    """Score all images and write the page."""
    if args.examples < 1:
        raise UsageError(f"--examples {args.examples} must be at least 1")
    check_new_file(args.out, ".html", ".htm")
    found = find_test_set(args.images, args.masks)
    refuse_overwriting([args.out], [*found.images, args.model])
    detector = load_model(args.model, SKAD)
    with LOADING:
        from skad.inspection import report

    report(
        detector,
        found.images,
        found.labels,
        found.masks,
        args.out,
        title=args.title,
        n_examples=args.examples,
    )
    print(f"written: {args.out} ({len(found.images)} images)")
    return 0


def find_test_set(named: list[str], masks: str | None) -> Labelled:
    """List images, with labels where they lie in subfolders, and with masks where there are any.

    Parameters
    ----------
    named : list of str
        As the command line names images.
    masks : str or None
        A folder.

    Returns
    -------
    Labelled

    Raises
    ------
    CommandError
        If there are no images, the folder of masks does not exist or fits none of the images, or a
        defective image has no mask.
    """
    if masks is not None and not os.path.isdir(masks):
        raise CommandError(f"--masks {masks!r}: there is no such folder.")
    folder = Path(named[0])
    if len(named) > 1 or not folder.is_dir():
        if masks is not None:
            raise UsageError("--masks goes with one folder of images")
        return Labelled(find_images(named))
    if any(images(sub) for sub in subfolders(folder)):
        return _of_kinds(folder, masks)
    if masks is None:
        return Labelled(find_images(named))
    return _unsorted(folder, masks)


def _of_kinds(folder: Path, masks: str | None) -> Labelled:
    with LOADING:
        from skad.datasets._folders import read_tested

    samples = read_tested(folder, None if masks is None else Path(masks))
    labels = [1 if sample.kind == "good" else -1 for sample in samples]
    found = [os.fspath(sample.image) for sample in samples]
    if masks is None:
        return Labelled(found, labels)
    # A mask of a good image would be empty: it is not looked for, as in load_folder.
    of_defects = [None if s.kind == "good" else _text(s.mask) for s in samples]
    missing = [
        path
        for path, label, mask in zip(found, labels, of_defects, strict=True)
        if label == -1 and mask is None
    ]
    if missing:
        raise CommandError(
            f"{len(missing)} of {labels.count(-1)} defective images have no mask in {masks!r}, "
            f"{missing[0]!r} for example: add them, or leave --masks out."
        )
    return Labelled(found, labels, of_defects)


def _unsorted(folder: Path, masks: str) -> Labelled:
    with LOADING:
        from skad.datasets._folders import read_unsorted

    find_images([os.fspath(folder)])
    samples = read_unsorted(folder, Path(masks))
    found: list[Any] = [_text(sample.mask) for sample in samples]
    if not any(found):
        raise CommandError(f"no mask in {masks!r} fits an image in {os.fspath(folder)!r}.")
    return Labelled([os.fspath(sample.image) for sample in samples], None, found)


def _text(path: Path | None) -> str | None:
    return None if path is None else os.fspath(path)
