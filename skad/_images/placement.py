"""Where one side of an image lies on a canvas, and which pixels look up which."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class NearestPixels(NamedTuple):
    """Which pixels of an image look up each pixel of the canvas, along one side."""

    edges: np.ndarray
    """(S + 1,) int: canvas pixel k is nearest to the centres of image pixels edges[k] to
    edges[k + 1], half-open: to none where the image is small."""
    containing: np.ndarray
    """(S,) int: the image pixel that contains the centre of canvas pixel k, or is nearest to it."""

    def of(self, canvas: slice) -> NearestPixels:
        """Those of some pixels of the canvas."""
        return NearestPixels(self.edges[canvas.start : canvas.stop + 1], self.containing[canvas])

    def counts(self) -> np.ndarray:
        """How many image pixels look up each canvas pixel."""
        return np.diff(self.edges)


class LookedUp(NamedTuple):
    """What some pixels of an image look up on the canvas, along one side."""

    seen: slice
    """Of these pixels, those whose centre lies within the canvas; n of them."""
    canvas: slice
    """Canvas pixels that are looked up."""
    first: np.ndarray
    """(n,) int: between which two of those each lies."""
    second: np.ndarray
    """(n,) int."""
    weight: np.ndarray
    """(n,) float32, of the second."""


class Placement(NamedTuple):
    """One side of an image on the canvas."""

    length: int  # of the image
    resized: int
    offset: int  # of the resized image's first pixel on the canvas
    canvas: int

    def content(self) -> tuple[int, int]:
        """Canvas pixels that hold the image, half-open."""
        return max(0, self.offset), min(self.canvas, self.offset + self.resized)

    def visible(self) -> slice:
        """Resized pixels that the canvas shows."""
        start, stop = self.content()
        return slice(start - self.offset, stop - self.offset)

    def padding(self) -> tuple[int, int]:
        start, stop = self.content()
        return start, self.canvas - stop

    def seen(self) -> slice:
        """Image pixels whose centre lies within the canvas, the edge included."""
        centres = (2 * np.arange(self.length) + 1) * self.resized  # in 1 / (2 * length)
        start, stop = (2 * self.length * (edge - self.offset) for edge in self.content())
        inside = np.flatnonzero((centres >= start) & (centres <= stop))
        return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)

    def sampling(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each seen pixel: its two neighbours on the canvas and the weight of the second."""
        seen = self.seen()
        centres = np.arange(seen.start, seen.stop) + 0.5
        start, stop = self.content()
        position = centres * self.resized / self.length + self.offset - 0.5
        position = np.clip(position, start, stop - 1)
        first = position.astype(np.intp)
        weight = (position - first).astype(np.float32)
        return first, np.minimum(first + 1, stop - 1), weight

    def looked_up(self, pixels: slice) -> LookedUp:
        """Tell what some pixels of the image look up."""
        seen = self.seen()
        start, stop = (min(max(at, seen.start), seen.stop) for at in (pixels.start, pixels.stop))
        first, second, weight = (
            some[start - seen.start : stop - seen.start] for some in self.sampling()
        )
        canvas = slice(first[0], second[-1] + 1) if len(first) else slice(0, 0)
        return LookedUp(
            slice(start - pixels.start, stop - pixels.start),
            canvas,
            first - canvas.start,
            second - canvas.start,
            weight,
        )

    def nearest(self) -> NearestPixels:
        """Look up pixel centres without interpolation, in integers."""
        seen = self.seen()
        from_first = np.arange(self.canvas + 1) - self.offset
        edges = -((self.resized - 2 * self.length * from_first) // (2 * self.resized))
        edges = np.clip(edges, seen.start, seen.stop)
        edges[self.content()[1] :] = seen.stop  # a centre on the far edge is seen as well
        containing = (2 * from_first[:-1] + 1) * self.length // (2 * self.resized)
        return NearestPixels(edges, np.clip(containing, 0, self.length - 1))

    def cells(self, grid: int) -> tuple[int, int]:
        """Cells of a grid over the canvas whose centre lies on the image, half-open."""
        centres = (2 * np.arange(grid) + 1) * self.canvas  # in 1 / (2 * grid)
        start, stop = self.content()
        inside = np.flatnonzero((centres >= 2 * grid * start) & (centres <= 2 * grid * stop))
        if inside.size:
            return int(inside[0]), int(inside[-1]) + 1
        # A sliver of an image between two centres: the cell that holds its middle.
        middle = (start + stop) * grid // (2 * self.canvas)
        return middle, middle + 1
