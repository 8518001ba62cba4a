"""To the canvas and back."""

import numpy as np
import pytest
import torch
from PIL import Image

from skad._images import Geometry, as_size

SIZES = [(64, 64), (37, 53), (53, 37), (201, 80), (80, 201), (20, 33), (63, 9), (1, 12), (64, 65)]
S = 64
GEOMETRIES = [
    Geometry("squash", S),
    Geometry("pad", S),
    Geometry("crop", S),
    Geometry("crop", S, S),
]


def noise(height, width, dtype=np.uint8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return pixels.astype(np.uint8) if dtype == np.uint8 else (pixels / 255).astype(np.float32)


def ramps(height, width):
    """Coordinates of pixel centres, relative to the image: rows, columns, zeros."""
    rows, columns = np.indices((height, width), dtype=np.float32) + np.float32(0.5)
    return np.dstack([rows / height, columns / width, np.zeros_like(rows)])


# --------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stretch", 64), "'squash', 'pad', 'crop'"),
        (("squash", 0), "image_size"),
        (("squash", 64.0), "image_size"),
        (("squash", True), "image_size"),
        (("crop", 64, 63), "resize must be image_size at least"),
        (("crop", 64, 70.5), "resize"),
        (("pad", 64, 70), "only"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        Geometry(*arguments)


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (320, 366)])
def test_default_resize_is_the_papers(size, resize):
    image = noise(300, 410)
    np.testing.assert_array_equal(
        Geometry("crop", size).apply(image), Geometry("crop", size, resize).apply(image)
    )


def test_frozen_and_hashable():
    geometry = Geometry("crop", np.int64(64))
    assert hash(geometry) == hash(Geometry("crop", 64))
    with pytest.raises(AttributeError):
        geometry.mode = "pad"


# --------------------------------------------------------------------------- apply


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", SIZES)
def test_canvas_shape_and_type(geometry, dtype, size):
    canvas = geometry.apply(noise(*size, dtype))
    assert canvas.shape == (S, S, 3)
    assert canvas.dtype == dtype


@pytest.mark.parametrize("size", SIZES)
def test_squash_is_pillows_bilinear(size):
    image = noise(*size)
    expected = np.asarray(Image.fromarray(image).resize((S, S), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(Geometry("squash", S).apply(image), expected)
    floats = Geometry("squash", S).apply(noise(*size, np.float32))
    np.testing.assert_allclose(floats * 255, expected, atol=1.01)  # two roundings


@pytest.mark.parametrize("size", [(300, 300), (300, 411), (533, 257), (100, 90), (256, 301)])
def test_crop_is_torchvisions(size):
    height, width = size
    image = noise(height, width)
    short, long = sorted(size)
    new_long = int(256 * long / short)
    new_height, new_width = (256, new_long) if height <= width else (new_long, 256)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    top, left = round((new_height - 224) / 2.0), round((new_width - 224) / 2.0)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    np.testing.assert_array_equal(Geometry("crop", 224).apply(image), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES[:2] + GEOMETRIES[3:], ids=str)
def test_no_resize_where_the_size_matches(geometry, monkeypatch):
    monkeypatch.setattr(Image.Image, "resize", None)
    image = noise(S, S)
    np.testing.assert_array_equal(geometry.apply(image), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", SIZES)
def test_pad_repeats_the_edge(size, dtype):
    geometry = Geometry("pad", S)
    canvas = geometry.apply(noise(*size, dtype))
    top, bottom, left, right = geometry.content(*size)
    assert max(bottom - top, right - left) == S
    assert abs(top - (S - bottom)) <= 1
    assert abs(left - (S - right)) <= 1
    rows = np.clip(np.arange(S), top, bottom - 1)
    columns = np.clip(np.arange(S), left, right - 1)
    np.testing.assert_array_equal(canvas, canvas[rows][:, columns])


def test_pad_keeps_the_aspect():
    assert Geometry("pad", 64).content(100, 200) == (16, 48, 0, 64)
    assert Geometry("pad", 64).content(200, 100) == (0, 64, 16, 48)
    assert Geometry("pad", 64).content(1, 1000) == (31, 32, 0, 64)


@pytest.mark.parametrize("mode", ["squash", "crop"])
def test_content_is_the_whole_canvas(mode):
    assert Geometry(mode, 64).content(100, 201) == (0, 64, 0, 64)


def test_views_of_any_layout():
    image = noise(50, 70)
    flipped = np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]
    for geometry in GEOMETRIES:
        np.testing.assert_array_equal(geometry.apply(flipped), geometry.apply(image))


# --------------------------------------------------------------------------- restore


@pytest.mark.parametrize("size", SIZES)
def test_squash_restores_as_torch_interpolates(size):
    canvas = np.random.default_rng(0).normal(size=(S, S)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(canvas)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    restored = Geometry("squash", S).restore(canvas, *size)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, expected, atol=2e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("size", [size for size in SIZES if min(size) > 1])
def test_round_trip_of_coordinates(geometry, size):
    height, width = size
    ramp = ramps(height, width)
    canvas = geometry.apply(ramp)
    for channel, length in ((0, height), (1, width)):
        found = geometry.restore(canvas[:, :, channel], height, width) * length
        wanted = ramp[:, :, channel] * length
        seen = np.isfinite(found)
        assert seen.any()
        # Within a fraction of a pixel of the image, or of the canvas where that is coarser. At the
        # edge of the content half a canvas pixel is all that antialiasing and clamping leave.
        pixel = max(1.0, _image_pixels_in_a_canvas_pixel(geometry, size, channel))
        error = np.abs(found - wanted)[seen]
        assert error.max() <= 0.76 * pixel
        # Inside, what is left is Pillow's: its sampled triangle bends a ramp by a few per cent.
        margin = 1.5 * pixel
        inner = seen & (wanted > margin) & (wanted < length - margin)
        if geometry.mode == "crop":
            inner &= _away_from_nan(seen, int(np.ceil(pixel)) + 1)
        assert np.abs(found - wanted)[inner].max(initial=0) <= 0.08 * pixel


def _image_pixels_in_a_canvas_pixel(geometry, size, axis):
    if geometry.mode == "squash":
        return size[axis] / S
    if geometry.mode == "pad":
        top, bottom, left, right = geometry.content(*size)
        return size[axis] / ((bottom - top, right - left)[axis])
    return min(size) / (geometry.resize or round(S / 0.875))


def _away_from_nan(seen, margin):
    top, bottom = np.flatnonzero(seen.any(axis=1))[[0, -1]]
    left, right = np.flatnonzero(seen.any(axis=0))[[0, -1]]
    inner = np.zeros_like(seen)
    inner[top + margin : bottom - margin + 1, left + margin : right - margin + 1] = True
    return inner


@pytest.mark.parametrize("geometry", [*GEOMETRIES[:2], Geometry("crop", S, 80)], ids=str)
def test_restore_is_centred(geometry):
    """A symmetric map comes back with symmetric rows: no half-pixel drift."""
    height, width = 90, 130
    ramp = np.abs(np.arange(S) - (S - 1) / 2)
    restored = geometry.restore(ramp[:, None] + ramp[None, :], height, width)
    np.testing.assert_allclose(restored, restored[::-1], atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_pad_never_leaks(size):
    geometry = Geometry("pad", S)
    top, bottom, left, right = geometry.content(*size)
    canvas = np.full((S, S), 1e6)
    canvas[top:bottom, left:right] = 1
    np.testing.assert_array_equal(geometry.restore(canvas, *size), np.ones(size))
    canvas[:] = np.nan
    canvas[top:bottom, left:right] = 1
    assert np.isfinite(geometry.restore(canvas, *size)).all()


@pytest.mark.parametrize(
    "size", [(300, 300), (300, 411), (533, 257), (20, 33), (8, 8), (1024, 700)]
)
def test_crop_is_nan_exactly_outside(size):
    geometry = Geometry("crop", 224)
    restored = geometry.restore(np.ones((224, 224)), *size)
    inside = []
    for length in size:
        resized = int(256 * length / min(size))
        start = round((resized - 224) / 2)
        centres = (np.arange(length) + 0.5) * resized / length
        inside.append((centres >= start) & (centres <= start + 224))
    expected = inside[0][:, None] & inside[1][None, :]
    np.testing.assert_array_equal(np.isfinite(restored), expected)
    assert (restored[expected] == 1).all()


def test_crop_of_the_papers_size():
    restored = Geometry("crop", 224).restore(np.arange(224.0) + np.zeros((224, 1)), 256, 256)
    assert np.isnan(restored[:16]).all()
    assert np.isnan(restored[:, 240:]).all()
    np.testing.assert_array_equal(restored[16:240, 16:240], np.arange(224.0) + np.zeros((224, 1)))


def test_crop_may_see_no_pixel_centre():
    assert np.isnan(Geometry("crop", 10, 256).restore(np.ones((10, 10)), 2, 2)).all()


def test_restore_leaves_the_map_alone():
    canvas = np.random.default_rng(0).normal(size=(S, S)).astype(np.float32)
    before = canvas.copy()
    for geometry in GEOMETRIES:
        geometry.restore(canvas, 90, 40)
    np.testing.assert_array_equal(canvas, before)


def test_restore_wants_the_canvas():
    with pytest.raises(ValueError, match=r"\(64, 64\); got \(28, 28\)"):
        Geometry("squash", 64).restore(np.ones((28, 28)), 10, 10)


# --------------------------------------------------------------------------- cells


@pytest.mark.parametrize("mode", ["squash", "crop"])
@pytest.mark.parametrize("size", SIZES)
def test_whole_grid_is_valid(mode, size):
    assert Geometry(mode, S).valid_cells(*size, 7, 9) == (0, 7, 0, 9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [(8, 8), (7, 5), (1, 1), (64, 3)])
def test_valid_cells_of_pad(size, grid):
    geometry = Geometry("pad", S)
    top, bottom, left, right = geometry.content(*size)
    r0, r1, c0, c1 = geometry.valid_cells(*size, *grid)
    sides = [((r0, r1), (top, bottom), grid[0]), ((c0, c1), (left, right), grid[1])]
    for (first, last), (start, stop), n in sides:
        centres = (np.arange(n) + 0.5) * S / n
        inside = np.flatnonzero((centres >= start) & (centres <= stop))
        assert 0 <= first < last <= n
        if inside.size:
            assert (first, last - 1) == (inside[0], inside[-1])
        else:
            assert last - first == 1
            assert first * S / n <= stop
            assert last * S / n >= start


def test_valid_cells_at_half_height():
    assert Geometry("pad", 64).valid_cells(100, 200, 8, 8) == (2, 6, 0, 8)


# --------------------------------------------------------------------------- rectangles


WIDE = (48, 96)


@pytest.mark.parametrize(
    ("value", "size"),
    [(64, 64), ((64, 64), 64), ([48, 96], WIDE), (np.array([48, 96]), WIDE), (np.int32(8), 8)],
)
def test_what_is_square_is_a_number(value, size):
    assert as_size(value) == size
    assert type(as_size(value)) is type(size)


@pytest.mark.parametrize("value", [0, 1.5, True, (1,), (1, 2, 3), (8, 0), (8, 8.5), "ab", None])
def test_other_sizes_are_refused(value):
    with pytest.raises(ValueError, match=r"image_size must be a positive integer.*height, width"):
        as_size(value)


def test_resize_is_for_squares():
    with pytest.raises(ValueError, match="leave resize=None"):
        Geometry("crop", WIDE, 96)


@pytest.mark.parametrize("mode", ["squash", "pad", "crop"])
@pytest.mark.parametrize("size", SIZES)
def test_images_lie_on_a_rectangle_as_on_a_square(mode, size):
    """On a canvas twice as wide, an image twice as wide lies as the image on the square."""
    height, width = size
    square, wide = Geometry(mode, 48), Geometry(mode, WIDE)
    top, bottom, left, right = square.content(height, width)
    found = wide.content(height, 2 * width)
    assert found[:2] == (top, bottom)
    np.testing.assert_allclose(found[2:], (2 * left, 2 * right), atol=1)
    cells = wide.valid_cells(height, 2 * width, 6, 6)
    np.testing.assert_allclose(cells, square.valid_cells(height, width, 6, 6), atol=1)
    canvas = wide.apply(noise(height, 2 * width))
    assert canvas.shape == (*WIDE, 3)
    seen = np.isfinite(wide.restore(np.ones(WIDE), height, 2 * width))
    one = np.isfinite(square.restore(np.ones((48, 48)), height, width))
    assert abs(seen.mean() - one.mean()) < 0.1


@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("size", [(100, 200), (200, 100), (120, 130)])
def test_pad_and_crop_keep_the_aspect(mode, size):
    height, width = size
    geometry = Geometry(mode, WIDE)
    rows, columns = (
        geometry.restore(one, height, width)
        for one in np.meshgrid(np.arange(48.0), np.arange(96.0), indexing="ij")
    )
    down, right = np.nanmedian(np.diff(rows, axis=0)), np.nanmedian(np.diff(columns, axis=1))
    assert down == pytest.approx(right, rel=0.02)
    assert geometry.distortion(*size) == 1


def test_distortion_is_that_of_the_aspect():
    assert Geometry("squash", WIDE).distortion(100, 200) == 1
    assert Geometry("squash", WIDE).distortion(100, 100) == 2
    assert Geometry("squash", 64).distortion(30, 90) == pytest.approx(3)
