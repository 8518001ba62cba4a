"""What every loader returns, put together in one place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.utils import Bunch

from skad.datasets._layout import GOOD, LocalCopy, Sample

_SPLITS = ("train", "validation", "test")


def make_bunch(samples: Iterable[Sample], category: str, copy: LocalCopy, descr: str) -> Bunch:
    """Arrange the samples of a category as the docstrings of the loaders say."""
    rows = sorted(samples, key=lambda sample: _SPLITS.index(sample.split))
    train = [row for row in rows if row.split == "train" and row.kind == GOOD]
    test = [row for row in rows if row.split == "test"]
    if not train or not test:
        part = "test images" if train else "good training images"
        raise copy.missing(f"no {part} ({category})")
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
        DESCR=descr,
    )


def _labels(rows: list[Sample]) -> np.ndarray:
    return np.array([1 if row.kind == GOOD else -1 for row in rows])


def _masks(rows: list[Sample]) -> list[str | None]:
    return [None if row.mask is None or row.kind == GOOD else str(row.mask) for row in rows]
