"""Grids of tiles, put together: what a network says of a tile, and nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skad._images import Tiling
from skad._scoring.tiled import put_together

TILING = Tiling(32, 4, 4, (8, 8), 8)


def blurred(pixels):
    """Two layers of a network that pads with zeros: means over neighbours, at strides 4 and 8."""
    grey = torch.from_numpy(pixels).float().mean(dim=3)[:, None]
    fine = F.avg_pool2d(F.avg_pool2d(grey, 4), 3, 1, 1)
    return fine[:, 0], F.avg_pool2d(fine, 2)[:, 0]


@pytest.fixture
def canvas():
    return np.random.default_rng(0).integers(0, 256, (*TILING.canvas, 3), dtype=np.uint8)


def test_away_from_rims_it_is_what_the_whole_gives(canvas):
    """Three pixels of context are all that these layers need, and a margin has eight."""
    together = put_together(blurred, TILING, canvas)
    for grid, whole in zip(together, blurred(canvas[None]), strict=True):
        torch.testing.assert_close(grid, whole)


def test_the_same_content_gives_the_same_values():
    step = 16
    period = np.random.default_rng(0).integers(0, 256, (step, step, 3), dtype=np.uint8)
    canvas = np.tile(period, (5, 5, 1))
    assert canvas.shape[:2] == TILING.canvas
    for grid, cell in zip(put_together(blurred, TILING, canvas), (4, 8), strict=True):
        first, cells = (8 + step) // cell, step // cell
        inner = [
            grid[0, first + i * cells :, first + j * cells :][:cells, :cells]
            for i in range(2)
            for j in range(2)
        ]
        assert all(torch.equal(inner[0], other) for other in inner[1:])


def test_a_few_tiles_are_seen_at_once(canvas):
    seen = []
    put_together(lambda pixels: seen.append(len(pixels)) or blurred(pixels), TILING, canvas)
    assert seen == [8, 8]
