"""All that is found on an image in one pass: the same as by each method alone."""

import warnings
from functools import partial

import numpy as np
import pytest
from conftest import make_detector, make_recontrast
from exported_files import exported_line, of_several_sizes, varied_images
from PIL import Image
from sklearn.exceptions import NotFittedError

import skad
from skad import ScoreFusionDetector


def fusion(**params):
    members = [("first", make_detector(**params)), ("second", make_detector(n_neighbors=2))]
    return ScoreFusionDetector(members, **params)


def exported(**params):
    return skad.load(exported_line())


MAKERS = {
    "patchcore": make_detector,
    "patch scores": partial(make_detector, image_score="patch", geometry="pad"),
    "recontrast": partial(make_recontrast, max_iter=2),
    "fusion": fusion,
    "exported": exported,
}


@pytest.fixture(params=MAKERS)
def det(request):
    found = MAKERS[request.param](target_false_alarm_rate=0.4)
    return found if request.param == "exported" else found.fit(varied_images())


def test_finds_what_the_methods_find(det):
    images = of_several_sizes()
    found = list(det.inspect(images))
    np.testing.assert_array_equal([one.verdict for one in found], det.predict(images))
    np.testing.assert_array_equal([one.score for one in found], det.score_samples(images))
    np.testing.assert_array_equal([one.p_value for one in found], det.anomaly_p_value(images))
    regions = det.predict_regions(images)
    assert [one.shape for one in found] == regions.shapes
    for one, wanted, heatmap in zip(found, regions, det.predict_heatmap(images), strict=True):
        assert [region.box for region in one.regions] == [region.box for region in wanted]
        np.testing.assert_array_equal(one.heatmap(), heatmap)
    assert {one.verdict for one in found} == {-1, 1}


def test_small_regions_are_left_out(det):
    images = of_several_sizes()
    found = list(det.inspect(images, min_area=100))
    assert [one.verdict for one in found] == det.predict(images).tolist()
    listed = [[region.area for region in one.regions] for one in found]
    wanted = det.predict_regions(images, min_area=100)
    assert listed == [[region.area for region in regions] for regions in wanted]


def test_image_after_image(monkeypatch):
    det = make_detector(batch_size=1).fit(varied_images())
    scored = []
    iter_scores = type(det)._iter_scores

    def noted(self, X, maps):
        for result in iter_scores(self, X, maps):
            scored.append(result)
            yield result

    monkeypatch.setattr(type(det), "_iter_scores", noted)
    inspections = det.inspect(varied_images(4))
    assert not scored
    next(inspections)
    assert len(scored) == 1


def test_thresholds_are_those_of_the_call():
    det = make_detector().fit(varied_images())
    images = of_several_sizes()
    before, inspections = det.predict(images), det.inspect(images)
    det.set_params(target_false_alarm_rate=0.9)
    assert (det.predict(images) != before).any()
    assert [one.verdict for one in inspections] == before.tolist()


def test_without_calibration_there_is_no_p_value():
    det = make_detector(contamination=0.1).fit(varied_images(1))
    (found,) = det.inspect(varied_images(1, seed=1))
    assert found.p_value is None


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(NotFittedError):
        make_detector().inspect(varied_images(1))
    det = make_detector().fit(varied_images())
    with pytest.raises(ValueError, match=r"image 1 .*no such file"):
        list(det.inspect([varied_images(1)[0], tmp_path / "missing.png"]))


def test_the_caller_makes_remarks_of_his_own(tmp_path):
    """Between two images, other calls warn as ever."""
    det = make_detector().fit(varied_images())
    pages = [Image.fromarray(image) for image in varied_images(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in det.inspect([tmp_path / "pages.tif"] * 3):
            first = len(caught)
            det.predict([tmp_path / "pages.tif"])
            assert len(caught) == first + 1
    assert len(caught) == 4
    assert all("pages" in str(one.message) for one in caught)
