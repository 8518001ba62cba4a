"""Masks, scores and maps: what is no finite number is refused wherever it is handed over."""

import numpy as np
import pytest
from conftest import make_detector
from PIL import Image

from skad._common.numbers import marked
from skad._images import as_image_source, is_rows
from skad.datasets import read_mask
from skad.metrics import (
    PixelCounts,
    aupro,
    aupro_per_image,
    discriminability,
    f1_optimal_threshold,
    image_auroc,
    pixel_auroc,
    threshold_report,
)
from skad.model_selection._scorers import as_mask

TRUTH = np.array([[0, 1, 0], [0, 1, 1]])
MAP = np.linspace(0, 1, 6).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float64"])
def test_masks_of_numbers(dtype):
    found = marked(TRUTH.astype(dtype), "x")
    assert found.dtype == bool
    np.testing.assert_array_equal(found, TRUTH == 1)


WRONG = {
    "text": (TRUTH.astype(str), "dtype <U"),
    "bytes": (TRUTH.astype("S1"), r"dtype \|S1"),
    "object": (TRUTH.astype(object), "dtype object"),
    "complex": (TRUTH.astype(complex), "dtype complex"),
    "dates": (TRUTH.astype("datetime64[s]"), "dtype datetime64"),
    "NaN": (np.where(TRUTH == 1, np.nan, 0.0), "NaN or infinity"),
    "infinity": (np.where(TRUTH == 1, -np.inf, 0.0), "NaN or infinity"),
    "masked": (np.ma.array(TRUTH, mask=TRUTH == 1), r"masked values.*a\.filled\(value\)"),
}


@pytest.mark.parametrize("form", WRONG)
@pytest.mark.parametrize("metric", [pixel_auroc, aupro, aupro_per_image])
def test_a_mask_of_anything_else_marks_nothing(metric, form):
    mask, message = WRONG[form]
    with pytest.raises(ValueError, match=f"^mask 1: .*{message}"):
        metric([TRUTH, mask], [MAP, MAP])


@pytest.mark.parametrize("form", WRONG)
def test_in_scorers_and_pictures_too(form):
    pytest.importorskip("matplotlib")
    from skad.inspection import HeatmapDisplay, PixelRocDisplay
    from skad.inspection._shown import Shown

    mask, message = WRONG[form]
    image = np.zeros((2, 3, 3), np.uint8)
    works = (
        lambda: as_mask(mask, (2, 3), "mask 0"),
        lambda: PixelRocDisplay.from_predictions([mask], [MAP]),
        lambda: HeatmapDisplay([image], [MAP], 0.5, masks=[mask]),
        lambda: PixelCounts().update([mask], [MAP]),
        lambda: Shown.of(image, MAP, mask),
    )
    for work in works:
        with pytest.raises(ValueError, match=message):
            work()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_of_a_mask_with_holes(tmp_path, value):
    Image.fromarray(np.where(TRUTH == 1, value, 0).astype(np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(ValueError, match=r"^the mask '.*m\.tif': contains NaN or infinity"):
        read_mask(tmp_path / "m.tif")


# --------------------------------------------------------------------------- masked arrays

IMAGES = np.ma.array(np.full((3, 20, 24), 90, np.uint8), mask=False)
IMAGES[1, 4, 5] = np.ma.masked
TABLE = np.ma.array(np.arange(12.0).reshape(3, 4), mask=False)
TABLE[2, 1] = np.ma.masked


@pytest.mark.parametrize("X", [IMAGES, TABLE, list(TABLE), list(IMAGES)], ids=range(4))
def test_what_is_masked_in_images_is_no_pixel(X):
    with pytest.raises(ValueError, match=r"masked values.*a\.filled\(value\)"):
        make_detector().fit(X)


def test_a_masked_array_that_masks_nothing_is_an_array():
    source = as_image_source(list(IMAGES))
    np.testing.assert_array_equal(source.load(0)[:, :, 0], 90)
    assert is_rows(TABLE[:2])


@pytest.mark.parametrize(
    "metric", [image_auroc, f1_optimal_threshold, lambda y, s: threshold_report(y, s, 0.5)]
)
def test_masked_scores(metric):
    y, scores = [1, 1, -1], np.ma.array([3.0, 2.0, 9.0], mask=[0, 0, 1])
    with pytest.raises(ValueError, match=r"scores: .*a\.filled"):
        metric(y, scores)
    metric(y, np.ma.array([3.0, 2.0, 9.0]))
    with pytest.raises(ValueError, match=r"defective images: .*a\.filled"):
        discriminability([1.0], scores)


def test_masked_maps():
    heatmap = np.ma.array(MAP, mask=TRUTH)
    with pytest.raises(ValueError, match=r"^heat map 0: .*a\.filled"):
        pixel_auroc([TRUTH], [heatmap])
