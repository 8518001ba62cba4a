"""Banks that have not seen some of the images, to score those as new images are scored.

A coreset without the vectors of one image has holes: other images have patches like them, which were not
chosen because these were. New images meet no such hole, so scores that leave an image's own vectors out
lie above theirs. A bank of the same size that is selected from the other images has none.

References
----------
V. Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015: scores
of all folds together. What such a threshold promises stands in docs/thresholds.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from skad._bank import Coreset

# Each fold costs a selection; the more there are, the fewer images its bank lacks. See
# docs/thresholds.md.
N_FOLDS = 3


class Select(Protocol):
    """Chooses some of the rows of a matrix."""

    def __call__(
        self, X: torch.Tensor, n_select: int, *, progress: Callable[[int], None] | None
    ) -> Coreset: ...


def split_images(n_images: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Put images into folds of equal size at random: files often lie in some order.

    Parameters
    ----------
    n_images : int
    generator : torch.Generator

    Returns
    -------
    ndarray of shape (n_images,), int64
        The fold of each image, 0 to ``min(N_FOLDS, n_images) - 1``.
    """
    order = torch.randperm(n_images, generator=generator).numpy()
    folds = np.empty(n_images, dtype=np.int64)
    folds[order] = np.arange(n_images) % N_FOLDS
    return folds


def select_without(
    projected: torch.Tensor,
    folds: NDArray[np.int64],
    n_select: int,
    select: Select,
    progress: Callable[[int], None],
) -> list[NDArray[np.int64]]:
    """Choose the rows of a bank for each fold, among those of the other folds.

    Parameters
    ----------
    projected : torch.Tensor of shape (N, p)
    folds : ndarray of shape (N,)
        The fold of each row.
    n_select : int
        Rows per bank; all rows of the other folds where they are fewer.
    select : callable
    progress : callable
        Told of the rows chosen so far, in all.

    Returns
    -------
    list of ndarray of int64
        Row numbers, one array per fold.
    """
    chosen: list[NDArray[np.int64]] = []
    for fold in range(int(folds.max()) + 1):
        rows = np.flatnonzero(folds != fold)
        others = projected[torch.from_numpy(rows)]
        more = partial(_report, progress, sum(map(len, chosen)))
        coreset = select(others, min(n_select, len(rows)), progress=more)
        chosen.append(rows[coreset.rows])
    return chosen


def _report(progress: Callable[[int], None], done: int, more: int) -> None:
    progress(done + more)
