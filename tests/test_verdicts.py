"""Moving the threshold without a fit, and out-of-sample scores of training images; `skad._verdicts`."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import tiny_resnet  # noqa: F401  registers the backbone
from conftest import make_detector, make_reconpatch, make_recontrast
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skad
from skad import ScoreFusionDetector
from skad._scoring.thresholds import threshold_for_rate
from skad.utils.estimator_checks import good_images


def make_fusion(**params):
    members = [("a", make_detector()), ("b", make_detector(layers=(2,)))]
    return ScoreFusionDetector(members, **{"target_false_alarm_rate": 0.2, **params})


MAKERS = {
    "patchcore": make_detector,
    # Whitening magnifies rounding where images hardly differ: scores would tie.
    "reconpatch": lambda **params: make_reconpatch(epochs=1, whitening=0, **params),
    "recontrast": lambda **params: make_recontrast(backbone="tiny_resnet", max_iter=2, **params),
    "fusion": make_fusion,
}
FRESH = good_images(10, seed=9)
CHANGED = 255 - FRESH  # another lamp


@pytest.fixture(scope="module", params=MAKERS)
def kept(request, good):
    """Makes detectors of one kind, and one that is fitted: not to be changed."""
    make = MAKERS[request.param]
    return make, make().fit(good)


@pytest.fixture
def fitted(kept):
    return copy.deepcopy(kept[1])


def thresholds(det):
    return det.offset_, det.heatmap_threshold_, det._margin, det.target_false_alarm_rate


def state(det):
    return pickle.dumps({k: v for k, v in det.__getstate__().items() if "callback" not in k})


class TestRate:
    def test_the_same_by_calibrate_by_set_params_and_by_a_fit(self, kept, fitted, good, defective):
        make, before = kept
        refit = make(target_false_alarm_rate=0.4).fit(good)
        by_set_params = copy.deepcopy(before).set_params(target_false_alarm_rate=0.4)
        assert fitted.calibrate(target_false_alarm_rate=0.4) is fitted
        assert thresholds(fitted) == thresholds(by_set_params) == thresholds(refit)
        assert fitted.offset_ > before.offset_
        assert fitted.heatmap_threshold_ == -fitted.offset_
        for det in (fitted, by_set_params):
            for method in ("score_samples", "anomaly_p_value", "predict"):
                expected = getattr(refit, method)(defective)
                np.testing.assert_array_equal(getattr(det, method)(defective), expected)

    def test_back_and_forth(self, fitted):
        before = thresholds(fitted)
        fitted.set_params(target_false_alarm_rate=0.4).calibrate(target_false_alarm_rate=0.2)
        assert thresholds(fitted) == before

    def test_two_thresholds_follow_together(self, good):
        det = make_detector(image_score="patch").fit(good)
        refit = make_detector(image_score="patch", target_false_alarm_rate=0.4).fit(good)
        assert thresholds(det.calibrate(target_false_alarm_rate=0.4)) == thresholds(refit)
        assert det.heatmap_threshold_ != -det.offset_

    def test_by_a_pipeline(self, kept, good):
        make, _ = kept
        pipeline = make_pipeline(FunctionTransformer(), make()).fit(good)
        pipeline.set_params(**{f"{pipeline.steps[-1][0]}__target_false_alarm_rate": 0.4})
        det = pipeline[-1]
        assert det.offset_ == threshold_for_rate(det.calibration_scores_, 0.4) - det._margin
        pipeline.predict(good[:1])

    def test_assigning_is_an_error_with_the_remedy(self, fitted, good):
        fitted.target_false_alarm_rate = 0.4
        with pytest.raises(ValueError, match=r"use set_params\(target_false_alarm_rate=0\.4\)"):
            fitted.predict(good)
        fitted.set_params(target_false_alarm_rate=0.4).predict(good[:1])
        assert fitted.offset_ > fitted.calibration_scores_[0]

    def test_members_of_an_ensemble_have_no_influence(self, good, defective):
        det = make_fusion().fit(good)
        before, scores = thresholds(det), det.score_samples(defective)
        det.set_params(a__target_false_alarm_rate=0.4)
        assert det.estimators_[0].target_false_alarm_rate == 0.4
        det.calibrate(target_false_alarm_rate=0.2).estimators_[1].calibrate(FRESH)
        np.testing.assert_array_equal(det.score_samples(defective), scores)
        assert thresholds(det) == before

    def test_of_a_detector_that_is_not_fitted(self, kept, good):
        det = kept[0]().set_params(target_false_alarm_rate=7)  # refused by fit, as in scikit-learn
        with pytest.raises(ValueError, match="not fitted"):
            det.calibrate(target_false_alarm_rate=0.4)
        with pytest.raises(ValueError, match="target_false_alarm_rate"):
            det.fit(good)

    def test_set_beside_what_needs_a_fit(self, good):
        """Once that is set back, the rate is the one that was set."""
        det = make_detector().fit(good)
        det.set_params(contamination=0.1, target_false_alarm_rate=0.4)
        with pytest.raises(ValueError, match="contamination changed after fit"):
            det.predict(good)
        det.set_params(contamination="auto").predict(good)
        assert thresholds(det) == thresholds(make_detector(target_false_alarm_rate=0.4).fit(good))

    def test_warns_where_scores_are_too_few(self, fitted):
        with pytest.warns(UserWarning, match=r"target_false_alarm_rate=0\.01") as caught:
            fitted.set_params(target_false_alarm_rate=0.01)
        assert caught[0].filename == __file__
        assert fitted.offset_ < fitted.calibration_scores_[0]


class TestFreshImages:
    def test_give_threshold_and_p_values_and_change_no_score(self, fitted, defective):
        before = fitted.score_samples(defective)
        fresh = fitted.score_samples(CHANGED)
        fitted.calibrate(CHANGED)
        np.testing.assert_array_equal(fitted.calibration_scores_, np.sort(fresh))
        assert fitted.offset_ == threshold_for_rate(fresh, 0.2) - fitted._margin
        assert fitted.heatmap_threshold_ == -fitted.offset_
        np.testing.assert_array_equal(fitted.score_samples(defective), before)
        ranks = fitted.anomaly_p_value(CHANGED) * (len(CHANGED) + 1)
        expected = 1 + (fresh[None] <= fresh[:, None] + fitted._margin).sum(1)
        np.testing.assert_allclose(ranks, expected)
        assert (fitted.predict(CHANGED) == -1).sum() == 2  # 0.2 of 10; all before, with a new lamp

    def test_outlines_of_scores_by_patch(self, good):
        det = make_detector(image_score="patch").fit(good).calibrate(CHANGED)
        peaks = [found.peak for found in det._as_fitted()._iter_maps(CHANGED)]
        assert det.heatmap_threshold_ == -threshold_for_rate(np.negative(peaks), 0.2)
        assert det.offset_ == threshold_for_rate(det.score_samples(CHANGED), 0.2)

    def test_with_another_rate_at_once_and_afterwards(self, fitted):
        at_once = copy.deepcopy(fitted).calibrate(FRESH, target_false_alarm_rate=0.4)
        fitted.calibrate(FRESH).set_params(target_false_alarm_rate=0.4)
        assert thresholds(at_once) == thresholds(fitted)
        assert at_once.target_false_alarm_rate == 0.4

    def test_with_a_percentile_of_scores(self, kept, good):
        det = kept[0](contamination=0.25).fit(good)
        assert det.calibrate(FRESH).offset_ == np.percentile(det.score_samples(FRESH), 25)
        with pytest.raises(ValueError, match=r"contamination=0\.25 sets the threshold"):
            det.calibrate(target_false_alarm_rate=0.4)

    def test_after_a_fit_on_one_image(self, good):
        det = make_detector(contamination=0.1).fit(good[:1])
        assert (det.calibrate(FRESH).anomaly_p_value(FRESH) <= 1).all()

    def test_files_keep_it(self, fitted, tmp_path, defective):
        fitted.calibrate(CHANGED, target_false_alarm_rate=0.3)
        skad.save(fitted, tmp_path / "det.skad")
        joblib.dump(fitted, tmp_path / "det.joblib")
        for copied in (
            pickle.loads(pickle.dumps(fitted)),
            skad.load(tmp_path / "det.skad"),
            joblib.load(tmp_path / "det.joblib"),
        ):
            assert thresholds(copied) == thresholds(fitted)
            p = fitted.anomaly_p_value(defective)
            np.testing.assert_array_equal(copied.anomaly_p_value(defective), p)
            copied.set_params(target_false_alarm_rate=0.5)
            expected = threshold_for_rate(fitted.calibration_scores_, 0.5)
            assert copied.offset_ == expected - copied._margin

    def test_partial_fit_goes_on_from_them(self, good):
        det = make_detector().fit(good).calibrate(CHANGED)
        fresh = det.calibration_scores_
        det.partial_fit(FRESH[:4])
        assert len(det.calibration_scores_) == len(fresh) + 4
        assert np.isin(fresh, det.calibration_scores_).all()
        assert len(det.training_scores_) == det.n_images_ == len(good) + 4


@pytest.mark.parametrize(
    ("X", "rate", "error"),
    [
        (None, None, "fresh good images, or a target_false_alarm_rate"),
        (None, 0.0, "target_false_alarm_rate"),
        (FRESH, 2.0, "target_false_alarm_rate"),
        (FRESH[:1], None, "n_samples=1: .*at least two"),
        ([], None, "0 sample"),
        (["absent.png"], None, r"absent\.png"),
    ],
)
def test_what_fails_leaves_the_detector_as_it_was(kept, X, rate, error):
    det = kept[1]
    before = state(det)
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        det.calibrate(X, target_false_alarm_rate=rate)
    assert state(det) == before


def test_a_rate_that_is_refused_is_not_set(kept):
    det = kept[1]
    before = thresholds(det)
    with pytest.raises(ValueError, match="target_false_alarm_rate"):
        det.set_params(target_false_alarm_rate=1.5)
    assert thresholds(det) == before
    det.predict(FRESH[:1])


class TestTrainingScores:
    def test_in_the_order_of_the_good_images(self, kept, good, defective):
        make, alone = kept
        order = [3, 1, 2, 0, *range(4, 12)]
        X = np.concatenate([defective, good[order]])
        det = make().fit(X, np.repeat([-1, 1], [4, 12]))
        assert det.training_scores_.shape == alone.training_scores_.shape == (12,)
        known = ~np.isnan(alone.training_scores_)
        np.testing.assert_array_equal(
            np.sort(alone.training_scores_[known]), alone.calibration_scores_
        )
        if isinstance(det, ScoreFusionDetector):  # medians of z-scores depend on all images
            np.testing.assert_allclose(
                det.training_scores_.argmin(), order.index(alone.training_scores_.argmin())
            )

    def test_of_one_image(self, good):
        det = make_detector(contamination=0.1).fit(good[:1])
        assert np.isnan(det.training_scores_).tolist() == [True]

    def test_a_fusion_has_those_that_all_members_held_out(self, good):
        members = [("bank", make_detector()), ("network", make_recontrast(max_iter=1))]
        det = ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
        held = det.estimators_[1].validation_indices_
        np.testing.assert_array_equal(np.flatnonzero(~np.isnan(det.training_scores_)), held)

    def test_fit_predict_compares_them(self, kept, good, defective):
        """What is in the bank would be good in any case."""
        X = np.concatenate([defective[:1], good[1:]])
        det = kept[0]()
        found = det.fit_predict(X)
        scores = np.where(
            np.isnan(det.training_scores_), det.score_samples(X), det.training_scores_
        )
        np.testing.assert_array_equal(found, np.where(scores >= det.offset_, 1, -1))
        if not np.isnan(det.training_scores_).any():
            assert found[0] == -1

    def test_fit_predict_of_labelled_images(self, kept, good, defective):
        X, y = np.concatenate([defective, good]), np.repeat([-1, 1], [4, 12])
        det = kept[0]()
        found = det.fit_predict(X, y)
        np.testing.assert_array_equal(found[:4], det.predict(defective))
        known = ~np.isnan(det.training_scores_)
        expected = np.where(det.training_scores_ >= det.offset_, 1, -1)
        np.testing.assert_array_equal(found[4:][known], expected[known])

    def test_with_a_percentile_fit_predict_is_fit_then_predict(self, kept, good):
        make, _ = kept
        found = make(contamination=0.25).fit_predict(good)
        np.testing.assert_array_equal(found, make(contamination=0.25).fit(good).predict(good))
        assert (found == -1).sum() == 3
