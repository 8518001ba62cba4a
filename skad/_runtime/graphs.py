"""Runs the graph of an exported file on image after image: none depends on how many come together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from skad._common.text import shortened
from skad._images import ImageBatch, ImageSource, iter_batches
from skad._runtime.content import Content
from skad._scoring.results import MappedImage


class Graph(ABC):
    """What a file makes of images."""

    @abstractmethod
    def scores(self, images: ImageSource) -> Iterator[float]:
        """Yield the anomaly score of image after image."""

    @abstractmethod
    def maps(self, images: ImageSource) -> Iterator[MappedImage]:
        """Yield image after image with its score and map."""


class WholeGraph(Graph):
    """A graph that gives scores and maps of canvases.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    content : Content
        Of the same file.
    """

    def __init__(self, session: Any, content: Content) -> None:
        self._session, self._content = session, content

    def scores(self, images: ImageSource) -> Iterator[float]:
        """Yield the anomaly score of image after image."""
        for batch in self._batches(images):
            (score,) = self._run(["score"], self._inputs(batch), images.describe(batch.start))
            yield -float(score[0])

    def maps(self, images: ImageSource) -> Iterator[MappedImage]:
        """Yield image after image with its score and map."""
        geometry = self._content.geometry
        for batch in self._batches(images):
            name = images.describe(batch.start)
            score, heatmap = self._run(["score", "map"], self._inputs(batch), name)
            canvas = heatmap[0].astype(np.float64)
            yield MappedImage.of(canvas, geometry, batch.frames[0], -float(score[0]))

    def inputs(self, images: ImageSource) -> Iterator[dict[str, np.ndarray]]:
        """Yield what the graph takes of image after image."""
        return map(self._inputs, self._batches(images))

    def _inputs(self, batch: ImageBatch) -> dict[str, np.ndarray]:
        content = self._content
        takes_content = content.geometry.mode == "pad" and content.roi is None
        return as_inputs(batch, content.geometry if takes_content else None)

    def _batches(self, images: ImageSource) -> Iterator[ImageBatch]:
        return one_by_one(images, self._content.geometry, self._content.roi)

    def _run(
        self, outputs: list[str], inputs: dict[str, np.ndarray], name: str
    ) -> list[np.ndarray]:
        found = computed(self._session, outputs, inputs, name)
        check_finite(found[0], name)
        return found


def one_by_one(images: ImageSource, geometry: Any, roi: Any) -> Iterator[ImageBatch]:
    """Bring image after image to the canvas."""
    return iter_batches(images, geometry, 1, roi=roi, windowed=geometry.tiling is not None)


def as_inputs(batch: ImageBatch, padding: Any = None, suffix: str = "") -> dict[str, np.ndarray]:
    """Name what a graph takes of canvases; of a geometry that pads, also where images lie on them."""
    inputs = of_pixels(np.asarray(batch.pixels), suffix)
    if padding is not None:
        places = [padding.content(*shape) for shape in batch.shapes]
        inputs["content" + suffix] = np.array(places, dtype=np.int64)
    return inputs


def of_pixels(pixels: np.ndarray, suffix: str = "") -> dict[str, np.ndarray]:
    """Name pixels (B, H, W, 3): those of more than 8 bits go beside a black canvas."""
    if pixels.dtype == np.uint8:
        return {"canvas" + suffix: pixels}
    black = np.zeros(pixels.shape, np.uint8)
    return {"canvas" + suffix: black, "fractions" + suffix: pixels}


def computed(
    session: Any,
    outputs: list[str],
    inputs: dict[str, np.ndarray],
    name: str,
    options: Any = None,
) -> list[np.ndarray]:
    """Run a graph on an image; an error names it."""
    try:
        return session.run(outputs, inputs, options)
    except Exception as error:  # its errors have no common class of their own
        raise RuntimeError(
            f"{name}: ONNX Runtime cannot run the graph on it: "
            f"{shortened(' '.join(str(error).split()))}"
        ) from error


def check_finite(scores: np.ndarray, name: str) -> None:
    """Refuse scores that are no numbers."""
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{name}: its score is not finite. Leave it out, or export the detector again."
        )
