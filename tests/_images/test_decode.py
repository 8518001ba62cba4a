"""Every Pillow mode, orientation and kind of damage."""

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from skad._images import as_image_source

ORIENTATION = 0x0112


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)


def load(item):
    return as_image_source([item]).load(0)


def oriented(array, orientation):
    image = Image.fromarray(array)
    image.getexif()[ORIENTATION] = orientation
    return image


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --------------------------------------------------------------------------- modes


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "RGBX", "P", "CMYK", "YCbCr", "HSV", "L", "LA", "PA", "1"]
)
def test_modes_become_what_pillow_says_is_rgb(rgb, mode):
    image = Image.fromarray(rgb)
    image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    expected = np.asarray(image.convert("RGBA" if mode == "PA" else "RGB"))[:, :, :3]
    loaded = load(image)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, expected)


def test_premultiplied_alpha():
    assert (load(Image.new("RGBA", (4, 3), "white").convert("RGBa")) == 255).all()


def test_transparency_never_changes_colours_nor_warns(rgb, tmp_path):
    image = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "bytes.png", transparency=bytes([0, 100, 200]))
    image.save(tmp_path / "index.png", transparency=3)
    Image.fromarray(rgb[:, :, 0]).save(tmp_path / "grey.png", transparency=int(rgb[0, 0, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(load(tmp_path / "bytes.png"), expected)
        np.testing.assert_array_equal(load(tmp_path / "index.png"), expected)
        np.testing.assert_array_equal(load(tmp_path / "grey.png")[:, :, 1], rgb[:, :, 0])


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bit_modes(mode):
    levels = np.array([[0, 1, 65535], [257, 4000, 514]], dtype=">u2" if mode == "I;16B" else "<u2")
    loaded = load(Image.frombytes(mode, (3, 2), levels.tobytes()))
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded[:, :, 0], levels / 65535, rtol=1e-6)
    eight = (np.arange(6).reshape(2, 3) * 257).astype(levels.dtype)
    loaded = load(Image.frombytes(mode, (3, 2), eight.tobytes()))
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded[:, :, 2], eight // 257)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_files_equal_arrays(tmp_path, suffix):
    levels = np.random.default_rng(1).integers(0, 65536, (6, 7)).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / f"deep.{suffix}")
    loaded = load(tmp_path / f"deep.{suffix}")
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, load(levels))
    np.testing.assert_allclose(loaded[:, :, 0], levels / 65535, rtol=1e-6)


def test_mode_i_is_an_int32_array():
    levels = np.array([[0, 255], [7, 100]], dtype=np.int32)
    np.testing.assert_array_equal(load(Image.fromarray(levels)), load(levels))
    for wrong in (-1, 256, 65535, 65536):
        pixels = np.full((2, 2), wrong, dtype=np.int32)
        for item in (pixels, Image.fromarray(pixels)):
            with pytest.raises(ValueError, match=r"^image 0 .*0\.\.255 unless they are uint16"):
                load(item)


def test_mode_f_is_a_float_array(tmp_path):
    values = np.array([[0.0, 0.1234], [0.5, 1.0]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "f.tif")
    for item in (Image.fromarray(values), tmp_path / "f.tif"):
        np.testing.assert_array_equal(load(item)[:, :, 0], values)
    with pytest.raises(ValueError, match=r"^image 0 .*0\.\.1"):
        load(Image.fromarray(values * 255))


def test_unsupported_mode_is_found_early():
    source = as_image_source([Image.new("LAB", (4, 4))])
    for work in (source.check, lambda: source.load(0)):
        with pytest.raises(ValueError, match=r"^image 0 .*mode LAB is not supported"):
            work()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jpg", "gif", "ppm"])
def test_files_equal_what_pillow_reads(rgb, tmp_path, opened, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(rgb).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(load(path), expected)
    np.testing.assert_array_equal(load(opened(path)), expected)


@pytest.mark.parametrize("suffix", ["gif", "tif", "png"])
def test_files_with_many_frames_show_the_first_and_images_their_own(tmp_path, suffix):
    path = tmp_path / f"frames.{suffix}"
    frames = [Image.new("L", (6, 4), value) for value in (10, 90, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (load(path) == 10).all()
    with Image.open(path) as image:
        image.seek(2)
        assert (load(image) == 200).all()
        assert image.tell() == 2


# --------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_exif_orientation_of_files(rgb, tmp_path, opened, suffix, orientation):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(rgb).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    source = as_image_source([path, opened(path)])
    for i in range(2):
        assert source.shape(i) == expected.shape[:2] == ((5, 8) if orientation < 5 else (8, 5))
        np.testing.assert_array_equal(source.load(i), expected)
        assert source.shape(i) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_exif_orientation_of_grey_tiffs(rgb, tmp_path, dtype, orientation):
    """Pillow maps such files into memory, and mixes up the lines of turned ones."""
    grey = (rgb[:, :, 0] / 255).astype(dtype) if dtype is np.float32 else rgb[:, :, 0].astype(dtype)
    path = tmp_path / "turned.tif"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(grey).save(path, exif=exif)
    expected = load(np.asarray(ImageOps.exif_transpose(oriented(grey, orientation))))
    with Image.open(path) as image:
        for item in (path, path.read_bytes(), image):
            source = as_image_source([item])
            assert source.shape(0) == expected.shape[:2]
            np.testing.assert_array_equal(source.load(0), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_images_in_memory(rgb, orientation):
    for array in (rgb, rgb[:, :, 0], rgb[:, :, 0].astype(np.uint16) * 257):
        image = oriented(array, orientation)
        expected = np.asarray(ImageOps.exif_transpose(image))
        expected = expected // 257 if expected.dtype == np.uint16 else expected
        expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
        source = as_image_source([image])
        assert source.shape(0) == expected.shape[:2]
        np.testing.assert_array_equal(source.load(0), expected)
        assert image.getexif()[ORIENTATION] == orientation
        np.testing.assert_array_equal(np.asarray(image), array)


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_png_metadata_before_and_after_the_pixels(rgb, tmp_path, kind, late, opened):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    data = buffer.getvalue()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    if kind == "exif":
        chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    else:
        text = b'<rdf:Description tiff:Orientation="6"/>'
        chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text)
    cut = data.index(b"IEND") - 4 if late else data.index(b"IDAT") - 4
    path = tmp_path / "meta.png"
    path.write_bytes(data[:cut] + chunk + data[cut:])
    for item in (path, opened(path)):
        source = as_image_source([item])
        assert source.shape(0) == (8, 5)
        np.testing.assert_array_equal(source.load(0), np.rot90(rgb, -1))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_check_and_shape_read_headers_only(rgb, tmp_path, suffix, monkeypatch):
    path = tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(rgb).save(path, exif=exif)
    plain = tmp_path / f"plain.{suffix}"
    Image.fromarray(rgb).save(plain)

    def refuse(self):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    source = as_image_source([path, plain])
    source.check(min_side=5)
    assert [source.shape(i) for i in range(2)] == [(8, 5), (5, 8)]


# --------------------------------------------------------------------------- damage


def damaged(kind, path):
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) * 2 // 3])
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes(40) + data[middle + 40 :])


@pytest.mark.parametrize(
    ("suffix", "kind"), [("png", "truncated"), ("jpg", "truncated"), ("png", "corrupt")]
)
def test_damaged_files_are_named(tmp_path, suffix, kind, opened):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    paths = [tmp_path / f"{i}.{suffix}" for i in range(5)]
    for path in paths:
        Image.fromarray(pixels).save(path)
    damaged(kind, paths[3])
    source = as_image_source(paths)
    source.check()  # the headers are sound
    with pytest.raises(ValueError, match=rf"^image 3 \(.*3\.{suffix}.*damaged.*copy it") as info:
        source.load(3)
    assert info.value.__cause__ is not None
    with pytest.raises(ValueError, match=r"^image 0 \(Pillow image .*damaged"):
        load(opened(paths[3]))
    assert source.load(4).shape == (40, 40, 3)


def test_a_closed_image_is_named(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        pass
    with pytest.raises(ValueError, match=r"^image 0 \(Pillow image"):
        load(image)


# --------------------------------------------------------------------------- whose image it is


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
def test_lazy_images_stay_lazy(rgb, tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(rgb).save(path)
    with Image.open(path) as image:
        position = image.fp.tell()
        source = as_image_source([image])
        source.check()
        assert source.shape(0) == (5, 8)
        np.testing.assert_array_equal(source.load(0), load(path))
        assert image.fp.tell() == position  # the file is gone once Pillow has loaded the image
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), load(path))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "ICO"])
def test_images_changed_after_loading_show_the_change(format):  # noqa: A002
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, format)
    image = Image.open(buffer)
    image.load()  # of an icon, Pillow keeps the file
    image.putpixel((0, 0), (1, 2, 3))
    assert load(image)[0, 0].tolist() == [1, 2, 3]


def test_one_lazy_image_in_many_threads(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image, ThreadPoolExecutor(8) as pool:
        source = as_image_source([image] * 64)
        for loaded in pool.map(source.load, range(64)):
            np.testing.assert_array_equal(loaded, pixels)


def test_file_handles_are_closed(rgb, tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(rgb).save(path)
    (tmp_path / "bad.png").write_bytes(path.read_bytes()[:60])
    source = as_image_source([path, tmp_path / "bad.png"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        source.load(0)
        source.shape(0)
        with pytest.raises(ValueError, match=r"^image 1"):
            source.load(1)
    assert threading.active_count() < 20
