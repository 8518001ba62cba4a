"""All patches of the training images: held, or joined whenever they are needed.

Patches are joined of pooled feature maps, which are held, too, or made by the backbone in every pass.
Every kind answers the same three questions (project, take, image by image) with the same numbers: an
image is always embedded and projected in the same fixed shape. `TrainingPatches` is what detectors see
of them, after the maps that were learned.

Where canvases are cut into tiles, the backbone, and what is learned of its layers, take a tile for an
image of which the core alone counts; what is asked for patches is given them image by image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import torch

from skad._common.memory import temporary_array
from skad._features.extractor import PatchExtractor, check_features, inside
from skad._features.store import StoredExtractor
from skad._features.tiles import TILES_AT_ONCE, gather, tile_footprint
from skad._features.whitening import WhitenedExtractor
from skad._images import Footprint, Tiling

Extractor = PatchExtractor | StoredExtractor | WhitenedExtractor
# Yields pixels of a batch, and where on the canvas each of its images lies.
Batches = Callable[[], Iterable[tuple[np.ndarray, list[Footprint]]]]
Advance = Callable[[int], None]
# Patches of an image, (n_patches, d) float32, and where they lie.
Embedded = tuple[torch.Tensor, Footprint]


class Canvases:
    """The training images as the network sees them, streamed anew whenever it is called.

    Parameters
    ----------
    batches : callable
        Opens the stream of batches.
    n_images : int
    tilings : sequence of Tiling or None, default=None
        How the network sees each of them tile by tile; None: as a whole.

    Attributes
    ----------
    owners : ndarray of int64
        The image of every tile, or of every image: its own number.
    footprints : dict of int to Footprint
        Of images that have tiles, once they were streamed.
    """

    def __init__(
        self, batches: Batches, n_images: int, tilings: Sequence[Tiling] | None = None
    ) -> None:
        self._batches, self._n_images, self.tilings = batches, n_images, tilings
        counts = 1 if tilings is None else [len(tiling) for tiling in tilings]
        self.owners = np.repeat(np.arange(n_images), counts)
        self._digests: dict[int, bytes] = {}
        self.footprints: dict[int, Footprint] = {}

    def n_patches(self, grid: tuple[int, int]) -> int:
        """Count patches, by the grid over an image or a tile; those that do not count, too."""
        grids = [grid] * len(self)
        if self.tilings is not None:
            grids = [tiling.grid(*grid) for tiling in self.tilings]
        return sum(height * width for height, width in grids)

    def __len__(self) -> int:
        return self._n_images

    def __call__(self) -> Iterator[tuple[np.ndarray, list[Footprint]]]:
        """Stream what the network sees, and note what the pixels of each image were."""
        done = 0
        for pixels, footprints in self._batches():
            if self.tilings is None:
                found = (blake2b(canvas, digest_size=16).digest() for canvas in pixels)
                self._digests.update(enumerate(found, done))
                yield pixels, footprints
            else:
                self.footprints.update(enumerate(footprints, done))
                for i, canvas in enumerate(pixels, done):
                    yield from self._tiles(i, canvas, self.tilings[i])
            done += len(footprints)

    def _tiles(
        self, number: int, canvas: Any, tiling: Tiling
    ) -> Iterator[tuple[np.ndarray, list[Footprint]]]:
        """Stream the tiles of one image, a few at once."""
        digest, mask = blake2b(digest_size=16), self.footprints[number].mask
        for start in range(0, len(tiling), TILES_AT_ONCE):
            some = range(start, min(start + TILES_AT_ONCE, len(tiling)))
            pixels = tiling.take([canvas] * len(some), some)
            digest.update(pixels.data)
            yield pixels, [tile_footprint(tiling, i, mask) for i in some]
        self._digests[number] = digest.digest()

    def twins(self) -> frozenset[int]:
        """Images that have an identical one among those streamed."""
        n_alike = Counter(self._digests.values())
        return frozenset(i for i, digest in self._digests.items() if n_alike[digest] > 1)


class FeatureMaps(Protocol):
    """Pooled feature maps of all images."""

    extractor: Extractor
    canvases: Canvases

    def per_canvas(self) -> Iterator[tuple[torch.Tensor, Footprint]]:
        """Yield those of image after image, or tile after tile, (1, n_values), and what of it counts.

        On the extractor's device.
        """

    def whitened(self, matrices: Sequence[np.ndarray]) -> FeatureMaps:
        """Return them whitened; these are not to be used any more."""


class StreamedMaps:
    """Pooled feature maps that are never all in memory: each pass runs the backbone over the images.

    Parameters
    ----------
    extractor : PatchExtractor, StoredExtractor or WhitenedExtractor
    canvases : Canvases
    advance : callable or None
        Told of the images done by the first pass; the later ones belong to other stages.
    """

    def __init__(self, extractor: Extractor, canvases: Canvases, advance: Advance | None) -> None:
        self.extractor, self.canvases, self._advance = extractor, canvases, advance

    def per_canvas(self) -> Iterator[tuple[torch.Tensor, Footprint]]:
        """Run the backbone over the images."""
        for pooled, footprints in self.per_batch():
            yield from zip(pooled.split(1), footprints, strict=True)

    def per_batch(self) -> Iterator[tuple[torch.Tensor, list[Footprint]]]:
        """Run the backbone over the images, and yield batch after batch."""
        advance, self._advance = self._advance, None
        done, owners = 0, self.canvases.owners
        for pixels, footprints in self.canvases():
            pooled = self.extractor.pool(pixels)
            check_features(pooled, done, owners)
            yield pooled, footprints
            done += len(footprints)
            if advance is not None:
                advance(int(owners[done - 1]) + 1)

    def whitened(self, matrices: Sequence[np.ndarray]) -> StreamedMaps:
        """Whiten them whenever they are made."""
        extractor = WhitenedExtractor(self.extractor, matrices)
        return StreamedMaps(extractor, self.canvases, self._advance)


class HeldMaps:
    """Pooled feature maps of all images, in memory: half as many numbers as their patches.

    Parameters
    ----------
    extractor, canvases, advance
        As for :class:`StreamedMaps`.
    """

    def __init__(self, extractor: Extractor, canvases: Canvases, advance: Advance | None) -> None:
        self.extractor, self.canvases = extractor, canvases
        self._pooled = torch.empty((len(canvases.owners), extractor.n_values))
        self._footprints: list[Footprint] = []
        for pooled, footprints in StreamedMaps(extractor, canvases, advance).per_batch():
            self._pooled[len(self._footprints) : len(self._footprints) + len(footprints)] = pooled
            self._footprints += footprints

    def per_canvas(self) -> Iterator[tuple[torch.Tensor, Footprint]]:
        """Fetch image after image, or tile after tile."""
        for pooled, footprint in zip(self._pooled.split(1), self._footprints, strict=True):
            yield pooled.to(self.extractor.device), footprint

    def whitened(self, matrices: Sequence[np.ndarray]) -> HeldMaps:
        """Whiten them in place."""
        extractor = WhitenedExtractor(self.extractor, matrices)
        for pooled in self._pooled.split(1):
            pooled.copy_(extractor.whiten(pooled.to(extractor.device)))
        self.extractor = extractor
        return self


class PatchesJoined:
    """Patches that are joined of pooled feature maps whenever they are needed, in next to no time.

    Parameters
    ----------
    maps : StreamedMaps or HeldMaps
    """

    def __init__(self, maps: FeatureMaps) -> None:
        self.maps, self.n_images = maps, len(maps.canvases)
        self.device = maps.extractor.device
        self.n_patches = maps.canvases.n_patches(maps.extractor.grid)
        self.sources = np.empty(0, dtype=np.int64)
        self.footprints: list[Footprint] = []

    def project(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """Embed all images and keep only their projections."""
        device = self.device
        to_lower = None if matrix is None else matrix.to(device).T
        dim = self.maps.extractor.dim if to_lower is None else to_lower.shape[1]
        projected = torch.empty((self.n_patches, dim), device=device)
        ends, self.footprints = [0], []
        for embedding, footprint in self.per_image():
            end = ends[-1] + len(embedding)
            projected[ends[-1] : end] = embedding if to_lower is None else embedding @ to_lower
            ends.append(end)
            self.footprints.append(footprint)
        self.sources = np.repeat(np.arange(self.n_images), np.diff(ends))
        return projected[: ends[-1]]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Embed all images again and keep only the patches asked for."""
        wanted = np.argsort(indices, kind="stable")
        taken = np.empty((len(indices), self.maps.extractor.dim), dtype=np.float32)
        start = 0
        for patches, _ in self.per_image():
            first, last = np.searchsorted(indices[wanted], [start, start + len(patches)])
            here = wanted[first:last]
            taken[here] = patches[torch.from_numpy(indices[here] - start)].cpu().numpy()
            start += len(patches)
        return taken

    def per_image(self) -> Iterator[Embedded]:
        """Join the patches of image after image."""
        canvases = self.maps.canvases
        joined = (
            (inside(self.maps.extractor.join(pooled)[0], footprint.mask), footprint)
            for pooled, footprint in self.maps.per_canvas()
        )
        if canvases.tilings is None:
            return joined
        return gather(canvases.tilings, joined, canvases.footprints)


class PatchesInMemory:
    """Every embedding, written once into one preallocated array, for what trains on them.

    Parameters
    ----------
    maps : StreamedMaps or HeldMaps
    on_disk : bool, default=False
        Keep the array in a temporary file, which is gone with it.

    Raises
    ------
    OSError
        If the disk of the temporary file is too small.
    """

    def __init__(self, maps: FeatureMaps, on_disk: bool = False) -> None:
        joined = PatchesJoined(maps)
        self.n_images, self.device = joined.n_images, joined.device
        # np.empty commits no page before it is written, so a generous N costs nothing.
        shape = (joined.n_patches, maps.extractor.dim)
        embeddings = _on_disk(shape) if on_disk else np.empty(shape, dtype=np.float32)
        ends, self.footprints = [0], []
        for embedding, footprint in joined.per_image():
            end = ends[-1] + len(embedding)
            embeddings[ends[-1] : end] = embedding.cpu().numpy()
            ends.append(end)
            self.footprints.append(footprint)
        self.ends = np.array(ends)
        self.embeddings = embeddings[: ends[-1]]
        self.sources = np.repeat(np.arange(self.n_images), np.diff(self.ends))

    def project(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """Return (N, p) projections by a (p, d) matrix, image by image as the other kinds project."""
        if matrix is None:
            return torch.from_numpy(self.embeddings).to(self.device)
        to_lower = matrix.to(self.device).T
        projected = torch.empty((len(self.embeddings), to_lower.shape[1]), device=self.device)
        for start, (patches, _) in zip(self.ends[:-1], self.per_image(), strict=True):
            projected[start : start + len(patches)] = patches @ to_lower
        return projected

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Fetch embeddings by their numbers."""
        return self.embeddings[indices]

    def per_image(self) -> Iterator[Embedded]:
        """Yield each image's own slice of the array."""
        for start, end, footprint in zip(
            self.ends[:-1], self.ends[1:], self.footprints, strict=True
        ):
            yield torch.from_numpy(self.embeddings[start:end]).to(self.device), footprint


class TrainingPatches:
    """The training patches as the bank holds them, and as each fold of the images is scored.

    What was learned from all images knows those of a fold, which would lie closer to the bank than new
    ones. So a fold may have a map of its own, which its images have not helped to learn.

    Parameters
    ----------
    patches : PatchesJoined or PatchesInMemory
    folds : ndarray of shape (n_images,), int64
        The fold of each image, 0 to F - 1.
    weight : ndarray of shape (E, d), float32, default=None
        In the bank, patch p becomes ``weight @ p``; None: it stays as it is.
    fold_weights : sequence of F ndarrays of shape (E, d), float32, default=()
        The same, for each fold; none: folds are scored as the bank holds patches.

    Attributes
    ----------
    n_folds : int
    differ : bool
        Whether folds have maps of their own.
    """

    def __init__(
        self,
        patches: PatchesJoined | PatchesInMemory,
        folds: np.ndarray,
        weight: np.ndarray | None = None,
        fold_weights: Sequence[np.ndarray] = (),
    ) -> None:
        self._patches, self.folds, self.n_images = patches, folds, patches.n_images
        self.n_folds, self.differ = int(folds.max()) + 1, len(fold_weights) > 0
        # Copied, since torch warns of the read-only memory map that a worker may see.
        self._weight = None if weight is None else torch.from_numpy(np.array(weight))
        own: list[torch.Tensor | None] = [torch.from_numpy(one) for one in fold_weights]
        self._fold_weights = own or [self._weight] * self.n_folds

    @property
    def sources(self) -> np.ndarray:
        """The image of each patch, once they were projected."""
        return self._patches.sources

    @property
    def footprints(self) -> list[Footprint]:
        """Where the patches of each image lie, once they were projected."""
        return self._patches.footprints

    def project(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """Return (N, p) projections by a (p, E) matrix, both maps in one; None: the mapped patches."""
        if self._weight is not None:
            matrix = self._weight if matrix is None else matrix @ self._weight
        return self._patches.project(matrix)

    def take(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Fetch patches for the bank and for that of each fold, in one pass over the images.

        Parameters
        ----------
        rows : sequence of ndarray of int64
            Their numbers: for the bank, then for some or all folds.

        Returns
        -------
        list of ndarray of shape (len(rows[i]), E), float32
            In the order asked for.
        """
        taken = self._patches.take(np.concatenate(rows))
        parts = np.split(taken, np.cumsum([len(some) for some in rows])[:-1])
        weights = [self._weight, *self._fold_weights]
        return [
            some if weight is None else (torch.from_numpy(some) @ weight.T).numpy()
            for some, weight in zip(parts, weights, strict=False)
        ]

    def per_image(self, *, held_out: bool) -> Iterator[Embedded]:
        """Map image after image, each by the very product that maps it when it is scored.

        Parameters
        ----------
        held_out : bool
            As its fold is scored, or as the bank holds patches.
        """
        device = self._patches.device
        weights = [w if w is None else w.to(device) for w in [self._weight, *self._fold_weights]]
        which = 1 + self.folds if held_out else np.zeros_like(self.folds)
        for i, (patches, footprint) in zip(which, self._patches.per_image(), strict=True):
            yield patches if weights[i] is None else patches @ weights[i].T, footprint


def _on_disk(shape: tuple[int, int]) -> np.ndarray:
    remedy = "raise max_memory, or fit on fewer images"
    return temporary_array(shape, "the patch features", remedy)
