"""From the patches of an image to its scores and its map, by the distances to a memory bank.

On a CPU image by image: bounds first, exact scores where they matter. On a GPU batch by batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch

from skad._bank import (
    Asking,
    HighestOfEach,
    MemoryBank,
    PatchScores,
    Question,
    Score,
    answered,
    answered_together,
    mean_of_nearest,
)
from skad._base import BaseImageDetector, BatchScores, TrainingScores
from skad._callbacks import Advance
from skad._features import (
    PatchExtractor,
    StoredExtractor,
    TrainingPatches,
    check_features,
    inside,
    largest_of,
)
from skad._images import ImageBatch, ImageSource
from skad._scoring.heatmaps import fill_padding, render, weights_at
from skad._torch.devices import images_at_once

# Training images are searched together, to read the bank less often: as many as have so many numbers,
# or so many times those of the bank, since a small bank costs little to read.
_TOGETHER, _TIMES_THE_BANK = 1 << 23, 8
# Length of a rounding error, as a share of a vector's: what features differ by between processors. In
# float32 1e-5 between kernels of CPUs and 1e-3 to a GPU that computes in TF32; in bfloat16 5e-3.
_ROUNDING = {"float32": 1e-3, "bfloat16": 1e-2}
# Vectors of the bank that tell how long vectors are.
_MEASURED = 1024
# Of a map's highest point, the patches that bring so much of its height are computed before the others.
_MOST = 0.8


class ScoredByBank(BaseImageDetector):
    """Detectors whose scores are distances of patches to a memory bank.

    How the bank comes about is left to them. They have the parameters `n_neighbors`, `distance`, `b` and
    `smoothing`.
    """

    bank_: MemoryBank
    n_neighbors: int
    distance: str
    b: int | None
    smoothing: float

    @abstractmethod
    def _extractor(self) -> PatchExtractor | StoredExtractor:
        """Return what embeds the patches of images."""

    def _grid_shape(self) -> tuple[int, int]:
        return self._extractor().grid

    # ------------------------------------------------------------ calibration

    def _score_training(
        self,
        patches: TrainingPatches,
        images: ImageSource,
        advance: Advance,
        twins: frozenset[int],
        first: int = 0,
    ) -> TrainingScores:
        """Score the images that the bank has learned last; `first`: how many it knew before.

        `twins` are those that have an identical one among them: a bank without one of the two would
        know the other, so their own vectors stay.
        """
        n_images = len(images)
        leave_out = first + n_images > 1
        if leave_out:
            self._check_leave_one_out({first + i for i in twins})
        held_out, in_sample, peaks = np.empty((3, n_images))
        grids: dict[int, np.ndarray] = {}
        askings = (
            self._score_good(rows, mask, first + i if leave_out and i not in twins else None)
            for i, (rows, mask) in enumerate(patches.per_image())
        )
        height, width = self._grid_shape()
        n_numbers = min(_TOGETHER, _TIMES_THE_BANK * self.bank_.vectors.size)
        at_once = max(1, n_numbers // (height * width * self.bank_.vectors.shape[1]))
        for done, (i, found) in enumerate(answered_together(askings, at_once), 1):
            held_out[i], in_sample[i], peaks[i], grids[i] = found
            advance(done)
        return TrainingScores(
            out_of_sample=held_out if leave_out else None,
            in_sample=None if self.contamination == "auto" else in_sample,
            peaks=peaks,
            grids=np.stack([grids[i] for i in range(n_images)]) if self._in_ensemble else None,
        )

    def _score_good(
        self, rows: torch.Tensor, mask: np.ndarray, source: int | None
    ) -> Asking[tuple[float, float, float, np.ndarray]]:
        """Score a training image without its own vectors, and with them; peak of its map, and the map.

        What nobody will read is NaN, or an empty array.
        """
        scores = self._patch_scores(rows, source)
        held_out = yield from self._image_score(rows, scores, source)
        peak = yield from self._map_peak(scores, mask)
        grid, in_sample = np.empty(0), np.nan
        if self._in_ensemble:
            grid = _on_grid((yield from scores.all()), mask)
        if self.contamination != "auto":
            # By the very searches of score_samples: the score that a threshold will meet, bit by bit.
            in_sample = answered(self._image_score(rows, self._patch_scores(rows)))
        return held_out, in_sample, peak, grid

    def _map_peak(self, scores: PatchScores, mask: np.ndarray) -> Asking[float]:
        """Highest value of an image's heat map; computes only the patches that it hangs on.

        A map of upper bounds lies above the map. Where its highest point hangs on computed patches
        alone, this is the highest point of both.
        """
        numbers = _on_grid(np.arange(len(scores.values), dtype=np.float64), mask)
        shown = fill_padding(numbers).astype(np.int64)
        while True:
            canvas = self._render(_on_grid(scores.values, mask))
            row, column = np.unravel_index(canvas.argmax(), canvas.shape)
            weights = weights_at(
                (int(row), int(column)), shown.shape, len(canvas), float(self.smoothing)
            )
            by_weight = np.argsort(-weights, axis=None)[: np.count_nonzero(weights)]
            total = np.cumsum(weights.ravel()[by_weight])
            most = by_weight[: np.searchsorted(total, _MOST) + 1]
            for cells in (most, by_weight):
                asked = yield from scores.ensure(np.unique(shown.ravel()[cells]))
                if asked:
                    break
            else:
                return float(canvas[row, column])

    def _check_leave_one_out(self, twins: set[int]) -> None:
        """Every image must leave enough of the bank to others to be scored without its own."""
        needed = max(self.n_neighbors, self.b or 1)
        own = np.bincount(self.bank_.sources)
        own[[i for i in twins if i < len(own)]] = 0
        if len(self.bank_.sources) - own.max() < needed:
            raise ValueError(
                f"image {own.argmax()} alone holds {own.max()} of the {len(self.bank_.sources)} "
                f"vectors of the bank; without them fewer than {needed} remain to score it by. "
                "Raise coreset_size or fit on more images."
            )

    def _rounding_of(self, anomaly: float) -> float:
        # A rounding error has many dimensions and points nowhere in particular: it adds to a distance as
        # the other side of a right angle does. Alone it is all of the distance.
        length = float(np.median(np.linalg.norm(self.bank_.vectors[:_MEASURED], axis=1)))
        error = _ROUNDING[self.precision] * length
        if self.distance == "squared":
            return error**2
        return float(np.hypot(anomaly, error) - anomaly)

    # ---------------------------------------------------------------- scoring

    def _begin_scores(self, batch: ImageBatch, maps: bool) -> Callable[[], BatchScores]:
        extractor = self._extractor()
        if maps or not self.bank_.offers_bounds_together(extractor.device):
            return super()._begin_scores(batch, maps)
        self._check_weights(extractor.digest, extractor.identity)
        return self._score_together(
            extractor.cells(batch.pixels), self._patch_masks(batch), batch.start
        )

    def _score_together(
        self, cells: torch.Tensor, masks: list[np.ndarray], start: int
    ) -> Callable[[], BatchScores]:
        """Score the images of a batch as `_image_score` does one, each step for all of them."""
        largest = largest_of(cells)
        rows = self._mapping(cells.device)(self._extractor().join(cells))
        bounds = self._mean_on_device(self.bank_.bounds_together(rows, self.n_neighbors))
        if not all(mask.all() for mask in masks):
            outside = torch.from_numpy(~np.stack(masks)).flatten(1)
            bounds.masked_fill_(outside.to(bounds.device), -torch.inf)
        highest = HighestOfEach(rows, bounds, self._score_on_device)

        def finish() -> BatchScores:
            check_features(largest, start)
            tops, scores = highest.find(self._score_rows)
            if self.b is None:
                return BatchScores(scores, None)
            chosen = rows[torch.arange(len(rows)), torch.from_numpy(tops)]
            return BatchScores(self._score_tops(chosen, None), None)

        return finish

    def _score_on_device(self, rows: torch.Tensor) -> torch.Tensor:
        """Score (n, m, d) patches as `_score_rows` does, without waiting for the device."""
        return self._mean_on_device(self.bank_.distances_together(rows, self.n_neighbors))

    def _mean_on_device(self, distances: torch.Tensor) -> torch.Tensor:
        return (distances.square() if self.distance == "squared" else distances).mean(dim=-1)

    def _score_batch(self, batch: ImageBatch, maps: bool) -> BatchScores:
        extractor = self._extractor()
        self._check_weights(extractor.digest, extractor.identity)
        n_images = len(batch.shapes)
        image, grids = np.empty(n_images), [np.empty(0)] * n_images
        all_cells, masks = extractor.cells(batch.pixels), self._patch_masks(batch)
        check_features(largest_of(all_cells), batch.start)
        askings = (
            self._score_image(cells, inside(vectors, mask), mask, maps)
            for cells, vectors, mask in zip(all_cells, self._vectors(all_cells), masks, strict=True)
        )
        at_once = images_at_once(extractor.device, n_images)
        for i, found in answered_together(askings, at_once):
            image[i], grids[i] = found
        return BatchScores(image, np.stack(grids) if maps else None)

    def _score_image(
        self, cells: torch.Tensor, rows: torch.Tensor, mask: np.ndarray, maps: bool
    ) -> Asking[tuple[float, np.ndarray]]:
        """Score an image and, if `maps`, all of its patches."""
        if not maps:
            return (yield from self._image_score(rows, self._patch_scores(rows))), np.empty(0)
        scores = PatchScores(rows, None, self._map_score(cells, mask))
        grid = _on_grid((yield from scores.all()), mask)
        return (yield from self._image_score(rows, scores)), grid

    def _embed(self, pixels: np.ndarray) -> torch.Tensor:
        """(B, S, S, 3) canvases -> (B, h w, d) vectors as the bank holds them."""
        return torch.stack(list(self._vectors(self._extractor().cells(pixels))))

    def _vectors(self, cells: torch.Tensor) -> Iterator[torch.Tensor]:
        """Cells of B images -> image by image (h w, d) vectors as the bank holds them."""
        # Image by image: a product of another shape may round otherwise.
        return map(self._mapping(cells.device), self._extractor().join_each(cells))

    def _mapping(self, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        """From embedded patches to vectors as the bank holds them."""
        return lambda patches: patches

    def _patch_scores(self, rows: torch.Tensor, exclude_source: int | None = None) -> PatchScores:
        """Scores of the patches of one image: bounds first, exact scores where they matter."""

        def bound(queries: torch.Tensor, coarse: bool = False) -> np.ndarray:
            near = self.bank_.bounds(
                queries, self.n_neighbors, exclude_source=exclude_source, coarse=coarse
            )
            return self._mean_distance(near)

        if not self.bank_.offers_bounds(rows.device):
            return PatchScores(rows, exclude_source, self._score_rows)
        return PatchScores(
            rows,
            exclude_source,
            self._score_rows,
            bound(rows, coarse=True),
            lambda some: bound(rows[torch.from_numpy(some)]),
        )

    def _score_rows(
        self, rows: torch.Tensor, exclude_source: int | np.ndarray | None
    ) -> np.ndarray:
        """Score patches exactly; never above their mean distance to any n_neighbors vectors."""
        distances, _ = self.bank_.search(rows, self.n_neighbors, exclude_source=exclude_source)
        return self._mean_distance(distances)

    def _map_score(self, cells: torch.Tensor, mask: np.ndarray) -> Score:
        """How to score all patches of an image: as `_score_rows`, at lower cost if there is a way."""
        layers = self._extractor().layers(cells, mask)
        if layers is None:
            return self._score_rows

        def score(rows: torch.Tensor, exclude_source: int | np.ndarray | None) -> np.ndarray:
            distances, _ = self.bank_.search(
                rows, self.n_neighbors, exclude_source=exclude_source, products=layers
            )
            return self._mean_distance(distances)

        return score

    def _mean_distance(self, distances: np.ndarray) -> np.ndarray:
        return mean_of_nearest(distances, squared=self.distance == "squared")

    def _image_score(
        self, rows: torch.Tensor, scores: PatchScores, exclude_source: int | None = None
    ) -> Asking[float]:
        """Score an image by its highest patch (Eq. 6), weighted by its neighbourhood (Eq. 7).

        The patch is searched for once more by itself, so that its score does not depend on which others
        were computed beside it.
        """
        top = yield from scores.highest()
        (score,) = yield Question(rows[top : top + 1], exclude_source, self._score_tops)
        return float(score)

    def _score_tops(
        self, rows: torch.Tensor, exclude_source: int | np.ndarray | None
    ) -> np.ndarray:
        """Score images by their highest patches."""
        distances, ids = self.bank_.search(rows, self.n_neighbors, exclude_source=exclude_source)
        scores = self._mean_distance(distances)
        if self.b is None:
            return scores
        return scores * self.bank_.reweight(
            rows, distances, ids, self.b, exclude_source=exclude_source
        )

    def _patch_masks(self, batch: ImageBatch) -> list[np.ndarray]:
        """(h, w) bool of each image: the patches that do not lie in padding."""
        grid = self._grid_shape()
        of_shape = {}
        for height, width in set(batch.shapes):
            r0, r1, c0, c1 = self.geometry_.valid_cells(height, width, *grid)
            of_shape[height, width] = mask = np.zeros(grid, dtype=bool)
            mask[r0:r1, c0:c1] = True
        return [of_shape[shape] for shape in batch.shapes]

    def _render(self, grid: np.ndarray) -> np.ndarray:
        return render(grid, self.geometry_.image_size, self.smoothing)


def _on_grid(patches: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lay patch scores out on the (h, w) grid, NaN in padding."""
    grid = np.full(mask.shape, np.nan)
    grid[mask] = patches
    return grid
