"""Heat maps against SciPy's own smoothing and hand-made numbers."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from skad._scoring.heatmaps import fill_padding, render, weights_at


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
    np.testing.assert_allclose(render(grid, size, 4.0, align_corners), expected, rtol=1e-6)


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


def test_one_cell():
    assert np.allclose(render(np.array([[3.0]]), 8, 4.0), 3.0)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
def test_weights_are_what_a_pixel_hangs_on(sigma):
    rng = np.random.default_rng(0)
    grid = rng.random((7, 9))
    canvas = render(grid, 60, sigma)
    for pixel in [(0, 0), (30, 31), (59, 12)]:
        weights = weights_at(pixel, grid.shape, 60, sigma)
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert (weights * grid).sum() == pytest.approx(canvas[pixel], rel=1e-6)
        # What weighs nothing changes nothing, to the last bit.
        changed = np.where(weights == 0, rng.random(grid.shape), grid)
        assert render(changed, 60, sigma)[pixel] == canvas[pixel]
