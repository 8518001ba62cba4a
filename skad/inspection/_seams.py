"""Where the tiles of an image meet."""

from __future__ import annotations

from typing import Any, NamedTuple


class Seams(NamedTuple):
    """Lines along which the tiles of an image meet, in its pixels, as matplotlib draws them."""

    rows: list[float]
    columns: list[float]


def seams_of(detector: Any, shape: tuple[int, int]) -> Seams:
    """Tell where the tiles of an image meet.

    Parameters
    ----------
    detector : fitted detector
    shape : tuple of two ints
        Height and width of the image.

    Returns
    -------
    Seams

    Raises
    ------
    ValueError
        If the detector sees images as a whole.
    """
    tiling = getattr(detector, "tiling_", None)
    if tiling is None:
        raise ValueError(
            f"seams=True: this {type(detector).__name__} has no tiles, so there are no seams to show."
        )
    geometry = detector.geometry_
    own = tiling.of(geometry.canvas_of(*shape))
    lines = []
    for axis, side in enumerate(geometry.placement(*shape)):
        edges = sorted({tile.core[axis].start for tile in own} - {0})
        # Pixel 0 is drawn from -0.5 to 0.5.
        places = [(edge - side.offset) * side.length / side.resized - 0.5 for edge in edges]
        lines.append([place for place in places if 0 < place < side.length - 1])
    return Seams(*lines)
