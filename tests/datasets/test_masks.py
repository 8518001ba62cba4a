"""Ground truth in the forms that data sets give it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skad._images import as_image_source
from skad.datasets import read_mask
from skad.exceptions import ImageFileWarning

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
        ValueError,
        match=r"1\.png' has shape \(6, 4\), but '0\.png' in the same folder has \(4, 6\)",
    ):
        read_mask(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="contains no image"):
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


# --------------------------------------------------------------------------- as images are read


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_it_turns_as_its_image_does(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"m.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(TRUTH.astype(np.uint8) * 255).save(path, exif=exif, **options)
    shown = as_image_source([path]).load(0)[:, :, 0] > 0
    np.testing.assert_array_equal(read_mask(path), shown)
    assert shown.shape == ((4, 6) if orientation < 5 else (6, 4))


@pytest.mark.parametrize("name", ["", "."])
def test_an_empty_cell_does_not_read_the_working_folder(tmp_path, monkeypatch, name):
    saved(tmp_path / "m.png", TRUTH)
    monkeypatch.chdir(tmp_path)
    for path in (name, Path(name)):
        with pytest.raises(ValueError, match="pass None where there is no mask"):
            read_mask(path)


def bomb(monkeypatch, path):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)


def cut_header(monkeypatch, path):
    path.write_bytes(path.read_bytes()[:20])


def other_header(monkeypatch, path):
    content = bytearray(path.read_bytes())
    content[24] = 77  # bits of a pixel
    path.write_bytes(content)


def no_decoder(monkeypatch, path):
    def load(self):
        raise NotImplementedError("no such pixel format")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)


def syntax(monkeypatch, path):
    def load(self):
        raise SyntaxError("broken PNG file (chunk b'')")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)


@pytest.mark.parametrize("damage", [bomb, cut_header, other_header, no_decoder, syntax])
def test_every_error_names_the_file(tmp_path, monkeypatch, damage):
    path = saved(tmp_path / "m.png", TRUTH.astype(np.uint8))
    damage(monkeypatch, path)
    for place in (path, tmp_path):
        with pytest.raises(ValueError, match=r"^the mask '.*m\.png': "):
            read_mask(place)


def test_several_pages_are_an_error(tmp_path):
    pages = [Image.fromarray(TRUTH), Image.fromarray(~TRUTH)]
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"m\.tif': has 2 pages"):
        read_mask(tmp_path / "m.tif")


def test_numbers_of_instances_in_32_bits(tmp_path):
    mask = TRUTH.astype(np.int32) * 70_000
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.tif", mask)), TRUTH)
    values = TRUTH.astype(np.float32) * np.float32(-1e-30)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "f.tif", values)), TRUTH)


def test_colours_of_16_bits_are_refused(tmp_path):
    """A blue of 1 would be black after Pillow has read it."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "m.tif", np.ones((4, 6, 3), np.uint16), photometric="rgb")
    with pytest.raises(ValueError, match=r"m\.tif': holds more than 8 bits"):
        read_mask(tmp_path / "m.tif")


def test_what_pillow_warns_of_is_said_once_for_a_folder(tmp_path, monkeypatch):
    for i in range(4):
        saved(tmp_path / f"{i}.png", TRUTH)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.warns(ImageFileWarning, match=r"0\.png'.*Image size") as seen:
        read_mask(tmp_path)
    assert len(seen) == 1
