"""The contour of a mask, as polygons along the edges of its cells."""

from __future__ import annotations

import numpy as np

_Vertex = tuple[int, int]


def trace(cells: np.ndarray) -> list[np.ndarray]:
    """Trace the boundary between True and False cells.

    Parameters
    ----------
    cells : ndarray of shape (h, w), bool
        Outside of it all is False.

    Returns
    -------
    list of ndarray of shape (k, 2), int
        Closed polygons of cell corners (row, column), without the first corner repeated at the end;
        only corners at which the boundary turns. Cells are to the right of the boundary: the outer
        polygon runs clockwise, those around holes counter-clockwise. Cells that touch at a corner
        belong together.
    """
    following = _steps(cells)
    polygons = []
    while following:
        start = min(following)
        polygons.append(_corners(_walk(start, following)))
    return polygons


def _steps(cells: np.ndarray) -> dict[_Vertex, list[_Vertex]]:
    """From each corner to the next ones along the boundary, True cells to the right."""
    padded = np.pad(cells, 1)
    inside = padded[1:-1, 1:-1]
    # Neighbour of a cell, and the ends of the edge between both, relative to the cell.
    sides = (
        (padded[:-2, 1:-1], (0, 0), (0, 1)),
        (padded[1:-1, 2:], (0, 1), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (1, 0)),
        (padded[1:-1, :-2], (1, 0), (0, 0)),
    )
    following: dict[_Vertex, list[_Vertex]] = {}
    for neighbour, (r0, c0), (r1, c1) in sides:
        for row, column in np.argwhere(inside & ~neighbour).tolist():
            following.setdefault((row + r0, column + c0), []).append((row + r1, column + c1))
    return following


def _walk(start: _Vertex, following: dict[_Vertex, list[_Vertex]]) -> list[_Vertex]:
    """Follow one polygon from a corner back to it, and take its steps out of `following`."""
    path, at = [start], following[start][0]
    _take(following, start, at)
    while at != start:
        before = path[-1]
        # Left turn: where two cells touch at this corner, it leads on to the other one.
        left = (at[0] - (at[1] - before[1]), at[1] + (at[0] - before[0]))
        onward = following[at]
        step = left if left in onward else onward[0]
        _take(following, at, step)
        path.append(at)
        at = step
    return path


def _take(following: dict[_Vertex, list[_Vertex]], start: _Vertex, end: _Vertex) -> None:
    following[start].remove(end)
    if not following[start]:
        del following[start]


def _corners(path: list[_Vertex]) -> np.ndarray:
    """Leave out corners of cells at which the boundary runs straight on."""
    points = np.array(path)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[(before != after).any(axis=1)]
