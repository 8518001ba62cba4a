"""What every loader returns, put together in one place."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skad.datasets._source import Source

GOOD = "good"
_SPLITS = ("train", "validation", "test")


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


def make_bunch(
    samples: Iterable[Sample], category: str, source: Source, path: str | os.PathLike[str]
) -> Bunch:
    """Arrange images as :func:`skad.datasets.load_folder` describes.

    Parameters
    ----------
    samples : iterable of Sample
    category : str
    source : Source
    path : path-like
        The folder that the user named, for messages.

    Returns
    -------
    sklearn.utils.Bunch

    Raises
    ------
    FileNotFoundError
        If there is no good image to learn from, or none to test on.
    """
    rows = sorted(samples, key=lambda sample: _SPLITS.index(sample.split))
    train = [row for row in rows if row.split == "train" and row.kind == GOOD]
    test = [row for row in rows if row.split == "test"]
    if not train or not test:
        part = "good images to learn from" if not train else "images to test on"
        raise source.missing(path, f"no {part} ({category})")
    return Bunch(
        X=[str(row.image) for row in rows],
        y=_labels(rows),
        masks=_masks(rows),
        defects=[row.kind for row in rows],
        split=np.array([row.split for row in rows]),
        X_train=[str(row.image) for row in train],
        X_test=[str(row.image) for row in test],
        y_test=_labels(test),
        masks_test=_masks(test),
        defects_test=[row.kind for row in test],
        category=category,
        DESCR=source.descr,
    )


def _labels(rows: list[Sample]) -> np.ndarray:
    return np.array([1 if row.kind == GOOD else -1 for row in rows])


def _masks(rows: list[Sample]) -> list[str | None]:
    return [None if row.mask is None or row.kind == GOOD else str(row.mask) for row in rows]
