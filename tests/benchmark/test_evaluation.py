"""Figures of a fitted detector."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_detector
from PIL import Image
from sklearn.metrics import f1_score

from skad.benchmark import evaluate
from skad.benchmark._evaluation import _pixel_figures, kind_figures
from skad.datasets import DATASETS


@pytest.fixture(scope="module")
def part(parts):
    return DATASETS["folder"].load(parts, "bottle")


@pytest.fixture(scope="module")
def detector(part):
    return make_detector(contamination=0.2).fit(part.X_train)


def test_thinned_maps_measure_about_the_same(part, detector):
    args = (detector, part.X_test, part.y_test, part.masks_test)
    full, thin = evaluate(*args, map_size=None), evaluate(*args, map_size=16)
    assert full["pixel_auroc"] == pytest.approx(thin["pixel_auroc"], abs=0.02)
    assert full["pixel_auroc"] != thin["pixel_auroc"]
    assert full["image_auroc"] == thin["image_auroc"]
    assert "aupro" not in evaluate(*args[:3])
    # A column of a table, with NaN for images without a mask.
    column = pd.Series([m or np.nan for m in part.masks_test], index=range(9, 15))
    assert evaluate(*args[:3], column, map_size=16)["aupro"] == thin["aupro"]


def test_scores_and_pixels_above_the_threshold(part, detector):
    args = (detector, part.X_test, part.y_test, part.masks_test)
    figures, scores = evaluate(*args, map_size=None, return_scores=True)
    maps, expected = detector.predict_heatmap(part.X_test, return_scores=True)
    np.testing.assert_array_equal(scores, expected)
    masks = np.stack(
        [
            np.zeros(maps[0].shape) if m is None else np.asarray(Image.open(m))
            for m in part.masks_test
        ]
    )
    called = maps > detector.heatmap_threshold_
    assert 0 < figures["pixel_f1"] == pytest.approx(f1_score(masks.ravel() > 0, called.ravel()))


def test_pixels_outside_a_crop_count_neither_way():
    truth = [np.array([[True, True, False]])]
    figures = _pixel_figures(truth, [np.array([[np.nan, 2.0, 1.0]])], 1.0)
    assert figures["pixel_f1"] == 1.0


def test_masks_of_another_size(part, detector):
    masks = [None if mask is None else np.ones((9, 9)) for mask in part.masks_test]
    with pytest.raises(ValueError, match=r"has shape \(9, 9\), its image \(40, 48\): both must"):
        evaluate(detector, part.X_test, part.y_test, masks)


def test_kinds_of_defects_each_with_all_good_images():
    """ReContrast, Table A7: structural and logical anomalies of MVTec LOCO AD."""
    y = np.array([1, 1, -1, -1, -1])
    scores = np.array([5.0, 3.0, 1.0, 4.0, 2.0])
    kinds = ["good", "good", "structural_anomalies", "logical_anomalies", "logical_anomalies"]
    figures = kind_figures(y, scores, kinds)
    assert figures == {
        "image_auroc_structural": 1.0,
        "image_auroc_logical": 0.75,
        "image_auroc_mean": 0.875,
    }
    assert kind_figures(y, scores, ["good", "good", "crack", "crack", "crack"]) == {}
    assert kind_figures(y[:3], scores[:3], kinds[:3]) == {}
