"""Heat maps against SciPy's own smoothing and hand-made numbers."""

import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from skad._scoring.heatmaps import Heatmap, patches_under, render
from skad._scoring.maps import fill_padding, summarise, without_padding


def reference(grid, size, sigma, align_corners):
    canvas = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None],
        size=(size, size), mode="bilinear", align_corners=align_corners,
    )  # fmt: skip
    return gaussian_filter(canvas[0, 0].numpy(), sigma)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"), [((4, 4), 32), ((7, 5), 60), ((28, 28), 224), ((3, 9), 8)]
)
def test_equals_up_sampling_then_smoothing(shape, size, align_corners):
    grid = np.random.default_rng(0).random(shape)
    expected = reference(grid, size, 4.0, align_corners)
    found = render(grid, size, 4.0, align_corners)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_needs_no_torch(monkeypatch):
    grid = np.random.default_rng(0).uniform(size=(5, 7))
    wanted = render(grid, (40, 56), 4.0)
    pixels = np.zeros((40, 56), dtype=bool)
    pixels[3:9, 20:30] = True
    under = patches_under(pixels, grid.shape, (40, 56), 4.0)
    monkeypatch.setitem(sys.modules, "torch", None)
    np.testing.assert_allclose(render(grid, (40, 56), 4.0), wanted, rtol=1e-12)
    np.testing.assert_array_equal(patches_under(pixels, grid.shape, (40, 56), 4.0), under)


def test_hand_made_numbers():
    grid = np.array([[1.0, 2.0], [2.0, 5.0]])
    first_row = [1.902386847516893, 1.9438493595294961, 2.0204647531447772, 2.1205697030202475]
    np.testing.assert_allclose(render(grid, 8, 4.0)[0, :4], first_row, rtol=1e-7)
    assert render(grid, 8, 4.0).max() == pytest.approx(3.2034034081777163, rel=1e-7)
    # Smoothing squares is not squaring a smooth map.
    assert render(grid**2, 8, 4.0)[0, 0] == pytest.approx(5.073006468643266, rel=1e-7)


def test_no_smoothing():
    grid = np.array([[1.0, 2.0], [4.0, 8.0]])
    assert render(grid, 4, 0.0)[0].tolist() == [1.0, 1.25, 1.75, 2.0]
    assert render(grid, 4, 0.0, align_corners=True)[3].tolist() == pytest.approx(
        [4, 16 / 3, 20 / 3, 8]
    )


def test_padding_repeats_the_border():
    grid = np.full((4, 4), np.nan)
    grid[1:3, :] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    filled = fill_padding(grid)
    np.testing.assert_array_equal(filled[0], filled[1])
    np.testing.assert_array_equal(filled[3], filled[2])
    assert not np.isnan(render(grid, 16, 4.0)).any()


def test_scores_by_a_map():
    heatmap = np.arange(200.0).reshape(10, 20)
    assert summarise(heatmap, "map") == 199
    assert summarise(heatmap, 0.001) == 199  # one pixel at least
    assert summarise(heatmap, 0.02) == np.mean([196, 197, 198, 199])
    assert summarise(heatmap, 1.0) == heatmap.mean()


@pytest.mark.parametrize("image_score", ["map", 0.1, 1.0])
def test_padding_has_no_part_in_the_score(image_score):
    grid = np.full((4, 4), np.nan)
    grid[2:] = np.random.default_rng(0).random((2, 4))
    found = Heatmap(32, 4.0).summary(grid, (16, 32, 0, 32), image_score)
    seen = without_padding(render(grid, 32, 4.0), (16, 32, 0, 32))
    assert np.isnan(seen).sum() == 16 * 32
    assert found == summarise(seen[16:], image_score)


def test_one_cell():
    assert np.allclose(render(np.array([[3.0]]), 8, 4.0), 3.0)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
@pytest.mark.parametrize("at", [[(0, 0)], [(30, 31)], [(59, 12), (2, 40)]], ids=str)
def test_patches_that_pixels_hang_on(sigma, at):
    rng = np.random.default_rng(0)
    grid, pixels = rng.random((7, 9)), np.zeros((60, 60), dtype=bool)
    pixels[tuple(np.transpose(at))] = True
    under = patches_under(pixels, grid.shape, 60, sigma)
    values = render(grid, 60, sigma)[pixels]
    # Others change nothing, to the last bit; each of these does.
    changed = np.where(under, grid, rng.random(grid.shape))
    np.testing.assert_array_equal(render(changed, 60, sigma)[pixels], values)
    if len(at) == 1:
        for patch in np.argwhere(under):
            higher = grid.copy()
            higher[tuple(patch)] += 1e9
            assert (render(higher, 60, sigma)[pixels] > values).all()
