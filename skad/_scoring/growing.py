"""How a memory bank grows by good images that come later, without those learned from before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch

from skad._bank import Coreset, Cover, MemoryBank, bank_size, grow_coreset
from skad._scoring.calibration import CalibrationLog
from skad._scoring.results import TrainingScores


@dataclass(frozen=True)
class Growth:
    """What a detector keeps of the images that it has learned from, so that its bank can grow.

    Parameters
    ----------
    n_patches : int
        Patches seen.
    seed : int
        From which projections and choices follow.
    cover : Cover or None
        How well the coreset covers the patches seen; None for methods that bound no distance.
    log : CalibrationLog
        Scores of the images that still count.
    """

    n_patches: int
    seed: int
    cover: Cover | None
    log: CalibrationLog

    def bank_size(self, n_vectors: int, n_new: int, coreset_size: float | str) -> int:
        """Size of the bank for all patches seen.

        Parameters
        ----------
        n_vectors : int
            Its size now.
        n_new : int
            Patches to come.
        coreset_size : int, float or "auto"
            A number, which stays; a fraction of the patches, which gives one vector more at least; or
            "auto", which gives more where that is so many.

        Returns
        -------
        int
        """
        if isinstance(coreset_size, Integral):
            return n_vectors
        more = 0 if isinstance(coreset_size, str) else 1
        return max(n_vectors + more, bank_size(self.n_patches + n_new, coreset_size))

    def followed_by(
        self, n_new: int, cover: Cover | None, scores: TrainingScores, n_images: int
    ) -> Growth:
        """Add what was learned from new images.

        Parameters
        ----------
        n_new : int
            Their patches.
        cover : Cover or None
            Of the coreset as it is now.
        scores : TrainingScores
            Of the new images.
        n_images : int
            Images that the bank knows now.

        Returns
        -------
        Growth
        """
        log = self.log.followed_by(CalibrationLog.of(scores, n_images))
        return Growth(self.n_patches + n_new, self.seed, cover, log)


def select_grown(
    projected: torch.Tensor,
    n_select: int,
    *,
    bank: MemoryBank,
    growth: Growth,
    matrix: torch.Tensor | None,
    method: str,
    n_starts: int,
    progress: Callable[[int], None] | None = None,
) -> Coreset:
    """Choose among the vectors of a bank and new patches.

    Parameters
    ----------
    projected : torch.Tensor of shape (N, p)
        New patches, projected for the selection by `matrix`.
    n_select : int
        Vectors of the new bank.
    bank : MemoryBank
    growth : Growth
        Of the images before.
    matrix : torch.Tensor of shape (p, d) or None
    method, n_starts, progress
        As for :func:`skad._bank.grow_coreset`.

    Returns
    -------
    Coreset
        Its rows count the vectors of the bank first.
    """
    if not len(projected):
        return Coreset(np.arange(n_select), growth.cover)
    kept = torch.from_numpy(np.array(bank.vectors)).to(projected.device)
    return grow_coreset(
        kept if matrix is None else kept @ matrix.to(kept.device).T,
        projected,
        n_select,
        method=method,
        n_starts=n_starts,
        cover=growth.cover,
        n_seen=growth.n_patches,
        # Another sequence for every call, the same in every repetition.
        generator=torch.Generator().manual_seed(growth.seed + growth.n_patches),
        progress=progress,
    )
