"""Which training images never enter the bank, where a training set may not be clean.

A defect in the bank vouches for every defect that looks like it. A patch of a good image has its like in
many images, a patch of a defect in few of them: it is judged by its distance to the third nearest
image, so that two images with the same defect do not vouch for each other. Its like is looked for around
the same place, where parts lie alike, and among patches drawn at random, where they do not. An image is
judged by its map, as when it is scored.

References
----------
X. Jiang et al., "SoftPatch: Unsupervised Anomaly Detection with Noisy Data", NeurIPS 2022: outliers are
taken out before the coreset is selected, judged by patches of the same place.

X. Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of
the Unlabeled Images", ICLR 2024: good patches have their like in many images, defects in few.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skad._features import TrainingPatches
from skad._images import Footprint
from skad._scoring.heatmaps import Heatmap

# Images that all are compared with, and the patches drawn from each, beside those around the same place.
_N_REFERENCES, _N_DRAWN = 128, 16
# A patch is as suspicious as it is far from the image of this rank; see docs/unclean.md.
_RANK = 3
# Images compared together: a distance for each of their patches to each reference must fit the cache.
_TOGETHER = 16


class KeptPatches:
    """The patches that may enter the bank.

    Parameters
    ----------
    patches : TrainingPatches
        Of all training images.
    trimmed : ndarray of int
        Numbers of the images whose patches may not.

    Attributes
    ----------
    trimmed : ndarray of int64
    rows : ndarray of int64
        Which of all patches these are.
    sources, folds : ndarray of int64
        The image of each, and the fold of that.
    """

    def __init__(self, patches: TrainingPatches, trimmed: NDArray[np.int64]) -> None:
        self.patches, self.trimmed = patches, trimmed
        self.rows = np.flatnonzero(~np.isin(patches.sources, trimmed))
        self.sources = patches.sources[self.rows]
        self.folds = patches.folds[self.sources]

    def take(self, indices: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Fetch patches for the bank and that of each fold, as :meth:`TrainingPatches.take` does."""
        return self.patches.take([self.rows[some] for some in indices])


def n_trimmed(n_images: int, fraction: float) -> int:
    """Tell how many images a fraction of them is, rounded down.

    Examples
    --------
    >>> n_trimmed(30, 0.1), n_trimmed(9, 0.1)
    (3, 0)
    """
    # The tolerance keeps fractions such as 0.29 of 100 from 28.999999999999996.
    return int(fraction * n_images + 1e-9)


def images_to_trim(
    patches: torch.Tensor,
    footprints: Sequence[Footprint],
    heatmap: Heatmap,
    fraction: float,
    generator: torch.Generator,
) -> NDArray[np.int64]:
    """Find the most suspicious images.

    Parameters
    ----------
    patches, footprints, heatmap, generator
        As for :func:`suspicions`.
    fraction : float
        Of the images, in [0, 1).

    Returns
    -------
    ndarray of int64
        Their numbers, ascending.
    """
    n = n_trimmed(len(footprints), fraction)
    if n == 0:
        return np.empty(0, dtype=np.int64)
    if len({footprint.mask.shape for footprint in footprints}) > 1:
        raise ValueError(
            "trim_fraction compares patches at the same place, and images of several sizes have no "
            "common places with tiles='native': use tiles=(rows, columns), or trim_fraction=0."
        )
    scores = suspicions(patches, footprints, heatmap, generator)
    return np.sort(np.argsort(-scores, kind="stable")[:n])


def suspicions(
    patches: torch.Tensor,
    footprints: Sequence[Footprint],
    heatmap: Heatmap,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Score each image by its patches that have their like in fewest others.

    Parameters
    ----------
    patches : tensor of shape (N, p)
        Of all images, image after image.
    footprints : sequence of n Footprint
        Where the patches of each image lie.
    heatmap : Heatmap
        How scores of patches become a map, whose highest value is the image's.
    generator : torch.Generator
        Draws the images to compare with, and patches of them.

    Returns
    -------
    ndarray of shape (n,)
        Higher = more suspicious.
    """
    images = _Images(patches, footprints)
    references = _References.of(images, generator)
    rank = min(_RANK, len(references.numbers) - 1)
    scores = np.empty(len(footprints))
    for start in range(0, len(footprints), _TOGETHER):
        some = torch.arange(start, min(start + _TOGETHER, len(footprints)))
        far = references.squared_distances(images.of(some))
        far[:, :, (some[:, None] == references.numbers).to(far.device)] = torch.inf
        grids = far.kthvalue(rank, dim=-1).values.clamp_min_(0).sqrt_().double().cpu().numpy()
        for i, footprint in zip(some.tolist(), footprints[start:], strict=False):
            grid = np.where(footprint.mask, grids[:, :, i - start], np.nan)
            scores[i] = heatmap.summary(grid, footprint.pixels)
    return scores


class _Grids(NamedTuple):
    """Patches of some images on their grids."""

    patches: torch.Tensor
    """(b, h, w, p); 0 in padding."""
    norms: torch.Tensor
    """(b, h, w), squared lengths; infinite in padding, which is near to nothing."""


class _Images:
    """All images; patches are laid out on grids when they are asked for, since a copy of all is large.

    Parameters
    ----------
    patches : tensor of shape (N, p)
    footprints : sequence of n Footprint
    """

    def __init__(self, patches: torch.Tensor, footprints: Sequence[Footprint]) -> None:
        self._patches, self._mean = patches, patches.mean(dim=0)
        self._masks = torch.from_numpy(np.stack([footprint.mask for footprint in footprints]))
        self._ends = self._masks.flatten(1).sum(dim=1).cumsum(dim=0)

    def __len__(self) -> int:
        return len(self._masks)

    def of(self, numbers: torch.Tensor) -> _Grids:
        """Lay out the images of these numbers, their patches about the mean of all."""
        masks, ends = self._masks[numbers], self._ends[numbers].tolist()
        n_patches = masks.flatten(1).sum(dim=1).tolist()
        rows = [torch.arange(end - n, end) for end, n in zip(ends, n_patches, strict=True)]
        device = self._patches.device
        masks = masks.to(device)
        grids = self._patches.new_zeros((*masks.shape, self._patches.shape[1]))
        grids[masks] = self._patches[torch.cat(rows).to(device)] - self._mean
        norms = grids.square().sum(dim=-1)
        return _Grids(grids, norms.masked_fill_(~masks, torch.inf))


class _References(NamedTuple):
    """Images that others are compared with."""

    numbers: torch.Tensor
    """(R,), ascending."""
    grids: torch.Tensor
    """(h, w, p, R): what lies at each place."""
    norms: torch.Tensor
    """(h, w, R)"""
    drawn: torch.Tensor
    """(p, m * R): m patches of each, wherever they lie."""
    drawn_norms: torch.Tensor
    """(m * R,)"""

    @classmethod
    def of(cls, images: _Images, generator: torch.Generator) -> _References:
        chosen = torch.randperm(len(images), generator=generator)[:_N_REFERENCES]
        numbers = chosen.sort().values
        grids, norms = images.of(numbers)
        dim, n = grids.shape[-1], len(numbers)
        drawn, drawn_norms = [], []
        for vectors, lengths in zip(grids.reshape(n, -1, dim), norms.reshape(n, -1), strict=True):
            inside = torch.isfinite(lengths).nonzero()[:, 0]
            # With repetition: an image may have fewer patches.
            some = torch.randint(len(inside), (_N_DRAWN,), generator=generator)
            drawn.append(vectors[inside[some.to(inside.device)]])
            drawn_norms.append(lengths[inside[some.to(inside.device)]])
        return cls(
            numbers,
            grids.permute(1, 2, 3, 0).contiguous(),
            norms.permute(1, 2, 0).contiguous(),
            torch.stack(drawn, dim=1).reshape(-1, dim).T.contiguous(),
            torch.stack(drawn_norms, dim=1).reshape(-1),
        )

    def squared_distances(self, images: _Grids) -> torch.Tensor:
        """(h, w, b, R): from each patch to the nearest that is known of each reference."""
        queries, lengths = images.patches.permute(1, 2, 0, 3), images.norms.permute(1, 2, 0)
        flat = queries.reshape(-1, queries.shape[-1])
        drawn = torch.addmm(self.drawn_norms, flat, self.drawn, alpha=-2)
        nearest = drawn.reshape(len(flat), _N_DRAWN, -1).amin(dim=1)
        nearest = nearest.reshape(*lengths.shape, -1)
        height, width = lengths.shape[:2]
        for down, right in product((-1, 0, 1), repeat=2):
            here, there = zip(_overlap(height, down), _overlap(width, right), strict=True)
            near = self.norms[there].unsqueeze(2) - 2 * (queries[here] @ self.grids[there])
            nearest[here] = torch.minimum(nearest[here], near)
        return nearest + lengths.unsqueeze(-1)


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Where places and those `shift` behind them both lie within `length`."""
    first, last = max(0, -shift), min(length, length - shift)
    return slice(first, last), slice(first + shift, last + shift)
