"""What counts as images, and how errors name them."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from skad._images import as_image_source, is_rows


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)


@pytest.fixture
def path(image, tmp_path):
    file = tmp_path / "part.png"
    Image.fromarray(image).save(file)
    return file


def object_array(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


# --------------------------------------------------------------------------- one image, many ways


def test_every_kind_of_input_gives_the_same_pixels(image, path, opened):
    rows = image.reshape(1, -1)
    shape = image.shape
    ways = {
        "list of str": [str(path)],
        "tuple of Path": (path,),
        "str array": np.array([str(path)]),
        "object array": object_array([path]),
        "Series": pd.Series([str(path)], index=[5]),
        "Pillow": [Image.fromarray(image)],
        "lazy Pillow": [opened(path)],
        "array": [image],
        "int64 array": [image.astype(np.int64)],
        "float32": [image.astype(np.float32) / 255],
        "float64": [image / 255],
        "uint16": [image.astype(np.uint16) * 257],
        "alpha": [np.dstack([image, np.full(shape[:2], 7, np.uint8)])],
        "tensor in list": [torch.from_numpy(image)],
        "float tensor": [torch.from_numpy(image) / 255],
        "tensor with grad": [(torch.from_numpy(image) / 255).requires_grad_()],
        "batch": image[None],
        "float batch": image[None] / 255,
        "not contiguous": [np.asfortranarray(image)],
        "batch tensor": torch.from_numpy(image)[None],
        "batch with alpha": np.concatenate([image, image[:, :, :1]], axis=2)[None],
    }
    for name, X in ways.items():
        assert not is_rows(X), name
        source = as_image_source(X)
        source.check()
        loaded = source.load(0)
        assert loaded.dtype == np.uint8, name
        np.testing.assert_array_equal(loaded, image, err_msg=name)
        assert source.shape(0) == image.shape[:2], name
    for kind in (rows, rows.astype(np.int64), rows / 255):
        loaded = as_image_source(kind, image_shape=shape).load(0)
        assert loaded.dtype == np.uint8
        np.testing.assert_array_equal(loaded, image)


def test_grey_layouts_agree(image):
    grey = image[:, :, 0]
    expected = np.dstack([grey] * 3)
    batch = np.stack([grey, grey])
    for X in ([grey], [grey[:, :, None]], [Image.fromarray(grey)], batch, batch[..., None]):
        np.testing.assert_array_equal(as_image_source(X).load(0), expected)
    rows = as_image_source(grey.reshape(1, -1), image_shape=grey.shape)
    np.testing.assert_array_equal(rows.load(0), expected)


def test_mixed_lists(image, path):
    source = as_image_source([path, image, Image.fromarray(image), torch.from_numpy(image)])
    source.check(min_side=7)
    assert len(source) == 4
    for i in range(4):
        np.testing.assert_array_equal(source.load(i), image)


# --------------------------------------------------------------------------- rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.int16])
def test_strips_take_measurements_as_they_are(dtype):
    rows = np.array([[0, 1, -3], [300, 2, 1]], dtype=dtype)
    source = as_image_source(rows)
    source.check(min_side=32)
    assert source.shape(1) == (1, 3)
    assert source.load(1).dtype == np.float32
    np.testing.assert_array_equal(source.load(1)[0, :, 0], [300, 2, 1])
    assert source.load(0).shape == (1, 3, 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "uint32", "int8", "float16", "bool"])
def test_strips_are_the_same_in_every_type(dtype):
    values = np.array([[0, 1, 1], [100, 9, 64]])[: 1 if dtype == "bool" else 2]
    source = as_image_source(values.astype(dtype))
    source.check()
    for i, row in enumerate(values):
        assert source.load(i).dtype == np.float32
        np.testing.assert_array_equal(source.load(i)[0, :, 1], row)


def test_strip_beyond_float32():
    with pytest.raises(ValueError, match=r"image 1 \(row of 2 values\).*too large"):
        as_image_source(np.array([[0.0, 1.0], [1e300, 0.0]])).check()


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 1), (1, 1, 3), (7, 7)])
def test_image_shape_must_match(shape):
    with pytest.raises(ValueError, match=r"5 columns.*image_shape=") as info:
        as_image_source(np.zeros((2, 5)), image_shape=shape)
    assert str(shape) in str(info.value)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 2), (1, 5, 1, 1), (0, 5), (2.5, 2), (-1, -5)])
def test_image_shape_must_be_a_shape(shape):
    with pytest.raises(ValueError, match="image_shape must be"):
        as_image_source(np.zeros((2, 5)), image_shape=shape)


def test_image_shape_is_only_for_rows(image):
    assert as_image_source([image], image_shape=(2, 2)).shape(0) == (9, 7)


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "X", [[], (), np.array([]), np.zeros((0, 4, 4, 3)), pd.Series([], dtype=object)]
)
def test_no_images(X):
    with pytest.raises(ValueError, match=r"no images: .*0 sample\(s\).*list_images\(folder\)"):
        as_image_source(X)


def test_not_images_at_all():
    with pytest.raises(TypeError, match="must hold images"):
        as_image_source(3.0)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 3, 8, 9)), r"NHWC.*looks like NCHW.*moveaxis"),
        (np.zeros((2, 5, 8, 9)), r"NHWC.*\(2, 5, 8, 9\)"),
        (np.zeros((2, 8, 9, 2)), "NHWC"),
        (np.zeros((2, 8, 9, 3, 1)), "NHWC"),
        (np.zeros((480, 640, 3)), r"one colour image: wrap it in a list"),
        (torch.zeros(2, 3, 8, 9), r"permute\(0, 2, 3, 1\)"),
    ],
)
def test_batch_layouts(X, message):
    with pytest.raises(ValueError, match=message):
        as_image_source(X)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.zeros((3, 8, 9)), ValueError, r"NHWC.*channels-first.*moveaxis"),
        (torch.zeros(3, 8, 9), ValueError, r"permute\(1, 2, 0\)"),
        (np.zeros((8, 9, 2)), ValueError, r"\(8, 9, 2\)"),
        (np.zeros((2, 8, 9, 3)), ValueError, r"\(2, 8, 9, 3\)"),
        (np.zeros((0, 9)), ValueError, "no pixels"),
        (np.full((8, 9), np.nan), ValueError, "NaN"),
        (np.full((8, 9), np.inf), ValueError, "infinity"),
        (np.full((8, 9), 254.0), ValueError, r"0\.\.1; got 254\.\.254.*Divide by 255.*uint8"),
        (np.full((8, 9), -0.5), ValueError, r"0\.\.1"),
        (np.full((8, 9), 256), ValueError, r"0\.\.255.*uint16"),
        (np.full((8, 9), -1), ValueError, r"0\.\.255"),
        (np.zeros((8, 9), dtype=complex), ValueError, "complex"),
        (np.zeros((8, 9), dtype=object), ValueError, "object"),
        (np.zeros(9), TypeError, "must be a path"),
        (None, TypeError, "must be a path"),
    ],
)
def test_bad_items_are_named_before_work_and_at_work(image, bad, error, message):
    if isinstance(bad, np.ndarray) and bad.ndim == 1:
        error, message = ValueError, r"\(9,\)"
    source = as_image_source([image, image, bad, image])
    with pytest.raises(error, match=rf"(?s)^image 2 \(.*{message}"):
        source.check()
    with pytest.raises(error, match=rf"(?s)^image 2 \(.*{message}"):
        source.load(2)


def test_small_images(image, path, opened):
    for X in ([image], [path], [opened(path)], image[None]):
        source = as_image_source(X)
        source.check(min_side=7)
        with pytest.raises(ValueError, match=r"^image 0 \(.*9 x 7 pixels.*at least 8. Enlarge"):
            source.check(min_side=8)


@pytest.mark.parametrize("n", [3, 500])
def test_bad_files_are_named(image, path, tmp_path, n):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    cases = {
        tmp_path / "gone.png": "no such file",
        tmp_path: "is a directory",
        tmp_path / "text.png": "not an image",
        tmp_path / "empty.png": "not an image",
    }
    for bad, message in cases.items():
        paths = [path] * n
        paths[n // 2] = bad
        with pytest.raises(ValueError, match=rf"^image {n // 2} \(.*{message}") as info:
            as_image_source(paths).check()
        assert repr(str(bad)) in str(info.value)
        assert isinstance(info.value.__cause__, OSError)


def test_a_missing_file_is_also_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        as_image_source([tmp_path / "gone.png"]).load(0)


def test_first_error_in_order(path, tmp_path):
    paths = [path] * 300
    paths[70] = tmp_path / "first.png"
    paths[290] = tmp_path / "last.png"
    with pytest.raises(ValueError, match=r"^image 70 .*first\.png"):
        as_image_source(paths).check()


def test_decompression_bomb(path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"^image 0 .*MAX_IMAGE_PIXELS"):
        as_image_source([path]).check()


# --------------------------------------------------------------------------- describe and subset


def test_describe(image, path, opened):
    source = as_image_source([path, str(path), image, Image.fromarray(image), opened(path)])
    assert source.describe(0) == f"image 0 ({str(path)!r})"
    assert source.describe(1) == f"image 1 ({str(path)!r})"
    assert source.describe(2) == "image 2 (array of shape (9, 7, 3), uint8)"
    assert source.describe(3) == "image 3 (Pillow image, mode RGB, 7 x 9)"
    assert str(path) in source.describe(4)
    assert "5 images" in repr(source)


def test_subsets_keep_the_names():
    images = [np.full((2, 2), value, np.uint8) for value in range(10)]
    source = as_image_source(images)
    chosen = source.subset([8, 1, 5]).subset(np.array([True, False, True]))
    assert len(chosen) == 2
    assert [chosen.load(i)[0, 0, 0] for i in range(2)] == [8, 5]
    assert chosen.describe(1).startswith("image 5 ")
    assert len(source.subset(slice(2, 6))) == 4
    assert len(source.subset([])) == 0
    assert source.subset([-1]).describe(0).startswith("image 9 ")
    with pytest.raises(IndexError):
        source.subset([10])
    with pytest.raises(IndexError):
        source.load(10)


def test_subset_checks_only_its_images(image, tmp_path):
    source = as_image_source([image, tmp_path / "gone.png", image])
    source.subset([0, 2]).check()
    with pytest.raises(ValueError, match=r"^image 1 "):
        source.subset([2, 1]).check()


def test_a_hundred_thousand_paths_cost_nothing():
    paths = [f"/nowhere/{i}.png" for i in range(100_000)]
    tracemalloc.start()
    source = as_image_source(paths)
    assert not is_rows(paths)
    assert source.describe(99_999) == "image 99999 ('/nowhere/99999.png')"
    with pytest.raises(FileNotFoundError, match=r"^image 0 "):
        source.check()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6
