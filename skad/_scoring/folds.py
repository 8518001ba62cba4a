"""Banks that have not seen some of the images, to score those as new images are scored.

A coreset without the vectors of one image has holes: other images have patches like them, which were not
chosen because these were. New images meet no such hole, so scores that leave an image's own vectors out
lie above theirs. A bank of the same size that is selected from the other images has none.

A bank that grows is treated in the same way: new images are scored by what it would have become without
their fold. A single new image is scored by the bank as it was.

A bank of all patches has no such holes: an image is scored by it without its own vectors.

References
----------
V. Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015: scores
of all folds together. What such a threshold promises stands in docs/thresholds.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from skad._bank import Coreset, MemoryBank
from skad._features import TrainingPatches
from skad._scoring.plain import Scorer, TrainingImage, TrainingScore
from skad._scoring.trimming import KeptPatches

# Each fold costs a selection; the more there are, the fewer images its bank lacks. See
# docs/thresholds.md.
N_FOLDS = 3
# Images whose patches are held, to be scored together.
_IMAGES_TOGETHER = 48


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
    kept: KeptPatches,
    n_select: int,
    select: Select,
    progress: Callable[[int], None],
    n_before: int = 0,
) -> list[NDArray[np.int64]]:
    """Choose the rows of a bank for each fold, among those of the other folds.

    Parameters
    ----------
    projected : torch.Tensor of shape (N, p)
    kept : KeptPatches
        What the rows belong to. A fold may have none: those of its images may not enter a bank.
    n_select : int
        Rows per bank; all rows of the other folds where they are fewer.
    select : callable
    progress : callable
        Told of the rows chosen so far, in all.
    n_before : int, default=0
        Vectors of a bank that grows, which `select` counts before the rows; they are of no fold.

    Returns
    -------
    list of ndarray of int64
        Row numbers, one array per fold.
    """
    chosen: list[NDArray[np.int64]] = []
    for fold in range(kept.patches.n_folds):
        others = np.flatnonzero(kept.folds != fold)
        rows = np.append(np.arange(n_before), n_before + others)
        more = partial(_report, progress, sum(map(len, chosen)))
        of_others = projected[torch.from_numpy(others)]
        coreset = select(of_others, min(n_select, len(rows)), progress=more)
        chosen.append(rows[coreset.rows])
    return chosen


def take_banks(
    patches: KeptPatches,
    rows: Sequence[NDArray[np.int64]],
    *,
    index: str,
    before: MemoryBank | None = None,
    first: int = 0,
) -> list[MemoryBank]:
    """Make banks of chosen patches, all in one pass over the images.

    Parameters
    ----------
    patches : KeptPatches
    rows : sequence of ndarray of int64
        Those of the bank, and of that of each fold.
    index : str
        As for :class:`skad._bank.MemoryBank`; it may need more vectors than a fold leaves, whose bank is
        searched exactly then.
    before : MemoryBank, default=None
        A bank that grows, whose vectors `rows` counts before the patches.
    first : int, default=0
        Number of the first image of `patches`.

    Returns
    -------
    list of MemoryBank
    """
    n_before = 0 if before is None else len(before)
    is_new = [some >= n_before for some in rows]
    new = [some[at] - n_before for some, at in zip(rows, is_new, strict=True)]
    banks = []
    for some, at, numbers, of_new in zip(rows, is_new, new, patches.take(new), strict=True):
        vectors = np.empty((len(some), of_new.shape[1]), dtype=np.float32)
        sources = np.empty(len(some), dtype=np.int64)
        vectors[at], sources[at] = of_new, first + patches.sources[numbers]
        if before is not None:
            vectors[~at], sources[~at] = before.vectors[some[~at]], before.sources[some[~at]]
        usable = index if len(some) == len(rows[0]) else "auto"
        banks.append(MemoryBank(vectors, sources, index=usable))
    return banks


def score_folds(
    scorers: Sequence[Scorer],
    patches: TrainingPatches,
    sources: Sequence[int | None],
    *,
    grids: bool,
    progress: Callable[[int], None],
) -> list[TrainingScore]:
    """Score every image by what does not know it, in one pass over the images.

    Parameters
    ----------
    scorers : sequence of Scorer
        One per fold.
    patches : TrainingPatches
    sources : sequence of int or None
        Number of each image in the bank of its fold, whose vectors are left out; None: there are none.
    grids : bool
        Whether the scores of all patches are wanted as well.
    progress : callable
        Told of the images scored so far.

    Returns
    -------
    list of TrainingScore
        In the order of the images.
    """
    scores: dict[int, TrainingScore] = {}
    stream = iter(enumerate(patches.per_image(held_out=True)))
    while some := dict(islice(stream, _IMAGES_TOGETHER)):
        for fold, scorer in enumerate(scorers):
            own = [i for i in some if patches.folds[i] == fold]
            images = [TrainingImage(*some[i], sources[i]) for i in own]
            scores |= zip(own, scorer.score_training(images, grids=grids), strict=True)
        progress(len(scores))
    return [scores[i] for i in range(patches.n_images)]


def _report(progress: Callable[[int], None], done: int, more: int) -> None:
    progress(done + more)
