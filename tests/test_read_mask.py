"""Ground truth in the forms that data sets give it."""

import numpy as np
import pytest
from PIL import Image

from skad.datasets import read_mask

TRUTH = np.zeros((4, 6), bool)
TRUTH[1:3, 2:5] = True


def saved(path, image):
    Image.fromarray(image).save(path) if isinstance(image, np.ndarray) else image.save(path)
    return path


@pytest.mark.parametrize("value", [1, 2, 127, 128, 255])
def test_every_value_but_zero_is_a_defect(tmp_path, value):
    """VisA numbers its kinds of defects from 1, MVTec LOCO AD downwards from 255."""
    mask = read_mask(saved(tmp_path / "m.png", TRUTH.astype(np.uint8) * np.uint8(value)))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, TRUTH)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_one_bit(tmp_path, suffix):
    mask = read_mask(saved(tmp_path / f"m.{suffix}", Image.fromarray(TRUTH)))
    np.testing.assert_array_equal(mask, TRUTH)


def test_sixteen_bits(tmp_path):
    mask = read_mask(saved(tmp_path / "m.png", TRUTH.astype(np.uint16)))
    np.testing.assert_array_equal(mask, TRUTH)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_dark_colour(tmp_path, channel):
    """A blue of 1 is 0 in grey."""
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[TRUTH, channel] = 1
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", colours)), TRUTH)


def test_opacity_is_no_defect(tmp_path):
    colours = np.zeros((4, 6, 4), np.uint8)
    colours[..., 3] = 255
    colours[TRUTH, 0] = 200
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", colours)), TRUTH)
    grey = Image.fromarray(colours).convert("LA")
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "grey.png", grey)), TRUTH)


def test_the_colours_of_a_palette_count_not_its_numbers(tmp_path):
    """Number 0 may be white."""
    image = Image.fromarray((~TRUTH).astype(np.uint8), mode="P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", image)), TRUTH)


def test_good(tmp_path):
    assert not read_mask(saved(tmp_path / "m.png", np.zeros((4, 6), np.uint8))).any()


def test_union_of_a_folder(tmp_path):
    for i, rows in enumerate([slice(0, 2), slice(2, 4)]):
        part = np.zeros((4, 6), np.uint8)
        part[rows] = 200 * TRUTH[rows]
        saved(tmp_path / f"00{i}.png", part)
    (tmp_path / "notes.txt").write_text("not an image")
    np.testing.assert_array_equal(read_mask(tmp_path), TRUTH)
    np.testing.assert_array_equal(read_mask(str(tmp_path)), TRUTH)


def test_a_folder_of_different_sizes(tmp_path):
    saved(tmp_path / "0.png", np.zeros((4, 6), np.uint8))
    saved(tmp_path / "1.png", np.zeros((6, 4), np.uint8))
    with pytest.raises(
        ValueError, match=r"1\.png' has shape \(6, 4\), '0\.png' beside it \(4, 6\)"
    ):
        read_mask(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no mask"):
        read_mask(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        read_mask(tmp_path / "absent.png")


@pytest.mark.parametrize("damaged", [b"no image", b""])
def test_no_image(tmp_path, damaged):
    (tmp_path / "m.png").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"m\.png': is not an image that Pillow can read"):
        read_mask(tmp_path / "m.png")


def test_an_image_that_breaks_off(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    whole = saved(tmp_path / "m.png", noise).read_bytes()
    (tmp_path / "m.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"m\.png': cannot be read .*damaged"):
        read_mask(tmp_path / "m.png")
