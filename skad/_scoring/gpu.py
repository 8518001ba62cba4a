"""Scores on a GPU: whole batches, each begun before the one before it is finished.

A GPU would wait for the many small products by which a CPU scores images one by one, and for the host
between them. So a batch is given to it as a whole, and bounds come from one product in half precision:
the patches with the highest bounds of each image are computed without asking the host, and an image with
more rivals has all of them computed. The result is exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from skad._bank.bounds import batch_bounds_pay, batch_distances, batch_upper_bounds
from skad._features import Extractor, check_features, inside
from skad._scoring.lazy_scores import Score
from skad._scoring.plain import Batch, Scorer, TrainingImage
from skad._scoring.results import BatchScores
from skad._scoring.several import score_held_out
from skad._torch.transfers import AsyncHostCopy

# Patches of each image that are computed at once: those with the highest bounds.
_PATCHES_PER_IMAGE = 32


def score_batches(
    scorer: Scorer, extractor: Extractor, batches: Iterable[Batch], maps: bool
) -> Iterator[BatchScores]:
    """Score batches of images; their patches too, if there are to be maps.

    Parameters
    ----------
    scorer : Scorer
    extractor : PatchExtractor
        On the GPU.
    batches : iterable of Batch
    maps : bool

    Yields
    ------
    BatchScores
    """
    begin = _begin
    by_map = scorer.rule.image_score != "patch"
    if maps or by_map or not batch_bounds_pay(scorer.bank, extractor.device):
        begin = partial(_begin_whole, maps=maps)
    begun: deque[Callable[[], BatchScores]] = deque()
    for batch in batches:
        begun.append(begin(scorer, extractor, batch))
        if len(begun) > 1:
            yield begun.popleft()()
    for finish in begun:
        yield finish()


def _begin(scorer: Scorer, extractor: Extractor, batch: Batch) -> Callable[[], BatchScores]:
    """Give the GPU its work on a batch; what is returned waits for the results."""
    rule, bank = scorer.rule, scorer.bank

    def mean(distances: torch.Tensor) -> torch.Tensor:
        return (distances.square() if rule.squared else distances).mean(dim=-1)

    pooled = extractor.pool(batch.pixels)
    largest = pooled.abs().amax(dim=1, keepdim=True)
    patches = extractor.join(pooled)
    bounds = mean(batch_upper_bounds(bank, patches, rule.n_neighbors))
    inside_image = np.stack([footprint.mask for footprint in batch.footprints])
    if not inside_image.all():
        outside = torch.from_numpy(~inside_image).flatten(1)
        bounds.masked_fill_(outside.to(bounds.device), -torch.inf)
    # Weights are computed on the host: where every patch has one, so are its scores.
    on_device = (
        None if rule.weighs_patches else lambda p: mean(batch_distances(bank, p, rule.n_neighbors))
    )
    highest = HighestPatches(patches, bounds, on_device)

    def finish() -> BatchScores:
        check_features(largest, batch.start)
        tops, scores = highest.find(scorer.score_patches)
        if rule.b is None:
            return BatchScores(scores, None)
        chosen = patches[torch.arange(len(patches)), torch.from_numpy(tops)]
        return BatchScores(scorer.score_patches(chosen, weighted=True), None)

    return finish


def _begin_whole(
    scorer: Scorer, extractor: Extractor, batch: Batch, maps: bool
) -> Callable[[], BatchScores]:
    return partial(_score_whole, scorer, extractor, batch, maps)


def _score_whole(scorer: Scorer, extractor: Extractor, batch: Batch, maps: bool) -> BatchScores:
    """Score all patches of a batch in one search."""
    pooled = extractor.pool(batch.pixels)
    check_features(pooled, batch.start)
    images = [
        TrainingImage(inside(patches, footprint.mask), footprint, None)
        for patches, footprint in zip(extractor.join(pooled), batch.footprints, strict=True)
    ]
    found = list(score_held_out(scorer, images, grids=maps))
    grids = np.stack([score.grid for score in found]) if maps else None
    return BatchScores(np.array([score.held_out for score in found]), grids)


class HighestPatches:
    """The patches with the highest scores of many images, found together.

    Those with the highest bounds of each image are computed at once. A device is given all of this work
    without waiting for it.

    Parameters
    ----------
    patches : tensor of shape (n, p, d), float32
        Patches of n images.
    bounds : tensor of shape (n, p), on the same device
        No score exceeds its bound; -inf for patches that do not count; every image has some that do.
    on_device : callable or None
        Maps (n, m, d) patches to their (n, m) scores on the device. None: scores are computed on the
        host, by what `find` is given.

    Examples
    --------
    >>> patches = torch.tensor([[[3.0], [1.0]], [[0.5], [2.0]]])
    >>> highest = HighestPatches(patches, patches[..., 0] + 0.25, lambda some: some[..., 0])
    >>> highest.find(lambda some, leave_out: some[:, 0].double().numpy())
    (array([0, 1]), array([3., 2.]))
    """

    def __init__(
        self,
        patches: torch.Tensor,
        bounds: torch.Tensor,
        on_device: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        self._patches, self._bounds = patches, bounds
        n_patches = bounds.shape[1]
        self._per_image = min(_PATCHES_PER_IMAGE, n_patches)
        upper, numbers = bounds.topk(min(_PATCHES_PER_IMAGE + 1, n_patches), dim=1)
        images = torch.arange(len(patches), device=patches.device)
        self._candidates = patches[images[:, None], numbers[:, : self._per_image]]
        known = [] if on_device is None else [on_device(self._candidates)]
        self._copies = AsyncHostCopy(upper, numbers, *known)

    def find(self, score: Score) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Wait for the device, and make sure of the patches.

        Parameters
        ----------
        score : callable
            Scores patches of several images.

        Returns
        -------
        patches : ndarray of shape (n,)
            Numbers of the highest. Exact: of images with more rivals, all rivals are computed.
        scores : ndarray of shape (n,), float64
        """
        upper, numbers, *known = self._copies.arrays()
        n = len(upper)
        candidates = self._candidates.flatten(0, 1)
        scores = known[0] if known else score(candidates, None).reshape(n, self._per_image)
        scores = np.where(
            np.isneginf(upper[:, : self._per_image]), -np.inf, scores.astype(np.float64)
        )
        best = scores.argmax(axis=1)
        patches, highest = numbers[np.arange(n), best], scores[np.arange(n), best]
        rivals = upper[:, self._per_image :].max(axis=1, initial=-np.inf)
        self._compare_rivals(np.flatnonzero(~(rivals < highest)), patches, highest, score)
        return patches, highest

    def _compare_rivals(
        self,
        images: NDArray[np.int64],
        patches: NDArray[np.int64],
        highest: NDArray[np.float64],
        score: Score,
    ) -> None:
        """Compute all patches of some images that may exceed what was found, and take the highest."""
        bounds = self._bounds[torch.from_numpy(images)].double().cpu().numpy()
        owners, numbers = np.nonzero(bounds >= highest[images, None])
        if not len(owners):
            return
        rows = self._patches[torch.from_numpy(images[owners]), torch.from_numpy(numbers)]
        scores = score(rows, None)
        for i in np.unique(owners):
            own = np.flatnonzero(owners == i)
            top = own[scores[own].argmax()]
            patches[images[i]], highest[images[i]] = numbers[top], scores[top]
