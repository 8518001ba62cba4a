"""From patches to scores and maps by the distances to a memory bank, as the papers write them.

What is here says what scores are. `fast` computes the same numbers in less time, and can be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from skad._bank import LeaveOut, MemoryBank
from skad._features import Extractor, check_features, inside
from skad._images import Footprint
from skad._scoring.heatmaps import Heatmap
from skad._scoring.maps import ImageScore, on_grid
from skad._scoring.results import BatchScores


def mean_of_nearest(distances: ArrayLike, squared: bool) -> NDArray[np.float64]:
    """Patch score: mean over the nearest bank vectors of the distance or of its square.

    Parameters
    ----------
    distances : array-like of shape (..., k)
        Euclidean distances to the k nearest bank vectors.
    squared : bool
        True averages squared distances, as PatchCore's published code does (faiss returns
        squares); False averages Euclidean distances, as its paper says.

    Returns
    -------
    ndarray of shape (...), float64

    References
    ----------
    Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, section 3.3.
    """
    values = np.asarray(distances, dtype=np.float64)
    return np.mean(values * values if squared else values, axis=-1)


def reweight(nearest: ArrayLike, to_neighbours: ArrayLike) -> NDArray[np.float64]:
    """Weights of PatchCore's Eq. 7, which is ReConPatch's Eq. 10.

    With ``m*`` the bank vector nearest to a patch ``q`` and ``N_b`` the b bank vectors nearest
    to ``m*`` (``m*`` among them), the weight is
    ``1 - exp(|q - m*|) / sum over m in N_b of exp(|q - m|)``. It lies in ``[1 - 1/b, 1)`` and is
    the larger the more isolated ``m*`` is.

    Parameters
    ----------
    nearest : array-like of shape (...)
        Euclidean distance of each patch to its nearest bank vector.
    to_neighbours : array-like of shape (..., b)
        Euclidean distances of each patch to ``N_b(m*)``.

    Returns
    -------
    ndarray of shape (...), float64

    Raises
    ------
    ValueError
        If b < 2: the weight would be zero whatever the distances.

    References
    ----------
    Roth et al., CVPR 2022, Eq. 7; Hyun et al., "ReConPatch", WACV 2024, Eq. 10.
    """
    neighbours = np.asarray(to_neighbours, dtype=np.float64)
    if neighbours.shape[-1] < 2:
        raise ValueError(
            f"re-weighting needs b >= 2 neighbours, got b={neighbours.shape[-1]}: "
            "with fewer every weight is zero"
        )
    # A difference of logarithms, since exp overflows at a distance of 710.
    total = logsumexp(neighbours, axis=-1)
    return -np.expm1(np.asarray(nearest, dtype=np.float64) - total)


class Rule(NamedTuple):
    """How distances become scores."""

    n_neighbors: int
    squared: bool
    """Whether the score of a patch averages squared distances."""
    b: int | None
    """Size of the neighbourhood that weights a score (PatchCore, Eq. 7); None: no weight."""
    weighs_patches: bool
    """Whether every patch is weighted (ReConPatch, Eq. 9 and 10), or the most anomalous one alone."""
    image_score: ImageScore
    """"patch": an image is as anomalous as its most anomalous patch (PatchCore, Eq. 6). "map": as the
    highest value of its heat map. A number: as the mean of this fraction of the map, the highest."""


class Batch(NamedTuple):
    """Images whose patches are to be scored."""

    start: int
    """Number of the first image."""
    pixels: np.ndarray
    """(B, S, S, 3)."""
    footprints: list[Footprint]
    """Where on the canvas each image lies."""


class TrainingImage(NamedTuple):
    """The patches of a training image."""

    patches: torch.Tensor
    """(n, d) float32; those that lie in padding are left out."""
    footprint: Footprint
    """Where they lie."""
    source: int | None
    """Number of the image in the bank, whose vectors are left out; None: nothing is left out."""


class TrainingScore(NamedTuple):
    """Anomaly scores of a training image."""

    held_out: float
    """By a bank that does not hold the image's own vectors."""
    peak: float
    """The highest value of its heat map, held out as well; the score itself if the rule is "map"."""
    grid: NDArray[np.float64]
    """(h, w) held-out patch scores; NaN in padding. Empty if grids were not asked for."""


@dataclass(frozen=True)
class Scorer:
    """Scores images by the distances of their patches to a memory bank."""

    bank: MemoryBank
    rule: Rule
    heatmap: Heatmap

    def score_patches(
        self, patches: torch.Tensor, leave_out: LeaveOut = None, *, weighted: bool = False
    ) -> NDArray[np.float64]:
        """Score (n, d) patches: PatchCore, section 3.3; ReConPatch, Eq. 9 and 10.

        With `weighted`, by the neighbourhoods of their nearest vectors (Eq. 7), as the rule asks for.
        """
        rule = self.rule
        distances, ids = self.bank.search(patches, rule.n_neighbors, exclude_source=leave_out)
        scores = mean_of_nearest(distances, rule.squared)
        if rule.b is None or not (weighted or rule.weighs_patches):
            return scores
        around = self.bank.distances_around(patches, ids, rule.b, exclude_source=leave_out)
        return scores * reweight(distances[:, 0], around)

    def score_image(
        self,
        patches: torch.Tensor,
        scores: NDArray[np.float64],
        footprint: Footprint,
        leave_out: int | None = None,
    ) -> float:
        """Score an image by its map, or by its most anomalous patch (PatchCore, Eq. 6 and 7).

        That patch is searched for once more by itself: its score must not depend on which others were
        computed beside it.
        """
        if self.rule.image_score != "patch":
            grid = on_grid(scores, footprint.mask)
            return self.heatmap.summary(grid, footprint.pixels, self.rule.image_score)
        top = scores.argmax()
        return float(self.score_patches(patches[top : top + 1], leave_out, weighted=True)[0])

    def score_batches(
        self, extractor: Extractor, batches: Iterable[Batch], maps: bool
    ) -> Iterator[BatchScores]:
        """Score batches of images; their patches too, if there are to be maps."""
        for batch in batches:
            pooled = extractor.pool(batch.pixels)
            check_features(pooled, batch.start)
            found = [
                self.score_one(extractor, one, footprint, maps)
                for one, footprint in zip(pooled.split(1), batch.footprints, strict=True)
            ]
            yield BatchScores(
                np.array([score for score, _ in found]),
                np.stack([grid for _, grid in found]) if maps else None,
            )

    def score_one(
        self, extractor: Extractor, pooled: torch.Tensor, footprint: Footprint, maps: bool
    ) -> tuple[float, NDArray[np.float64]]:
        """Score an image, and lay the scores of its patches out on the grid."""
        patches, scores = self.score_every(extractor, pooled, footprint.mask)
        grid = on_grid(scores, footprint.mask) if maps else np.empty(0)
        return self.score_image(patches, scores, footprint), grid

    def score_every(
        self, extractor: Extractor, pooled: torch.Tensor, mask: NDArray[np.bool_]
    ) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """Join and score all patches of an image that count."""
        patches = inside(extractor.join(pooled)[0], mask)
        return patches, self.score_patches(patches)

    def score_training(
        self, images: Iterable[TrainingImage], *, grids: bool
    ) -> Iterator[TrainingScore]:
        """Score training images as if the bank had never seen them."""
        for patches, footprint, source in images:
            scores = self.score_patches(patches, source)
            grid = on_grid(scores, footprint.mask)
            yield TrainingScore(
                self.score_image(patches, scores, footprint, source),
                self.heatmap.summary(grid, footprint.pixels),
                grid if grids else np.empty(0),
            )

    def score_embedded(self, patches: torch.Tensor, footprint: Footprint) -> float:
        """Score an image by its patches, as new images are scored."""
        return self.score_image(patches, self.score_patches(patches), footprint)
