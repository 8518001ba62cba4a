"""``skad watch``: images are scored as they arrive in a folder."""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser, Namespace
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from skad._common.image_files import images
from skad.cli._messages import CommandError, UsageError, say
from skad.cli._models import add_model, check_new_file, load_model
from skad.cli._outputs import Lines, NoPictureError, Pictures, json_line
from skad.cli._predict import Count
from skad.cli._scores import Failure, Finding, explain, score_images
from skad.cli._signals import whole

NAME = "watch"
HELP = "score what arrives in a folder"
DESCRIPTION = """\
Score the images of a folder, and then whatever arrives in it, and add a line of JSON for each to a file.

An image is scored when its size and date have not changed for a while (--settle), so that none is read
while it is being written. What stands in the file already is not scored again: after a kill or a
restart, the same command goes on. An image that was replaced by another of the same name is a new one.
One that cannot be decoded gets a line with "error", once.
"""
EXAMPLES = """\
  skad watch line3.skad /camera/incoming --jsonl verdicts.jsonl
  skad watch line3.skad /camera/incoming --jsonl verdicts.jsonl --once

It ends by Ctrl-C or SIGTERM, with code 1 (of systemd: SuccessExitStatus=1). With --once codes are those
of skad predict, for what was scored.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_model(parser)
    parser.add_argument("folder", metavar="FOLDER", help="where images arrive; not its subfolders")
    parser.add_argument(
        "--jsonl",
        required=True,
        metavar="FILE",
        help="grows by a line for each image: path, score, p_value, verdict, regions",
    )
    parser.add_argument(
        "--heatmaps", metavar="FOLDER", help="also a PNG for each image: its heat map over it"
    )
    parser.add_argument(
        "--settle",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="how long a file must rest before it is read (default: 1)",
    )
    parser.add_argument(
        "--interval",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="between two looks into the folder (default: 0.5)",
    )
    parser.add_argument(
        "--once", action="store_true", help="score what is there, and end instead of waiting"
    )


class Stamp(NamedTuple):
    """What tells a file from another of its name, and from itself when it has grown."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Stamp | None:
        """Look at a file; None if it has gone."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns)


class Log:
    """The file of lines: what stands in it has been scored.

    Parameters
    ----------
    path : str
        A last line that is not complete, as a power cut leaves it, is cut off.

    Raises
    ------
    CommandError
        If a line is none of this command's.
    """

    def __init__(self, path: str) -> None:
        self._known: set[tuple[str, Stamp]] = set()
        if os.path.exists(path):
            self._read(path)
        self._lines = Lines(path, append=True)

    def _read(self, path: str) -> None:
        whole_bytes = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                whole_bytes += len(line)
                self._known.add(_key(line, f"{path!r}, line {number}"))
        if whole_bytes < os.path.getsize(path):
            os.truncate(path, whole_bytes)

    def __contains__(self, key: tuple[str, Stamp]) -> bool:
        return key in self._known

    def write(self, found: Finding | Failure, stamp: Stamp) -> None:
        """Add the line of an image."""
        at = datetime.now().astimezone().isoformat(timespec="milliseconds")
        self._lines.write(json_line(found, **stamp._asdict(), time=at))
        self._known.add((found.path, stamp))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def _key(line: bytes, where: str) -> tuple[str, Stamp]:
    try:
        entry = json.loads(line)
        return entry["image"], Stamp(entry["size"], entry["mtime_ns"])
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"{where}: is no line that skad watch has written. Name another file for --jsonl."
        ) from error


class Arrivals:
    """Files that have come to rest in a folder.

    Parameters
    ----------
    folder : str
    settle : float
        Seconds for which size and date must not have changed, by the clock of this process.
    """

    def __init__(self, folder: str, settle: float) -> None:
        # Lines name files as any other program finds them, and as a restart elsewhere does.
        self._folder, self._settle = Path(os.path.abspath(folder)), settle
        self._seen: dict[str, tuple[Stamp, float]] = {}

    def look(self, log: Log) -> list[tuple[str, Stamp]]:
        """List the files that are at rest and not in the log, the oldest first."""
        now, seen, at_rest = time.monotonic(), {}, []
        for path in map(os.fspath, images(self._folder)):
            stamp = Stamp.of(path)
            if stamp is None or (path, stamp) in log:
                continue
            before = self._seen.get(path)
            since = before[1] if before is not None and before[0] == stamp else now
            seen[path] = stamp, since
            if now - since >= self._settle:
                at_rest.append((path, stamp))
        self._seen = seen
        return sorted(at_rest, key=lambda found: found[1].mtime_ns)


@dataclass
class Watcher:
    """Scores what has arrived, and notes it."""

    model: Any
    log: Log
    pictures: str | None
    count: Count

    def __post_init__(self) -> None:
        self._named: set[tuple[str, Stamp]] = set()

    def score(self, arrived: list[tuple[str, Stamp]]) -> None:
        """Score files that were at rest, and note those that are still as they were."""
        stamps = dict(arrived)
        found = score_images(
            self.model, list(stamps), regions=True, heatmaps=self.pictures is not None
        )
        for one in found:
            stamp = stamps[one.path]
            if Stamp.of(one.path) == stamp:
                self._note(one, stamp)

    def _note(self, found: Finding | Failure, stamp: Stamp) -> None:
        self.count.add(found)
        if isinstance(found, Failure) and not self._tell(found, stamp):
            return
        with whole():
            if self.pictures is not None:
                self._draw(self.pictures, found)
            self.log.write(found, stamp)

    def _draw(self, folder: str, found: Finding | Failure) -> None:
        names = {found.path: f"{os.path.basename(found.path)}.png"}
        try:
            Pictures(folder, names, self.model).write(found)
        except NoPictureError as error:  # it was taken away meanwhile: the verdict stands
            say(f"no picture: {explain(Failure(found.path, error))}")

    def _tell(self, failure: Failure, stamp: Stamp) -> bool:
        """Name, once, an image that was not scored; return whether it never will be."""
        lasting = _is_fault_of_image(failure.error)
        if (failure.path, stamp) not in self._named:
            self._named.add((failure.path, stamp))
            say(f"not scored: {explain(failure)}")
        return lasting


def _is_fault_of_image(error: Exception) -> bool:
    """Whether an image will never be scored; what the system refused may be granted next time.

    Raises
    ------
    Exception
        `error`, if it is no fault of any file: a restart may mend it, and must find nothing noted.
    """
    if not isinstance(error, ValueError | OSError):
        raise error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return False
        cause = cause.__cause__
    return True


def run(args: Namespace) -> int:
    """Score what arrives until somebody ends it, or once."""
    _check(args)
    model = load_model(args.model)
    model._as_fitted()  # weights that are missing are no fault of any image
    arrivals = Arrivals(args.folder, args.settle)
    with closing(Log(args.jsonl)) as log:
        watcher = Watcher(model, log, args.heatmaps, Count())
        if args.once:
            arrivals.look(log)
            time.sleep(args.settle)
            watcher.score(arrivals.look(log))
            say(f"{args.folder}: {watcher.count}")
            return watcher.count.exit_code
        say(f"watching {args.folder}; Ctrl-C ends it")
        while True:
            watcher.score(arrivals.look(log))
            time.sleep(args.interval)


def _check(args: Namespace) -> None:
    if not os.path.isdir(args.folder):
        raise CommandError(f"{args.folder!r}: there is no such folder.")
    if args.settle < 0 or args.interval <= 0:
        raise UsageError("--settle must not be negative, and --interval be positive")
    check_new_file(args.jsonl)
    if args.heatmaps and os.path.realpath(args.heatmaps) == os.path.realpath(args.folder):
        raise UsageError("--heatmaps must be another folder: pictures would be scored as images")
