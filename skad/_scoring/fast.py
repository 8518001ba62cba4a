"""The scores of `plain`, exact as there, at a fraction of the cost.

- An image's score, and the highest point of a training image's map, need few patches: bounds tell which
  (`lazy_scores`).
- A map needs every patch: products with the bank are taken layer by layer (`skad._features.layers`).
- A GPU is given whole batches, and never waits for the host (`gpu`).

This file and what it alone imports can be deleted, and then does what `Scorer` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from skad._bank.bounds import bounds_pay, upper_bounds
from skad._bank.search import measured, smallest_columns
from skad._features import Extractor, inside
from skad._features.layers import patch_layers
from skad._images import Footprint
from skad._scoring import gpu
from skad._scoring.lazy_scores import LazyScores, MapPeak, compute
from skad._scoring.maps import on_grid
from skad._scoring.plain import (
    Batch,
    Scorer,
    TrainingImage,
    TrainingScore,
    mean_of_nearest,
)
from skad._scoring.results import BatchScores
from skad._scoring.several import score_held_out, score_images

# Training images are searched together, to read the bank less often: as many as have so many numbers,
# or so many times those of the bank, since a small bank costs little to read.
_NUMBERS_TOGETHER, _TIMES_THE_BANK = 1 << 23, 8


class FastScorer(Scorer):
    """Scores images as :class:`Scorer` does, in less time."""

    def score_batches(
        self, extractor: Extractor, batches: Iterable[Batch], maps: bool
    ) -> Iterator[BatchScores]:
        """Score batches of images; their patches too, if there are to be maps."""
        if extractor.device.type == "cpu":
            # Image by image: products of one shape give an image the same score in every batch.
            return super().score_batches(extractor, batches, maps)
        return gpu.score_batches(self, extractor, batches, maps)

    def score_one(
        self, extractor: Extractor, pooled: torch.Tensor, footprint: Footprint, maps: bool
    ) -> tuple[float, NDArray[np.float64]]:
        """Score an image and, if `maps`, all of its patches."""
        if not maps and self._is_lazy(pooled.device):
            patches = inside(extractor.join(pooled)[0], footprint.mask)
            return self.score_embedded(patches, footprint), np.empty(0)
        return super().score_one(extractor, pooled, footprint, maps)

    def score_training(
        self, images: Iterable[TrainingImage], *, grids: bool
    ) -> Iterator[TrainingScore]:
        """Score training images as if the bank had never seen them, several together."""
        images = iter(images)
        for first in images:
            at_once = min(_NUMBERS_TOGETHER, _TIMES_THE_BANK * self.bank.vectors.size)
            n_more = at_once // (first.footprint.mask.size * self.bank.vectors.shape[1]) - 1
            group = [first, *islice(images, max(0, n_more))]
            yield from self._score_held_out(group, grids)

    def _score_held_out(self, group: list[TrainingImage], grids: bool) -> Iterator[TrainingScore]:
        if not self._is_lazy(group[0].patches.device):
            return score_held_out(self, group, grids)
        return self._score_lazily(group, grids)

    def _is_lazy(self, device: torch.device) -> bool:
        """Whether few patches tell the score of an image; the mean of a fraction needs all."""
        return isinstance(self.rule.image_score, str) and bounds_pay(self.bank, device)

    def _score_lazily(self, group: list[TrainingImage], grids: bool) -> Iterator[TrainingScore]:
        """Score images without their own vectors, each by the patches that matter."""
        lazy = [self._lazy(image.patches, image.source) for image in group]
        by_patch = self.rule.image_score == "patch"
        if by_patch:
            compute([(one, one.rivals) for one in lazy], self.score_patches)
            scores = score_images(self, group, [one.known() for one in lazy])
        peaks = [
            MapPeak(one, image.footprint, self.heatmap)
            for one, image in zip(lazy, group, strict=True)
        ]
        compute([(peak.scores, peak.unknown) for peak in peaks], self.score_patches)
        if grids:
            compute([(one, one.unknown) for one in lazy], self.score_patches)
        highest = [peak.value for peak in peaks]
        scores = scores if by_patch else highest
        for image, one, peak, score in zip(group, lazy, highest, scores, strict=True):
            grid = on_grid(one.values, image.footprint.mask) if grids else np.empty(0)
            yield TrainingScore(score, peak, grid)

    def score_embedded(self, patches: torch.Tensor, footprint: Footprint) -> float:
        """Score an image by those of its patches that matter."""
        if not self._is_lazy(patches.device):
            return super().score_embedded(patches, footprint)
        lazy = self._lazy(patches, None)
        if self.rule.image_score == "patch":
            compute([(lazy, lazy.rivals)], self.score_patches)
            return self.score_image(patches, lazy.known(), footprint)
        peak = MapPeak(lazy, footprint, self.heatmap)
        compute([(lazy, peak.unknown)], self.score_patches)
        return peak.value

    def _lazy(self, patches: torch.Tensor, source: int | None) -> LazyScores:
        # Weights are below 1: bounds of mean distances bound weighted scores as well.
        def bounds(some: torch.Tensor, coarse: bool = False) -> NDArray[np.float64]:
            near = upper_bounds(
                self.bank, some, self.rule.n_neighbors, exclude_source=source, coarse=coarse
            )
            return mean_of_nearest(near, self.rule.squared)

        return LazyScores(
            patches,
            source,
            bounds(patches, coarse=True),
            lambda some: bounds(patches[torch.from_numpy(some)]),
        )

    def score_every(
        self, extractor: Extractor, pooled: torch.Tensor, mask: NDArray[np.bool_]
    ) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """Score all patches of an image that count, layer by layer where that costs less."""
        patches = self.bank.as_queries(inside(extractor.join(pooled)[0], mask))
        layers = None
        if self.bank.index == "auto" and not self.rule.weighs_patches:
            layers = patch_layers(extractor, pooled[0], mask)
        if layers is None:
            return patches, self.score_patches(patches)
        exact = self.bank.exact(patches.device)
        centred = layers.centred(exact.centre)
        ids = smallest_columns(
            lambda some: centred.products(exact.points[some], exact.norms[some]),
            exact.points,
            self.rule.n_neighbors,
        )
        distances, _ = measured(patches, exact.vectors, ids)
        return patches, mean_of_nearest(distances, self.rule.squared)
