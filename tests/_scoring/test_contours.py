"""Contours of masks."""

import numpy as np
import pytest

from skad._scoring.contours import trace


def area(polygon):
    """By the shoelace formula; negative where the polygon runs the other way."""
    rows, columns = polygon.T
    return (columns * np.roll(rows, -1) - rows * np.roll(columns, -1)).sum() / 2


def test_a_rectangle_has_four_corners():
    cells = np.zeros((5, 6), bool)
    cells[1:4, 2:6] = True
    (polygon,) = trace(cells)
    assert polygon.tolist() == [[1, 2], [1, 6], [4, 6], [4, 2]]


def test_a_hole_runs_the_other_way():
    cells = np.ones((4, 4), bool)
    cells[1:3, 1:3] = False
    outer, hole = trace(cells)
    assert area(outer) == 16
    assert area(hole) == -4


def test_cells_that_touch_at_a_corner_have_one_outline():
    (polygon,) = trace(np.eye(3, dtype=bool))
    assert area(polygon) == 3


@pytest.mark.parametrize("seed", range(5))
def test_polygons_enclose_the_cells(seed):
    cells = np.random.default_rng(seed).random((7, 9)) < 0.5
    polygons = trace(cells)
    assert sum(map(area, polygons)) == cells.sum()
    # A ray to the left of a cell's centre crosses the boundary an odd number of times.
    crossings = np.zeros((7, 9), int)
    for polygon in polygons:
        for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if c0 == c1:
                crossings[min(r0, r1) : max(r0, r1), c0:] += 1
    np.testing.assert_array_equal(crossings % 2 == 1, cells)
