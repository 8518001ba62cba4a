"""``skad predict``: verdicts, tables, regions and pictures of new images."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from skad.cli._bar import progress
from skad.cli._inputs import add_images, find_images, refuse_overwriting
from skad.cli._messages import say
from skad.cli._models import add_model, check_new_file, load_model
from skad.cli._outputs import Csv, Jsonl, Lines, NoPictureError, Pictures, picture_names
from skad.cli._scores import Failure, Finding, explain, score_images
from skad.cli._signals import whole

NAME = "predict"
HELP = "tell good from defective images"
DESCRIPTION = """\
Score images, and write what is asked for: a table, regions, pictures. With none of these the table is
printed. An image that cannot be scored is named on stderr, and the others are scored all the same.
"""
EXAMPLES = """\
  skad predict line3.skad parts/new
  skad predict line3.skad parts/new --csv verdicts.csv --jsonl regions.jsonl --heatmaps pictures
  skad predict line3.skad parts/new --csv verdicts.csv && echo "all good"

exit codes: 0 every image was scored and is good; 3 every image was scored, and defects were found;
1 an image could not be scored, or anything else went wrong; 2 wrong usage
"""
DEFECTS = 3


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_model(parser)
    add_images(parser)
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="a table: path, score (higher = more normal), p_value, verdict",
    )
    parser.add_argument(
        "--jsonl",
        metavar="FILE",
        help="a line of JSON for each image: the same, with boxes, areas and peaks of what is defective",
    )
    parser.add_argument(
        "--heatmaps",
        metavar="FOLDER",
        help="a PNG for each image: its heat map over it, regions outlined in green",
    )


class Output(Protocol):
    """What takes the images that were scored, one after the other."""

    def write(self, found: Finding | Failure) -> None:
        """Write what was found in an image."""

    def close(self) -> None:
        """End it."""


@dataclass
class Count:
    """How many images were good, defective, or not scored."""

    good: int = 0
    defective: int = 0
    failed: int = 0
    exit_code: int = field(init=False, default=0)

    def add(self, found: Finding | Failure) -> None:
        """Count an image."""
        if isinstance(found, Failure):
            self.failed += 1
        elif found.good:
            self.good += 1
        else:
            self.defective += 1
        self.exit_code = 1 if self.failed else DEFECTS if self.defective else 0

    def __str__(self) -> str:
        failed = f", {self.failed} could not be scored" if self.failed else ""
        return f"{self.good} good, {self.defective} defective{failed}"


def run(args: Namespace) -> int:
    """Score, write, and answer by the exit code."""
    for path in (args.csv, args.jsonl):
        if path is not None:
            check_new_file(path)
    paths = find_images(args.images)
    names = picture_names(paths) if args.heatmaps else {}
    pictures = (str(Path(args.heatmaps, name)) for name in names.values())
    refuse_overwriting([args.csv, args.jsonl, *pictures], [*paths, *args.images, args.model])
    model = load_model(args.model)
    if hasattr(model, "_as_fitted"):
        model._as_fitted()  # weights that are missing are no fault of any image
    with ExitStack() as stack:
        outputs = [stack.enter_context(closing(o)) for o in _outputs(args, names, model)]
        found = score_images(model, paths, regions=bool(args.jsonl), heatmaps=bool(args.heatmaps))
        count = write_all(found, outputs, len(paths))
    say(f"{len(paths)} images: {count}")
    return count.exit_code


def _outputs(args: Namespace, names: dict[str, str], model: Any) -> list[Output]:
    outputs: list[Output] = []
    if args.csv is not None:
        outputs.append(Csv(Lines(args.csv)))
    if args.jsonl is not None:
        outputs.append(Jsonl(Lines(args.jsonl)))
    if args.heatmaps is not None:
        outputs.append(Pictures(args.heatmaps, names, model))
    return outputs or [Csv(sys.stdout)]


def write_all(found: Iterable[Finding | Failure], outputs: list[Output], total: int) -> Count:
    """Write image after image, name what could not be scored, and count.

    Parameters
    ----------
    found : iterable of Finding or Failure
    outputs : list of Output
    total : int
        Number of images, for the bar.

    Returns
    -------
    Count
    """
    count = Count()
    with progress(total) as bar:
        for one in found:
            if isinstance(one, Failure):
                bar.clear()
                say(f"not scored: {explain(one)}")
            count.add(_written(one, outputs))
            bar.advance()
    return count


def _written(found: Finding | Failure, outputs: list[Output]) -> Finding | Failure:
    """Write what was found in an image; a failure if the image cannot be drawn any more."""
    try:
        with whole():
            for output in outputs:
                output.write(found)
    except NoPictureError as error:
        failure = Failure(found.path, error)
        say(f"no picture: {explain(failure)}")
        return failure
    return found
