"""Encoded images: bytes, open files, Pillow images whose file is gone."""

import io
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from tempfile import SpooledTemporaryFile, TemporaryFile

import numpy as np
import pytest
from PIL import Image, ImageOps

from skad._images import as_image_source

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)


def encode(pixels=PIXELS, format="PNG"):  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


CONTENT = encode()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "part.png").write_bytes(CONTENT)
    return tmp_path / "part.png"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.bytes_, io.BytesIO])
def test_content_in_memory(kind):
    source = as_image_source([kind(CONTENT)])
    source.check(min_side=20)
    assert source.shape(0) == (20, 24)
    np.testing.assert_array_equal(source.load(0), PIXELS)
    np.testing.assert_array_equal(source.load(0), PIXELS)


@pytest.mark.parametrize("position", [0, 7, len(CONTENT)])
@pytest.mark.parametrize("opener", [SpooledTemporaryFile, TemporaryFile])
def test_open_files_are_left_where_they_were(opener, position):
    with opener() as file:
        file.write(CONTENT)
        file.seek(position)
        source = as_image_source([file, file])
        source.check()
        assert source.shape(1) == (20, 24)
        np.testing.assert_array_equal(source.load(0), PIXELS)
        assert file.tell() == position
        assert not file.closed


def test_a_file_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("part.png", CONTENT)
    with zipfile.ZipFile(tmp_path / "parts.zip") as archive, archive.open("part.png") as file:
        source = as_image_source([file])
        assert source.describe(0) == "image 0 (file 'part.png')"
        np.testing.assert_array_equal(source.load(0), PIXELS)


def test_one_file_in_many_threads():
    contents = [encode(np.full((20, 24), value, np.uint8)) for value in (10, 90)]
    files = [io.BytesIO(content) for content in contents]
    source = as_image_source(files * 40)
    with ThreadPoolExecutor(8) as pool:
        found = [image[0, 0, 0] for image in pool.map(source.load, range(80))]
    assert found == [10, 90] * 40
    assert threading.active_count() < 20


def test_a_file_opened_as_text_is_named(path):
    with (
        open(path, encoding="latin-1") as file,
        pytest.raises(ValueError, match="binary mode, 'rb'"),
    ):
        as_image_source([file]).check()


def test_a_closed_file_is_named(path):
    with open(path, "rb") as file:
        pass
    with pytest.raises(ValueError, match=r"^image 0 \(file .*part\.png'\): is closed.*path"):
        as_image_source([file]).check()


def test_a_pipe_is_named():
    end, start = os.pipe()
    os.close(start)
    with (
        os.fdopen(end, "rb") as file,
        pytest.raises(ValueError, match=r"only once.*file\.read\(\)"),
    ):
        as_image_source([file]).check()


@pytest.mark.parametrize("content", [b"", b"part.png", os.urandom(200_000)], ids=len)
def test_what_is_no_image_is_said_in_a_line(content):
    for item in (content, io.BytesIO(content)):
        with pytest.raises(ValueError, match=r"^image 1 \(.*not an image that Pillow") as info:
            as_image_source([CONTENT, item]).check()
        assert len(str(info.value)) < 300


@pytest.mark.parametrize("text", ["x" * 200_000, "data:image/png;base64," + "A" * 9000])
def test_texts_that_are_no_paths_are_said_in_a_line(text):
    with pytest.raises(ValueError, match=r"^image 0 .* too long for a path.*as bytes") as info:
        as_image_source([text]).check()
    assert len(str(info.value)) < 500


def test_a_null_character_is_no_path():
    with pytest.raises(ValueError, match=r"image 0 .*null"):
        as_image_source(["a\0b"]).check()


@pytest.mark.parametrize("loaded", [False, True])
def test_a_closed_pillow_image_is_named_before_work_starts(path, loaded):
    with Image.open(path) as image:
        if loaded:
            image.load()
    image.close()
    source = as_image_source([image])
    for work in (source.check, lambda: source.load(0)):
        with pytest.raises(
            ValueError, match=r"^image 0 \(Pillow image .*is closed.*load\(\).*path"
        ):
            work()


def test_a_pillow_image_whose_file_is_closed_is_named(path):
    with open(path, "rb") as file:
        image = Image.open(file)
    with pytest.raises(ValueError, match=r"^image 0 \(Pillow image.*is closed"):
        as_image_source([image]).check()


def test_a_pillow_image_that_was_loaded_needs_no_file(path):
    with Image.open(path) as image:
        image.load()
    source = as_image_source([image])
    source.check()
    np.testing.assert_array_equal(source.load(0), PIXELS)


# --------------------------------------------------------------------------- altered before it is loaded


def turned(format, orientation=6):  # noqa: A002
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(np.kron(PIXELS, np.ones((4, 4, 1), np.uint8))).save(buffer, format, exif=exif)
    return buffer.getvalue()


def grey_draft(image):
    image.draft("L", (24, 20))


def thumbnail_that_stays_lazy(image):
    image.thumbnail((48, 40))


def laid_flat(image):
    image.getexif()[0x0112] = 1


def turned_otherwise(image):
    image.getexif()[0x0112] = 3


def other_mode(image):
    image.draft("YCbCr", None)


def seen_only(image):
    image.getexif().get(0x0112)


@pytest.mark.parametrize(
    ("format", "alter"),
    [
        *[("JPEG", alter) for alter in (grey_draft, thumbnail_that_stays_lazy, laid_flat)],
        *[("JPEG", alter) for alter in (turned_otherwise, other_mode, seen_only)],
        *[("WEBP", alter) for alter in (laid_flat, turned_otherwise)],
        ("PNG", laid_flat),
    ],
)
def test_what_the_user_alters_is_what_is_looked_at(format, alter):  # noqa: A002
    content = turned(format)
    image, same = Image.open(io.BytesIO(content)), Image.open(io.BytesIO(content))
    alter(image)
    alter(same)
    expected = ImageOps.exif_transpose(same).convert("RGB")
    source = as_image_source([image])
    source.check()
    assert source.shape(0) == (expected.height, expected.width)
    np.testing.assert_array_equal(source.load(0), np.asarray(expected))


def test_what_is_only_looked_at_stays_on_the_disk():
    image = Image.open(io.BytesIO(turned("JPEG")))
    seen_only(image)
    as_image_source([image]).load(0)
    assert image.tile  # not loaded


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("kind", ["pipe", "endless", "empty", "linked"])
def test_what_is_no_regular_file_is_refused_unread(tmp_path, kind):
    path = {"endless": "/dev/zero", "empty": os.devnull}.get(kind, str(tmp_path / "part.png"))
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "linked":
        os.mkfifo(tmp_path / "pipe")
        os.symlink("pipe", path)
    source = as_image_source([path])
    with pytest.raises(ValueError, match=r"image 0 \('/.*'\): is not a regular file"):
        source.load(0)


def test_links_to_files_are_read(path, tmp_path):
    (tmp_path / "link.png").symlink_to(path)
    np.testing.assert_array_equal(as_image_source([tmp_path / "link.png"]).load(0), PIXELS)
