"""Scores of several images in one search: as `Scorer` gives them image by image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from skad._scoring.lazy_scores import together
from skad._scoring.maps import on_grid
from skad._scoring.plain import Scorer, TrainingImage, TrainingScore


def score_held_out(
    scorer: Scorer, group: list[TrainingImage], grids: bool
) -> Iterator[TrainingScore]:
    """Score images without their own vectors in the bank, all of their patches in one search.

    Parameters
    ----------
    scorer : Scorer
    group : list of TrainingImage
    grids : bool

    Yields
    ------
    TrainingScore
    """
    scores = _scores_of_all(scorer, group)
    of_images = score_images(scorer, group, scores)
    for image, patches, score in zip(group, scores, of_images, strict=True):
        grid = on_grid(patches, image.footprint.mask)
        peak = score
        if scorer.rule.image_score != "map":
            peak = scorer.heatmap.summary(grid, image.footprint.pixels)
        yield TrainingScore(score, peak, grid if grids else np.empty(0))


def score_images(
    scorer: Scorer, group: list[TrainingImage], scores: list[NDArray[np.float64]]
) -> list[float]:
    """Score images by the scores of their patches; as `Scorer.score_image` does one.

    Most anomalous patches are searched for once more, those of all images in one search.

    Parameters
    ----------
    scorer : Scorer
    group : list of TrainingImage
    scores : list of ndarray
        Of the patches of each image.

    Returns
    -------
    list of float
    """
    if scorer.rule.image_score != "patch":
        return [
            scorer.score_image(image.patches, own, image.footprint)
            for image, own in zip(group, scores, strict=True)
        ]
    found = np.empty(len(group))
    for leaves_out in (False, True):
        some = [i for i, image in enumerate(group) if (image.source is not None) == leaves_out]
        if some:
            tops = [group[i].patches[scores[i].argmax()] for i in some]
            sources = together([group[i].source for i in some], [1] * len(some))
            found[some] = scorer.score_patches(torch.stack(tops), sources, weighted=True)
    return found.tolist()


def _scores_of_all(scorer: Scorer, group: list[TrainingImage]) -> list[NDArray[np.float64]]:
    found: dict[int, NDArray[np.float64]] = {}
    for leaves_out in (False, True):
        some = [i for i, image in enumerate(group) if (image.source is not None) == leaves_out]
        if some:
            sizes = [len(group[i].patches) for i in some]
            sources = together([group[i].source for i in some], sizes)
            scores = scorer.score_patches(torch.cat([group[i].patches for i in some]), sources)
            found |= dict(zip(some, np.split(scores, np.cumsum(sizes)[:-1]), strict=True))
    return [found[i] for i in range(len(group))]
