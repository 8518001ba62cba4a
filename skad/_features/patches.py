"""All patches of the training images: held, pooled, or embedded whenever they are needed.

Every kind answers the same three questions (project, take, image by image) with the same numbers:
every image is embedded and projected in the same fixed shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch

from skad._common.memory import temporary_array
from skad._features.extractor import PatchExtractor, check_features, inside
from skad._features.store import StoredExtractor
from skad._images import Footprint

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


def embed_images(
    extractor: PatchExtractor | StoredExtractor, batches: Batches, advance: Advance | None = None
) -> Iterator[Embedded]:
    """Embed image after image.

    Parameters
    ----------
    extractor : PatchExtractor
    batches : callable
        Opens the stream of batches.
    advance : callable or None
        Told the number of images done.

    Yields
    ------
    torch.Tensor of shape (n_patches of the image, d), float32
        Patches that lie in padding are left out.
    Footprint
        Where the others lie.
    """
    for pooled, footprints in _pooled_of_batches(extractor, batches, advance):
        for one, footprint in zip(pooled.split(1), footprints, strict=True):
            yield inside(extractor.join(one)[0], footprint.mask), footprint


def _pooled_of_batches(
    extractor: PatchExtractor | StoredExtractor, batches: Batches, advance: Advance | None
) -> Iterator[tuple[torch.Tensor, list[Footprint]]]:
    done = 0
    for pixels, footprints in batches():
        pooled = extractor.pool(pixels)
        check_features(pooled, done)
        yield pooled, footprints
        done += len(footprints)
        if advance is not None:
            advance(done)


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


class PatchesStreamed:
    """Embeddings that are never all in memory: each question runs the backbone over the images.

    Parameters
    ----------
    extractor : PatchExtractor
    batches : callable
    n_images : int
    advance : callable or None
        Told of the images embedded by `project`; the later passes belong to other stages.
    """

    def __init__(
        self,
        extractor: PatchExtractor | StoredExtractor,
        batches: Batches,
        n_images: int,
        advance: Advance | None,
    ) -> None:
        self.extractor = extractor
        self.batches = batches
        self.n_images = n_images
        self.advance = advance
        self.sources = np.empty(0, dtype=np.int64)

    def project(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """Embed all images and keep only their projections."""
        device = self.extractor.device
        to_lower = None if matrix is None else matrix.to(device).T
        height, width = self.extractor.grid
        dim = self.extractor.dim if to_lower is None else to_lower.shape[1]
        projected = torch.empty((self.n_images * height * width, dim), device=device)
        ends = [0]
        for embedding, _ in self.per_image(self.advance):
            end = ends[-1] + len(embedding)
            projected[ends[-1] : end] = embedding if to_lower is None else embedding @ to_lower
            ends.append(end)
        self.sources = np.repeat(np.arange(self.n_images), np.diff(ends))
        return projected[: ends[-1]]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Embed all images again and keep only the patches asked for."""
        wanted = np.argsort(indices, kind="stable")
        taken = np.empty((len(indices), self.extractor.dim), dtype=np.float32)
        start = 0
        for patches, _ in self.per_image():
            first, last = np.searchsorted(indices[wanted], [start, start + len(patches)])
            here = wanted[first:last]
            taken[here] = patches[torch.from_numpy(indices[here] - start)].cpu().numpy()
            start += len(patches)
        return taken

    def per_image(self, advance: Advance | None = None) -> Iterator[Embedded]:
        """Embed image after image."""
        return embed_images(self.extractor, self.batches, advance)


class PatchesPooled(PatchesStreamed):
    """The pooled feature maps of all images, of which patches are joined whenever they are needed.

    Half the memory of the patches themselves; joining costs next to nothing.

    Parameters
    ----------
    extractor : PatchExtractor
    batches : callable
    n_images : int
    advance : callable or None
    """

    def __init__(
        self,
        extractor: PatchExtractor | StoredExtractor,
        batches: Batches,
        n_images: int,
        advance: Advance | None,
    ) -> None:
        super().__init__(extractor, batches, n_images, None)
        self._pooled = torch.empty((n_images, extractor.n_values))
        self._footprints: list[Footprint] = []
        for pooled, footprints in _pooled_of_batches(extractor, batches, advance):
            self._pooled[len(self._footprints) : len(self._footprints) + len(footprints)] = pooled
            self._footprints += footprints

    def per_image(self, advance: Advance | None = None) -> Iterator[Embedded]:
        """Join the patches of image after image."""
        for pooled, footprint in zip(self._pooled, self._footprints, strict=True):
            patches = self.extractor.join(pooled[None].to(self.extractor.device))[0]
            yield inside(patches, footprint.mask), footprint


class PatchesInMemory:
    """Every embedding, written once into one preallocated array, for what trains on them.

    Parameters
    ----------
    extractor : PatchExtractor
    batches : callable
    n_images : int
    advance : callable or None
    on_disk : bool, default=False
        Keep the array in a temporary file, which is gone with it.

    Raises
    ------
    OSError
        If the disk of the temporary file is too small.
    """

    def __init__(
        self,
        extractor: PatchExtractor | StoredExtractor,
        batches: Batches,
        n_images: int,
        advance: Advance | None,
        on_disk: bool = False,
    ) -> None:
        self.device, self.n_images = extractor.device, n_images
        height, width = extractor.grid
        # np.empty commits no page before it is written, so a generous N costs nothing.
        shape = (n_images * height * width, extractor.dim)
        embeddings = _on_disk(shape) if on_disk else np.empty(shape, dtype=np.float32)
        ends, self.footprints = [0], []
        for embedding, footprint in embed_images(extractor, batches, advance):
            end = ends[-1] + len(embedding)
            embeddings[ends[-1] : end] = embedding.cpu().numpy()
            ends.append(end)
            self.footprints.append(footprint)
        self.ends = np.array(ends)
        self.embeddings = embeddings[: ends[-1]]
        self.sources = np.repeat(np.arange(n_images), np.diff(self.ends))

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
