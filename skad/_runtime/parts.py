"""Runs a file whose graph ends at grids of patch scores.

That is so where images have tiles of their own number, or members of an ensemble see different canvases:
no graph of fixed shapes holds what comes after. Maps and scores are made of the grids by the code of the
detectors themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from skad._common.forks import LOADING
from skad._images import Frame, ImageBatch, ImageSource, RegionOfInterest
from skad._runtime.content import Content, Part
from skad._runtime.graphs import Graph, as_inputs, check_finite, computed, of_pixels, one_by_one
from skad._scoring.fusing import Fusing, Scored, View
from skad._scoring.heatmaps import Heatmap
from skad._scoring.large_maps import RenderedMap, Window, held_if_small
from skad._scoring.maps import fill_padding, on_grid, without_padding
from skad._scoring.results import MappedImage


class GraphInParts(Graph):
    """A graph that gives grids of patch scores, network by network.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    content : Content
        Of the same file.
    """

    def __init__(self, session: Any, content: Content) -> None:
        self._content = content
        run = _Run(session)
        self._networks = [
            _KINDS[part.kind](run, part, number, content.roi)
            for number, part in enumerate(content.parts)
        ]
        self._fusing: Fusing | None = None
        if content.parts[0].patch is not None:
            views = [network.view() for network in self._networks]
            self._fusing = Fusing(views, content.shares_grid, content.level, content.image_score)

    def scores(self, images: ImageSource) -> Iterator[float]:
        """Yield the anomaly score of image after image."""
        if self._fusing is None:
            return (scored.images[0] for scored in self._scored(images))
        if self._fusing.level == "image":
            return (self._fusing.mean_score(scored.images) for scored in self._scored(images))
        return (found.score for found in self.maps(images))

    def maps(self, images: ImageSource) -> Iterator[MappedImage]:
        """Yield image after image with its score and map."""
        mapped = self._networks[0].mapped if self._fusing is None else self._fusing.mapped
        return map(mapped, self._scored(images))

    def _scored(self, images: ImageSource) -> Iterator[Scored]:
        """Score image after image by all networks."""
        needs_scores = self._fusing is None or self._fusing.level == "image"
        streams = [
            one_by_one(images, network.part.geometry, self._content.roi)
            for network in self._networks
        ]
        for batches in zip(*streams, strict=True):
            name = images.describe(batches[0].start)
            found = [
                network.scored(batch, name, needs_score=needs_scores)
                for network, batch in zip(self._networks, batches, strict=True)
            ]
            scores, grids = map(list, zip(*found, strict=True))
            yield Scored(batches[0].frames[0], scores, grids)


class _Run:
    """Runs what some outputs need of a graph, and nothing else of it.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    """

    def __init__(self, session: Any) -> None:
        with LOADING:
            from onnxruntime import RunOptions
        self._session, self._options = session, RunOptions()
        self._options.only_execute_path_to_fetches = True
        self.outputs = [one.name for one in session.get_outputs()]
        # A graph asks for all that it takes: what is not needed is given without images.
        self._nothing = {
            one.name: np.empty(
                [side if isinstance(side, int) else 0 for side in one.shape], _TYPES[one.type]
            )
            for one in session.get_inputs()
        }

    def __call__(
        self, outputs: list[str], inputs: dict[str, np.ndarray], name: str
    ) -> list[np.ndarray]:
        given = {**self._nothing, **inputs}
        found = computed(self._session, outputs, given, name, self._options)
        for one in found:
            check_finite(one, name)
        return found


_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
}


class _Network:
    """One of the networks of a graph: it scores whole canvases.

    Parameters
    ----------
    run : _Run
    part : Part
    number : int
        In the graph.
    roi : RegionOfInterest or None
    """

    def __init__(self, run: _Run, part: Part, number: int, roi: RegionOfInterest | None) -> None:
        self.part, self._run, self._suffix = part, run, f"_{number}"
        self._heatmap = Heatmap(self._size_of, part.smoothing, part.align_corners)
        takes_content = part.geometry.mode == "pad" and roi is None
        self._padding = part.geometry if takes_content else None

    def scored(
        self, batch: ImageBatch, name: str, *, needs_score: bool
    ) -> tuple[float, np.ndarray]:
        """Score an image, NaN unless it is needed, and its patches: (h, w), NaN where none counts."""
        grid, top = self._grid(batch, name)
        if not needs_score:
            return np.nan, grid
        if self.part.image_score == "patch":
            return self._by_patch(batch, top, name), grid
        pixels = self._pixels(batch.frames[0])
        return self._heatmap.summary(grid, pixels, self.part.image_score), grid

    def _grid(self, batch: ImageBatch, name: str) -> tuple[np.ndarray, Any]:
        """Score the patches of an image; also return what its most anomalous one is scored by again."""
        (grids,) = self._run(["grid" + self._suffix], self._inputs(batch), name)
        grid, frame = grids[0].astype(np.float64), batch.frames[0]
        if self.part.grid == self.part.geometry.canvas:
            return without_padding(grid, self._pixels(frame)), None
        return np.where(self._mask(frame), grid, np.nan), None

    def _by_patch(self, batch: ImageBatch, top: Any, name: str) -> float:
        (scores,) = self._run(["score" + self._suffix], self._inputs(batch), name)
        return float(scores[0])

    def mapped(self, scored: Scored) -> MappedImage:
        """Render the map of an image."""
        rendered = RenderedMap(self._heatmap, scored.grids[0], self._pixels(scored.frame))
        canvas = held_if_small(rendered)
        return MappedImage.of(canvas, self.part.geometry, scored.frame, scored.images[0])

    def view(self) -> View:
        """Return what fusing needs."""
        assert self.part.patch is not None
        assert self.part.image is not None
        return View(self.part.geometry, self._window, self.part.patch, self.part.image)

    def _window(self, grid: np.ndarray, *, smooth: bool = True) -> Window:
        heatmap = self._heatmap if smooth else self._heatmap._replace(sigma=0.0)
        return partial(heatmap.window, fill_padding(grid))

    def _inputs(self, batch: ImageBatch) -> dict[str, np.ndarray]:
        return as_inputs(batch, self._padding, self._suffix)

    def _mask(self, frame: Frame) -> np.ndarray:
        (footprint,) = self.part.geometry.footprints([frame], self.part.grid)
        return footprint.mask

    def _pixels(self, frame: Frame) -> Any:
        return self.part.geometry.pixels(*frame)

    def _size_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if self.part.geometry.tiling is None:
            return self.part.geometry.canvas
        height, width = self._cell
        return shape[0] * height, shape[1] * width

    @property
    def _cell(self) -> tuple[int, int]:
        """Height and width in pixels of what is scored of a tile."""
        (height, width), (rows, columns) = self.part.geometry.canvas, self.part.grid
        return height // rows, width // columns


class _OfPatches(_Network):
    """Embeds the patches of tile after tile, and scores those of their cores."""

    def _grid(self, batch: ImageBatch, name: str) -> tuple[np.ndarray, Any]:
        canvas, mask = batch.pixels[0], self._mask(batch.frames[0])
        assert self.part.geometry.tiling is not None
        tiling = self.part.geometry.tiling.of(canvas.shape)
        grid, highest, top = np.full(mask.shape, np.nan), -np.inf, np.empty(0)
        for number, tile in enumerate(tiling):
            core = tile.core_cells(*self._cell)
            if not mask[core].any():
                continue
            pixels = of_pixels(tiling.take([canvas], [number]), self._suffix)
            (embedded,) = self._run(["embedded" + self._suffix], pixels, name)
            rows, columns = tile.inner_cells(*self._cell)
            # (1, d, h, w): of the core, those that count, (n, d).
            patches = embedded[0][:, rows, columns][:, mask[core]].T
            (scores,) = self._run(["distances" + self._suffix], self._patches(patches), name)
            grid[core] = on_grid(scores.astype(np.float64), mask[core])
            if scores.max() > highest:
                highest, top = scores.max(), patches[scores.argmax()][None]
        return grid, top

    def _by_patch(self, batch: ImageBatch, top: Any, name: str) -> float:
        (scores,) = self._run(["weighted" + self._suffix], self._patches(top), name)
        return float(scores[0])

    def _patches(self, patches: np.ndarray) -> dict[str, np.ndarray]:
        return {"patches" + self._suffix: np.ascontiguousarray(patches)}


class _OfLayers(_Network):
    """Scores tile after tile by several layers, which meet on the grid of the first."""

    def _grid(self, batch: ImageBatch, name: str) -> tuple[np.ndarray, Any]:
        canvas = batch.pixels[0]
        assert self.part.geometry.tiling is not None
        tiling = self.part.geometry.tiling.of(canvas.shape)
        start = f"layer{self._suffix}_"
        outputs = [output for output in self._run.outputs if output.startswith(start)]
        found = [
            self._run(outputs, of_pixels(tiling.take([canvas], [number]), self._suffix), name)
            for number in range(len(tiling))
        ]
        layers = []
        for tiles in map(np.concatenate, zip(*found, strict=True)):
            layer = np.empty((1, *tiling.grid(*tiles.shape[1:])))
            tiling.paste(tiles, layer)
            layers.append(layer[0])
        meet = Heatmap(layers[0].shape, 0.0, align_corners=True)
        grid = sum(map(meet.render, layers[1:]), start=layers[0])
        return np.where(self._mask(batch.frames[0]), grid, np.nan), None


_KINDS: dict[str, type[_Network]] = {"whole": _Network, "patches": _OfPatches, "layers": _OfLayers}
