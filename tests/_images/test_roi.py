"""Reading regions of interest, and what of the canvas and of a grid lies in them."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from skad._images import Frame, Geometry, as_image_source, iter_batches, read_roi
from skad._images.roi import Mask


def half(height=40, width=60):
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return mask


def bright(image):
    return image.max(axis=2) > (128 if image.dtype == np.uint8 else 0.5)


def broken(image):
    raise KeyError("no lamp")


def too_small(image):
    return np.ones((3, 3))


def nothing(image):
    return np.zeros(image.shape[:2])


# --------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "make", [np.array, np.ndarray.tolist, lambda m: m.astype(np.uint8) * 255, lambda m: m * 0.5]
)
def test_masks_of_any_kind_of_numbers(make):
    np.testing.assert_array_equal(read_roi(make(half())).mask, half())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_masks_in_files(mode, tmp_path):
    if mode == "I;16":
        image = Image.fromarray(half().astype(np.uint16) * 7)
    elif mode == "P":
        image = Image.fromarray(half().astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 0, 0, 0])  # both black: the index counts
    else:
        image = Image.fromarray(half()).convert(mode)
    image.save(tmp_path / "mask.png")
    for path in (tmp_path / "mask.png", str(tmp_path / "mask.png")):
        np.testing.assert_array_equal(read_roi(path).mask, half())


def test_polygons_of_labelme(tmp_path):
    shapes = [
        {"shape_type": "rectangle", "points": [[10, 5], [30, 25]]},
        {"shape_type": "polygon", "points": [[40, 0], [60, 0], [60, 20], [40, 20]]},
        {"points": [[0, 30], [10, 30], [10, 40], [0, 40]]},
    ]
    (tmp_path / "a.json").write_text(
        json.dumps({"shapes": shapes, "imageHeight": 40, "imageWidth": 60})
    )
    expected = np.zeros((40, 60), bool)
    expected[5:25, 10:30] = True
    found = read_roi(tmp_path / "a.json").mask
    np.testing.assert_array_equal(found[:, :35][:28], expected[:, :35][:28])
    # Pillow draws the outline of a polygon, too: half a pixel on each side.
    assert abs(found[:, 36:].sum() - 20 * 20) <= 2 * 40
    assert abs(found[28:, :12].sum() - 10 * 10) <= 2 * 20


def test_annotations_of_coco(tmp_path):
    content = {
        "images": [{"id": 1, "height": 40, "width": 60}],
        "annotations": [
            {"image_id": 1, "bbox": [10, 5, 20, 20], "segmentation": []},
            {
                "image_id": 1,
                "bbox": [0, 0, 1, 1],
                "segmentation": [[40, 10, 55, 10, 55, 30, 40, 30]],
            },
        ],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    found = read_roi(path).mask
    assert found[:, :32].sum() == 20 * 20
    assert found[5:25, 10:30].all()
    assert found[10:30, 40:55].all()
    content["annotations"][0]["segmentation"] = {"counts": [1], "size": [40, 60]}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="run-length"):
        read_roi(path)
    content["images"].append({"id": 2, "height": 4, "width": 6})
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="describes 2 images"):
        read_roi(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 4)), "roi is empty"),
        (np.ones(4), "no mask of shape"),
        (np.ones((4, 4, 3)), "no mask of shape"),
        (np.full((4, 4), np.nan), "no mask of shape"),
        ([["a", "b"]], "no mask of shape"),
        ("absent.png", "there is no such file"),
    ],
)
def test_what_is_no_mask_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        read_roi(value)


def test_photographs_are_no_masks(tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
    Image.fromarray(photograph).save(tmp_path / "part.png")
    mask = np.pad(half(), 20).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=30)
    for value in (photograph, tmp_path / "part.png", tmp_path / "mask.jpg"):
        with pytest.raises(ValueError, match=r"different numbers, as a photograph.*save it as PNG"):
            read_roi(value)
    np.testing.assert_array_equal(
        read_roi(half() * np.arange(60)).mask, half() & (np.arange(60) > 0)
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"shapes": []}', '{"shapes": [{}]}'])
def test_other_files_are_refused_by_name(content, tmp_path):
    for name in ("roi.json", "roi.png"):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=name):
            read_roi(tmp_path / name)


def test_a_labelme_file_of_points_is_refused(tmp_path):
    shapes = [{"shape_type": "circle", "points": [[1, 1], [2, 2]]}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"shapes": shapes, "imageHeight": 4, "imageWidth": 6}))
    with pytest.raises(ValueError, match="a circle of 2 points; use polygons"):
        read_roi(path)


def test_functions_must_be_picklable():
    with pytest.raises(TypeError, match=r"cannot be pickled.*a function of a module"):
        read_roi(lambda image: image)
    roi = read_roi(bright)
    assert roi.of_shape() is None
    assert pickle.loads(pickle.dumps(roi)) == roi != read_roi(half())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (broken, "roi raised KeyError: 'no lamp'"),
        (too_small, "mask of 3 x 3 for an image of 40 x 60"),
        (nothing, "roi returned empty"),
    ],
)
def test_functions_that_find_no_mask_name_the_image(function, message):
    images = np.zeros((3, 40, 60, 3), np.uint8)
    batches = iter_batches(
        as_image_source(images), Geometry("squash", 32), 2, n_workers=0, roi=read_roi(function)
    )
    with pytest.raises(ValueError, match=message) as raised:
        list(batches)
    assert str(raised.value).startswith("image 0 (")


# --------------------------------------------------------------------------- on the canvas


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_lies_outside_is_grey(dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    image = image if dtype == np.uint8 else (image / 255).astype(np.float32)
    found = Mask(half()).blank(image)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[:, :30], image[:, :30])
    assert len(np.unique(found[:, 30:].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("mode", ["squash", "pad", "crop"])
def test_pixels_and_patches_of_a_half(mode):
    geometry = Geometry(mode, 48)
    pixels = geometry.pixels((40, 60), Mask(half()))
    top, bottom, left, _ = geometry.content(40, 60)
    expected = np.zeros((48, 48), bool)
    expected[top:bottom, left:24] = True
    np.testing.assert_array_equal(pixels, expected)
    (footprint,) = geometry.footprints([Frame((40, 60), Mask(half()))], (6, 6))
    (everywhere,) = geometry.footprints([Frame((40, 60))], (6, 6))
    expected = everywhere.mask.copy()
    expected[:, 3:] = False
    np.testing.assert_array_equal(footprint.mask, expected)


def test_a_patch_counts_by_its_share():
    mask = np.zeros((48, 48), bool)
    mask[:, :20] = True  # 2.5 cells of 8 pixels
    geometry = Geometry("squash", 48)
    (footprint,) = geometry.footprints([Frame((48, 48), Mask(mask))], (6, 6))
    assert footprint.mask.sum(axis=1).tolist() == [3] * 6
    mask = mask.copy()
    mask[:, 19] = False
    (footprint,) = geometry.footprints([Frame((48, 48), Mask(mask))], (6, 6))
    assert footprint.mask.sum(axis=1).tolist() == [2] * 6


def test_of_a_sliver_the_fullest_patch_counts():
    mask = np.zeros((48, 48), bool)
    mask[10:12, 20] = True
    (footprint,) = Geometry("squash", 48).footprints([Frame((48, 48), Mask(mask))], (6, 6))
    assert np.argwhere(footprint.mask).tolist() == [[1, 2]]
    assert np.argwhere(footprint.pixels).tolist() == [[10, 20], [11, 20]]


def test_a_sliver_at_the_rim_of_padding():
    """The image fills canvas rows 14 to 34; those of 8 pixels with their centre on it begin at 16."""
    mask = np.zeros((40, 96), bool)
    mask[:2, 40:56] = True
    (footprint,) = Geometry("pad", 48).footprints([Frame((40, 96), Mask(mask))], (6, 6))
    assert footprint.mask.sum() == 1
    assert footprint.mask[2, 2:4].any()
    assert footprint.pixels.any(axis=1).nonzero()[0].tolist() == [14]


def test_outside_of_the_crop_is_refused():
    mask = np.zeros((40, 80), bool)
    mask[:, :3] = True
    with pytest.raises(ValueError, match=r"nothing of the region of interest.*squash"):
        Geometry("crop", 32).pixels((40, 80), Mask(mask))


def test_batches_carry_masks():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + i, 30, 3)).astype(np.uint8) for i in range(5)]
    source = as_image_source(images)
    for n_workers in (0, 2):
        batches = list(
            iter_batches(
                source, Geometry("squash", 16), 2, n_workers=n_workers, roi=read_roi(bright)
            )
        )
        frames = [frame for batch in batches for frame in batch.frames]
        for frame, image in zip(frames, images, strict=True):
            np.testing.assert_array_equal(frame.mask.inside, bright(image))
