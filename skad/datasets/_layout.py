"""What a layout is: how the files of a data set are arranged, and the functions that read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """An image of a data set.

    Parameters
    ----------
    image : Path
    kind : str
        "good", or the kind of defect.
    split : {"train", "validation", "test"}
    mask : Path or None, default=None
        File, or folder of files, of the ground truth.
    """

    image: Path
    kind: str
    split: str
    mask: Path | None = None


@dataclass(frozen=True)
class LocalCopy:
    """The folder of a data set on this machine.

    Parameters
    ----------
    path : str
        The folder as the user named it, for messages.
    root : Path
        The same folder, or the one in it that holds the images.
    name : str
        Of the data set.
    help : str
        The expected layout and where the owner publishes the data set, for messages.
    """

    path: str
    root: Path
    name: str
    help: str

    def missing(self, what: str) -> FileNotFoundError:
        """Make the error for files that are missing; the caller raises it."""
        return FileNotFoundError(f"{self.path!r}: {what}. {self.help}")


def its_name(copy: LocalCopy) -> list[str]:
    """Return the only category of a data set that has no categories: its name."""
    return [copy.name]


@dataclass(frozen=True)
class Layout:
    """An arrangement of files. Several data sets may share one.

    Parameters
    ----------
    path : str
        What the user passes as `path`, for docstrings.
    tree : str
        The files, for docstrings and messages; ``{root}`` stands for `path`.
    read : callable
        Takes a :class:`LocalCopy`, a category and the options of the loader; returns the samples in
        the order of `X` within each split.
    find : callable, default=its_name
        Takes a :class:`LocalCopy`; returns the names of its categories, one at least.
    errors : str, default=""
        When `read` raises ValueError, for docstrings: what follows "If".
    warnings : str, default=""
        When `read` warns, for docstrings.
    """

    path: str
    tree: str
    read: Callable[..., list[Sample]]
    find: Callable[[LocalCopy], list[str]] = its_name
    errors: str = ""
    warnings: str = ""
