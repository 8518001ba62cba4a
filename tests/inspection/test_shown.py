"""What is drawn of large images: fewer pixels, the same peaks and outlines."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from skad.inspection import HeatmapDisplay, _shown
from skad.inspection._shown import Shown


@pytest.fixture
def ten_dots(monkeypatch):
    monkeypatch.setattr(_shown, "_DOTS", 10)


def literal(values, step, fold):
    """Block by block, as the definition reads."""
    height, width = values.shape[:2]
    return np.array(
        [
            [fold(values[i : i + step, j : j + step]) for j in range(0, width, step)]
            for i in range(0, height, step)
        ]
    )


@pytest.mark.parametrize("shape", [(40, 30), (41, 23), (11, 95), (1, 40)])
def test_is_the_definition(ten_dots, shape):
    rng = np.random.default_rng(0)
    heatmap = rng.random(shape).astype(np.float32)
    heatmap[0, : shape[1] // 2] = np.nan
    mask = rng.random(shape) < 0.02
    mask[-1, -1] = True
    image = rng.random((*shape, 3)).astype(np.float32)
    shown = Shown.of(image, heatmap, mask)
    step = shown.step
    assert step == -(-max(shape) // 10)
    holding = np.where(np.isnan(heatmap), -1, heatmap)
    expected = literal(holding, step, np.max)
    np.testing.assert_array_equal(np.where(np.isnan(shown.heatmap), -1, shown.heatmap), expected)
    np.testing.assert_array_equal(shown.mask, literal(mask, step, np.max))
    means = literal(image, step, lambda block: block.mean((0, 1)))
    np.testing.assert_allclose(shown.image, means, atol=1e-5)
    assert (shown.low, shown.high) == (np.nanmin(heatmap), np.nanmax(heatmap))
    assert heatmap[shown.peak] == shown.high
    assert shown.shape == shape


def test_eight_bits_stay_eight_bits(ten_dots):
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    shown = Shown.of(image, np.zeros((33, 47)), None)
    assert shown.image.dtype == np.uint8
    means = literal(image.astype(float), shown.step, lambda block: block.mean((0, 1)))
    np.testing.assert_allclose(shown.image, means, atol=1)  # Pillow rounds off


def test_small_images_are_drawn_as_they_are():
    image, heatmap = np.zeros((40, 48, 3), np.uint8), np.zeros((40, 48))
    shown = Shown.of(image, heatmap, np.zeros((40, 48)))
    assert shown.step == 1
    assert shown.image is image
    np.testing.assert_array_equal(shown.heatmap, heatmap)
    assert shown.mask is None  # nothing is marked


def test_centres_and_edges_lie_in_the_image_as_given(ten_dots):
    shown = Shown.of(np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40)), None)
    columns, rows = shown.centres()
    assert shown.step == 4
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (1.5, 37.5, 1.5, 17.5)
    assert shown.edges() == (-0.5, 39.5, 19.5, -0.5)


@pytest.mark.parametrize("pixel", [(0, 0), (17, 29), (60, 93)])
def test_star_and_outline_of_a_single_pixel(ten_dots, pixel):
    """One pixel of 5,734 stands out; both surround it, wherever it lies."""
    heatmap = np.zeros((61, 94), dtype=np.float32)
    heatmap[pixel] = 3.0
    mask = heatmap > 0
    image = np.zeros((61, 94, 3), np.uint8)
    display = HeatmapDisplay.from_predictions([image], [heatmap], threshold=1.0, masks=[mask])
    axis = display.axes_[0, 2]
    (star,) = axis.lines
    assert (star.get_ydata()[0], star.get_xdata()[0]) == pixel
    truth, found = axis.collections
    step = Shown.of(image, heatmap, mask).step
    for outline in (truth, found):
        x, y = outline.get_paths()[0].vertices.T
        row, column = pixel
        assert np.hypot(y - row, x - column).max() <= 2 * step
    assert axis.get_xlim() == (-0.5, 93.5)
    assert axis.get_ylim() == (60.5, -0.5)
    assert display.axes_[0, 1].images[0].get_clim() == (0.0, 3.0)


def test_the_display_keeps_what_it_was_given(ten_dots):
    heatmap = np.random.default_rng(0).random((61, 94))
    display = HeatmapDisplay.from_predictions(
        [np.zeros((61, 94, 3), np.uint8)], [heatmap], threshold=0.5
    )
    assert display.heatmaps[0] is heatmap
    assert display.images[0].shape == (61, 94, 3)


def test_matplotlib_never_sees_a_large_image():
    """A picture of 24 megapixels took fifteen seconds; here less suffices."""
    heatmap = np.random.default_rng(0).random((1500, 2200), dtype=np.float32)
    image = np.zeros((1500, 2200, 3), dtype=np.uint8)
    display = HeatmapDisplay.from_predictions([image], [heatmap], threshold=0.9999)
    shapes = [axis.images[0].get_array().shape for axis in display.axes_[0]]
    assert shapes == [(500, 734, 3), (500, 734), (500, 734, 3)]
