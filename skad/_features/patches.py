"""All patches of the training images: held, or joined whenever they are needed.

Every kind answers the same three questions (project, take, image by image) with the same numbers:
every image is embedded and projected in the same fixed shape. Patches are joined of pooled feature
maps, which are held, too, or made by the backbone in every pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch

from skad._common.memory import temporary_array
from skad._features.extractor import PatchExtractor, check_features, inside
from skad._features.store import StoredExtractor
from skad._features.whitening import WhitenedExtractor
from skad._images import Footprint

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
    """

    def __init__(self, batches: Batches, n_images: int) -> None:
        self._batches, self._n_images = batches, n_images
        self._digests: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self._n_images

    def __call__(self) -> Iterator[tuple[np.ndarray, list[Footprint]]]:
        """Stream pixels and footprints, and note what the pixels were."""
        done = 0
        for pixels, footprints in self._batches():
            found = (blake2b(canvas, digest_size=16).digest() for canvas in pixels)
            self._digests.update(enumerate(found, done))
            yield pixels, footprints
            done += len(footprints)

    def twins(self) -> frozenset[int]:
        """Images that have an identical one among those streamed."""
        n_alike = Counter(self._digests.values())
        return frozenset(i for i, digest in self._digests.items() if n_alike[digest] > 1)


class FeatureMaps(Protocol):
    """Pooled feature maps of n images."""

    extractor: Extractor
    n_images: int

    def per_image(self) -> Iterator[tuple[torch.Tensor, Footprint]]:
        """Yield those of image after image, (1, n_values), on the extractor's device, and its place."""

    def whitened(self, matrices: Sequence[np.ndarray]) -> FeatureMaps:
        """Return them whitened; these are not to be used any more."""


class StreamedMaps:
    """Pooled feature maps that are never all in memory: each pass runs the backbone over the images.

    Parameters
    ----------
    extractor : PatchExtractor, StoredExtractor or WhitenedExtractor
    batches : callable
    n_images : int
    advance : callable or None
        Told of the images done by the first pass; the later ones belong to other stages.
    """

    def __init__(
        self, extractor: Extractor, batches: Batches, n_images: int, advance: Advance | None
    ) -> None:
        self.extractor, self.n_images = extractor, n_images
        self._batches, self._advance = batches, advance

    def per_image(self) -> Iterator[tuple[torch.Tensor, Footprint]]:
        """Run the backbone over the images."""
        for pooled, footprints in self.per_batch():
            yield from zip(pooled.split(1), footprints, strict=True)

    def per_batch(self) -> Iterator[tuple[torch.Tensor, list[Footprint]]]:
        """Run the backbone over the images, and yield batch after batch."""
        advance, self._advance = self._advance, None
        done = 0
        for pixels, footprints in self._batches():
            pooled = self.extractor.pool(pixels)
            check_features(pooled, done)
            yield pooled, footprints
            done += len(footprints)
            if advance is not None:
                advance(done)

    def whitened(self, matrices: Sequence[np.ndarray]) -> StreamedMaps:
        """Whiten them whenever they are made."""
        extractor = WhitenedExtractor(self.extractor, matrices)
        return StreamedMaps(extractor, self._batches, self.n_images, self._advance)


class HeldMaps:
    """Pooled feature maps of all images, in memory: half as many numbers as their patches.

    Parameters
    ----------
    extractor, batches, n_images, advance
        As for :class:`StreamedMaps`.
    """

    def __init__(
        self, extractor: Extractor, batches: Batches, n_images: int, advance: Advance | None
    ) -> None:
        self.extractor, self.n_images = extractor, n_images
        self._pooled = torch.empty((n_images, extractor.n_values))
        self._footprints: list[Footprint] = []
        for pooled, footprints in StreamedMaps(extractor, batches, n_images, advance).per_batch():
            self._pooled[len(self._footprints) : len(self._footprints) + len(footprints)] = pooled
            self._footprints += footprints

    def per_image(self) -> Iterator[tuple[torch.Tensor, Footprint]]:
        """Fetch image after image."""
        for pooled, footprint in zip(self._pooled.split(1), self._footprints, strict=True):
            yield pooled.to(self.extractor.device), footprint

    def whitened(self, matrices: Sequence[np.ndarray]) -> HeldMaps:
        """Whiten them in place."""
        extractor = WhitenedExtractor(self.extractor, matrices)
        for pooled in self._pooled.split(1):
            pooled.copy_(extractor.whiten(pooled.to(extractor.device)))
        self.extractor = extractor
        return self


class TrainingPatches(Protocol):
    """The patches of n images, N in all; ``sources[i]`` is the image that patch i was cut from."""

    n_images: int
    sources: np.ndarray

    def project(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """Return (N, p) projections by a (p, d) matrix; the embeddings themselves if it is None."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return (len(indices), d) float32 embeddings, in the order asked for."""

    def per_image(self) -> Iterator[Embedded]:
        """Yield the embeddings of image after image, on the extractor's device, and their places."""


class PatchesJoined:
    """Patches that are joined of pooled feature maps whenever they are needed, in next to no time.

    Parameters
    ----------
    maps : StreamedMaps or HeldMaps
    """

    def __init__(self, maps: FeatureMaps) -> None:
        self.maps, self.n_images = maps, maps.n_images
        self.sources = np.empty(0, dtype=np.int64)

    def project(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """Embed all images and keep only their projections."""
        extractor = self.maps.extractor
        device = extractor.device
        to_lower = None if matrix is None else matrix.to(device).T
        height, width = extractor.grid
        dim = extractor.dim if to_lower is None else to_lower.shape[1]
        projected = torch.empty((self.n_images * height * width, dim), device=device)
        ends = [0]
        for embedding, _ in self.per_image():
            end = ends[-1] + len(embedding)
            projected[ends[-1] : end] = embedding if to_lower is None else embedding @ to_lower
            ends.append(end)
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
        for pooled, footprint in self.maps.per_image():
            yield inside(self.maps.extractor.join(pooled)[0], footprint.mask), footprint


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
        extractor, self.n_images = maps.extractor, maps.n_images
        self.device = extractor.device
        height, width = extractor.grid
        # np.empty commits no page before it is written, so a generous N costs nothing.
        shape = (self.n_images * height * width, extractor.dim)
        embeddings = _on_disk(shape) if on_disk else np.empty(shape, dtype=np.float32)
        ends, self.footprints = [0], []
        for embedding, footprint in PatchesJoined(maps).per_image():
            end = ends[-1] + len(embedding)
            embeddings[ends[-1] : end] = embedding.cpu().numpy()
            ends.append(end)
            self.footprints.append(footprint)
        self.ends = np.array(ends)
        self.embeddings = embeddings[: ends[-1]]
        self.sources = np.repeat(np.arange(self.n_images), np.diff(self.ends))

    def project(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return (N, p) projections by a (p, d) matrix, image by image as the other kinds project."""
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


class TransformedPatches:
    """Patches after a linear map; none of the results is held.

    Parameters
    ----------
    patches : PatchesInMemory
    weight : ndarray of shape (E, d), float32
        Patch p becomes ``weight @ p``.
    """

    def __init__(self, patches: PatchesInMemory, weight: np.ndarray) -> None:
        self.patches = patches
        self.weight = torch.from_numpy(weight)
        self.sources, self.n_images = patches.sources, patches.n_images

    def project(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """Project by a (p, E) matrix, both maps in one."""
        return self.patches.project(self.weight if matrix is None else matrix @ self.weight)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Fetch and map some patches."""
        return (torch.from_numpy(self.patches.take(indices)) @ self.weight.T).numpy()

    def per_image(self) -> Iterator[Embedded]:
        """Map image after image, each by the very product that maps it when it is scored."""
        weight = self.weight.to(self.patches.device)
        for patches, footprint in self.patches.per_image():
            yield patches @ weight.T, footprint


def _on_disk(shape: tuple[int, int]) -> np.ndarray:
    remedy = "raise max_memory, or fit on fewer images"
    return temporary_array(shape, "the patch features", remedy)
