"""``skad predict``: verdicts, tables, regions and pictures of new images."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from skad._common.version import __version__
from skad.cli._bar import progress
from skad.cli._cluster import add_cluster, connect
from skad.cli._inputs import add_images, find_images, refuse_overwriting
from skad.cli._journal import SUFFIX, Journal, Point, journal_path
from skad.cli._messages import CommandError, UsageError, say
from skad.cli._models import add_model, check_model_file, check_new_file, load_model
from skad.cli._outputs import Csv, Drawn, Jsonl, Lines, NoPictureError, Pictures, picture_names
from skad.cli._portions import score_on
from skad.cli._scores import Failure, Finding, explain, score_images
from skad.cli._signals import whole
from skad.cli._workers import Job, ModelFile, check_model, content_of

NAME = "predict"
HELP = "tell good from defective images"
DESCRIPTION = """\
Score images, and write what is asked for: a table, regions, pictures. With none of these the table is
printed. An image that cannot be scored is named on stderr, and the others are scored all the same.

Whole archives: --cluster shares the work among the workers of dask, and --resume goes on where a run was
killed. Rows come in the order of the images in any case, and are the same with and without a cluster.
"""
EXAMPLES = """\
  skad predict line3.skad parts/new
  skad predict line3.skad parts/new --csv verdicts.csv --jsonl regions.jsonl --heatmaps pictures
  skad predict line3.skad parts/new --csv verdicts.csv && echo "all good"
  skad predict line3.skad "archive/**/*.png" --csv verdicts.csv --resume --cluster tcp://scheduler:8786

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
    add_cluster(parser, "score the images")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier run with this option, or with --cluster, was ended; begin if there "
        f"was none. How far it is stands beside the table, in FILE{SUFFIX}",
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
        self.update()

    def update(self) -> None:
        """Set the exit code that follows."""
        self.exit_code = 1 if self.failed else DEFECTS if self.defective else 0

    @property
    def done(self) -> int:
        """Number of images."""
        return self.good + self.defective + self.failed

    def __str__(self) -> str:
        failed = f", {self.failed} could not be scored" if self.failed else ""
        return f"{self.good} good, {self.defective} defective{failed}"


def run(args: Namespace) -> int:
    """Score, write, and answer by the exit code."""
    tables = [path for path in (args.csv, args.jsonl) if path is not None]
    # A pipe or a device keeps nothing to go on with.
    stored = bool(tables) and all(os.path.isfile(t) or not os.path.exists(t) for t in tables)
    if args.resume and not stored:
        raise UsageError("--resume goes on with a table: name its file by --csv or --jsonl")
    check_model_file(args.model)
    for path in tables:
        check_new_file(path)
    paths = find_images(args.images)
    names = picture_names(paths) if args.heatmaps else {}
    pictures = (str(Path(args.heatmaps, name)) for name in names.values())
    kept = stored and (args.resume or args.cluster is not None)
    notes = [journal_path(tables[0])] if kept else []
    refuse_overwriting([*tables, *notes, *pictures], [*paths, *args.images, args.model])
    journal = Journal(tables, _settings(args)) if kept else None
    point = journal.read(paths) if journal is not None and args.resume else Point()
    with ExitStack() as stack:
        left = paths[point.done :]
        if args.cluster is not None:
            found, drawing = _on_cluster(stack, args, left, names)
        else:
            found, drawing = _here(args, left, names)
        files = [Lines(path) for path in tables] if journal is None else journal.open()
        for output in (outputs := _outputs(args, files, drawing, begin=not point.done)):
            stack.callback(output.close)
        if journal is not None:
            stack.callback(journal.close)
        count = write_all(found, outputs, len(paths), journal, _told_again(point, len(paths)))
    say(f"{len(paths)} images: {count}")
    return count.exit_code


def _settings(args: Namespace) -> dict[str, Any]:
    """List what decides about the rows, by the words of a message."""
    return {
        "detector": content_of(args.model),
        "version of skad": __version__,
        "set of tables": [args.csv is not None, args.jsonl is not None],
        "folder of pictures": args.heatmaps and os.path.abspath(args.heatmaps),
        "current folder": os.getcwd(),
    }


def _told_again(point: Point, n: int) -> Count:
    """Say what an earlier run has done, as it was said then."""
    if point.done:
        say(f"{point.done} of {n} images are done already")
    for path, text in point.failed:
        say(f"not scored: {explain(Failure(path, CommandError(text)))}")
    count = Count(point.good, point.defective, len(point.failed))
    count.update()
    return count


def _here(
    args: Namespace, paths: list[str], names: dict[str, str]
) -> tuple[Iterator[Finding | Failure], Output | None]:
    """Score in this process; what draws the pictures."""
    model = load_model(args.model)
    if hasattr(model, "_as_fitted"):
        model._as_fitted()  # weights that are missing are no fault of any image
    found = score_images(model, paths, regions=bool(args.jsonl), heatmaps=bool(args.heatmaps))
    return found, Pictures(args.heatmaps, names, model) if args.heatmaps else None


def _on_cluster(
    stack: ExitStack, args: Namespace, paths: list[str], names: dict[str, str]
) -> tuple[Iterator[Finding | Failure], Output | None]:
    """Score by workers, which draw the pictures themselves."""
    model = ModelFile.of(args.model)
    cluster = stack.enter_context(connect(args.cluster))
    cluster.check(check_model, model)
    job = Job(model, bool(args.jsonl), args.heatmaps and os.path.abspath(args.heatmaps))
    return score_on(cluster, job, paths, names), Drawn() if args.heatmaps else None


def _outputs(
    args: Namespace, files: Sequence[Lines], drawing: Output | None, *, begin: bool
) -> list[Output]:
    left, outputs = list(files), list[Output]()
    if args.csv is not None:
        outputs.append(Csv(left.pop(0), header=begin))
    if args.jsonl is not None:
        outputs.append(Jsonl(left.pop(0)))
    if drawing is not None:
        outputs.append(drawing)
    return outputs or [Csv(sys.stdout)]


def write_all(
    found: Iterable[Finding | Failure],
    outputs: list[Output],
    total: int,
    journal: Journal | None,
    count: Count,
) -> Count:
    """Write image after image, name what could not be scored, and count.

    Parameters
    ----------
    found : iterable of Finding or Failure
    outputs : list of Output
    total : int
        Number of images, for the bar.
    journal : Journal or None
        Is told what has been written.
    count : Count
        Of the images that were written before.

    Returns
    -------
    Count
        Of all.
    """
    with progress(total, count.done) as bar:
        for one in found:
            if isinstance(one, Failure):
                bar.clear()
                say(f"not scored: {explain(one)}")
            written = _written(one, outputs)
            if journal is not None:
                journal.note(one.path, written)
            count.add(written)
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
