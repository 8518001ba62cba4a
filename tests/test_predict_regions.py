"""Regions of detectors: one threshold for verdict and regions."""

import json
from functools import partial

import numpy as np
import pytest
from conftest import make_detector, make_reconpatch, make_recontrast

from skad import ScoreFusionDetector

SIZES = [(32, 32), (64, 64), (45, 33), (33, 130), (8000, 40), (37, 8000), (1500, 1100), (200, 2500)]
GEOMETRIES = ["squash", "pad", "crop"]


@pytest.fixture(scope="module")
def images():
    """Noise with a mark of which size and place differ, in images of all sizes."""
    rng = np.random.default_rng(0)
    found = []
    for n, (height, width) in enumerate(SIZES):
        image = np.repeat(rng.integers(90, 110, (height, width, 1), dtype=np.uint8), 3, axis=2)
        row, column = int(height * (0.2 + 0.07 * n)), int(width * (0.8 - 0.08 * n))
        image[row : row + height // (3 + n), column : column + width // (3 + n)] = 120 + 15 * n
        found.append(image)
    return found


def fusion(**params):
    """Members whose maps are averaged on one canvas, and those that meet on another."""
    first = make_detector(**params)
    second = make_detector(**{**params, "geometry": "squash", "image_size": 64})
    return ScoreFusionDetector([("first", first), ("second", second)])


MAKERS = {
    "patchcore": make_detector,
    "reconpatch": make_reconpatch,
    "recontrast": partial(make_recontrast, max_iter=2),
    "fusion": fusion,
}


@pytest.mark.filterwarnings("ignore:target_false_alarm_rate")
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", MAKERS)
def test_defective_exactly_where_there_is_a_region(name, geometry, good, images):
    det = MAKERS[name](geometry=geometry).fit(good[:6])
    scores = det.score_samples(images)
    ranked = np.sort(scores)
    # A score that is the threshold itself is good, and its image has no region.
    for threshold in (ranked[4], (ranked[2] + ranked[3]) / 2):
        det.offset_, det.heatmap_threshold_ = float(threshold), -float(threshold)
        verdicts = det.predict(images)
        assert set(verdicts) == {-1, 1}
        regions = det.predict_regions(images)
        np.testing.assert_array_equal(verdicts == -1, [len(found) > 0 for found in regions])
        assert regions.shapes == SIZES
        peaks = [found[0].peak for found in regions if found]
        np.testing.assert_array_equal(peaks, -scores[verdicts == -1])


def test_min_area_changes_regions_and_no_verdict(good, defective):
    det = make_detector().fit(good)
    assert (det.predict(defective) == -1).all()
    (largest,) = {max(region.area for region in det.predict_regions(defective[:1])[0])}
    some = det.predict_regions(defective[:1], min_area=largest)
    assert [region.area for region in some[0]] == [largest]
    assert det.predict_regions(defective[:1], min_area=largest + 1)[0] == []
    assert det.predict(defective[:1]) == [-1]


def test_patch_scores_have_an_outline_threshold_of_their_own(good, defective):
    det = make_detector(image_score="patch").fit(good)
    assert det.heatmap_threshold_ != -det.offset_
    regions = det.predict_regions(defective)
    assert all(regions)
    det.heatmap_threshold_ = regions[0][0].peak
    assert not det.predict_regions(defective)[0]
    assert det.predict(defective)[0] == -1


def test_where_the_defect_is(good, defective):
    det = make_detector().fit(good)
    line = json.loads(det.predict_regions(defective[:1]).to_json_lines())
    region = line["regions"][0]
    row, column = region["peak_row"], region["peak_column"]
    assert 8 <= row < 20
    assert 30 <= column < 42
