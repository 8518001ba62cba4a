"""Score fusion: the formula, the two levels, maps of different grids, and the meta-estimator."""

import ast
import inspect
import pickle

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skad import PatchCoreDetector, ReConPatchDetector, ScoreFusionDetector
from skad._scoring.fusing import robust_scale
from skad.utils.estimator_checks import modules_in_pickle

RATE = 0.2


def make_fusion(**params):
    """Two members on the same grid."""
    members = [("a", make_detector()), ("b", make_detector(layers=(2,), distance="squared"))]
    defaults = {"estimators": members, "target_false_alarm_rate": RATE}
    return ScoreFusionDetector(**{**defaults, **params})


def make_mixed(**params):
    """Members of different squares, grids and geometries."""
    members = [("a", make_detector()), ("b", make_detector(image_size=48, geometry="crop"))]
    return make_fusion(estimators=members, **params)


@pytest.fixture(scope="module")
def fitted(good):
    return make_fusion().fit(good)


@pytest.fixture(scope="module")
def mixed(good):
    return make_mixed().fit(good)


def scale(scores):
    median = np.median(scores)
    return median, 1.4826 * np.median(np.abs(scores - median))


def up_sampled(grid, size):
    canvas = torch.from_numpy(grid)[None, None]
    return torch.nn.functional.interpolate(canvas, size=(size, size), mode="bilinear")[0, 0].numpy()


def training_scores(member, X):
    det = clone(member)
    return det, det._fit(X, None, in_ensemble=True)


class TestScale:
    def test_modified_z_score(self):
        found = robust_scale(np.array([1.0, 2, 3, 4, 100]))
        assert found.median == 3
        np.testing.assert_allclose(
            found.z(np.array([3.0, 4.4826, 0.0])), [0, 1, -2.023472278429786], atol=1e-12
        )

    def test_more_than_half_equal(self):
        found = robust_scale(np.array([0.0, 0, 0, 0, 5]))
        assert found.spread == pytest.approx((np.pi / 2) ** 0.5)

    @pytest.mark.parametrize(("value", "spread"), [(0.0, 1.0), (-3.0, 3.0), (1e-30, 1e-30)])
    def test_all_equal(self, value, spread):
        found = robust_scale(np.full(7, value))
        assert found.spread == pytest.approx(spread)
        assert found.z(value) == 0

    def test_rounding_is_no_spread(self):
        scores = 5 + 1e-15 * np.arange(9)
        assert robust_scale(scores).spread == pytest.approx(5)

    def test_nan_is_left_out(self):
        assert robust_scale(np.array([1.0, np.nan, 3, 5])) == robust_scale(np.array([1.0, 3, 5]))


class TestFusion:
    @pytest.mark.parametrize("image_score", ["map", "patch"])
    def test_map_level_is_the_maximum_of_the_mean_z_map(self, good, defective, image_score):
        fitted = make_fusion(image_score=image_score).set_params(a__smoothing=0, b__smoothing=0)
        fitted.fit(good)
        z = []
        for _, member in fitted.estimators:
            det, scores = training_scores(member, good)
            median, spread = scale(scores.grids)
            grids = np.concatenate(
                [s.grid for _, s in det._as_fitted()._iter_scores(defective, maps=True)]
            )
            z.append((grids - median) / spread)
        expected = np.mean(z, axis=0)
        if image_score == "map":
            expected = np.stack([up_sampled(grid, 32) for grid in expected])
        expected = expected.reshape(4, -1).max(axis=1)
        np.testing.assert_allclose(-fitted.score_samples(defective), expected, rtol=1e-12)

    def test_image_level_is_the_mean_z_score(self, good, defective):
        fusion = make_fusion(level="image").fit(good)
        z = []
        for _, member in fusion.estimators:
            det, scores = training_scores(member, good)
            median, spread = scale(scores.out_of_sample)
            z.append((-det.score_samples(defective) - median) / spread)
        np.testing.assert_allclose(-fusion.score_samples(defective), np.mean(z, axis=0), rtol=1e-12)

    def test_scale_of_a_member_does_not_matter(self, good, defective):
        """Eq. 11 undoes what multiplies or moves a member's scores."""
        one = make_fusion(estimators=[("a", make_detector())]).fit(good)
        det, scores = training_scores(make_detector(), good)
        median, spread = scale(scores.grids)
        # Smoothing is linear, and its weights sum to 1.
        expected = (det.score_samples(defective) + median) / spread
        np.testing.assert_allclose(one.score_samples(defective), expected, rtol=1e-12)

    def test_heat_map_is_the_mean_of_normalised_maps(self, good, defective, fitted):
        expected = []
        for _, member in fitted.estimators:
            det, scores = training_scores(member, good)
            median, spread = scale(scores.grids)
            expected.append((det.predict_heatmap(defective) - median) / spread)
        maps, scores = fitted.predict_heatmap(defective, return_scores=True)
        np.testing.assert_allclose(maps, np.mean(expected, axis=0), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(scores, fitted.score_samples(defective))
        assert maps.dtype == np.float32

    @pytest.mark.parametrize("level", ["map", "image"])
    def test_threshold_from_out_of_sample_scores(self, good, level):
        fusion = make_fusion(level=level).fit(good)
        assert fusion.calibration_scores_.shape == (12,)
        assert (np.diff(fusion.calibration_scores_) >= 0).all()
        # Scored with its own patches in the banks, an image looks better.
        assert np.median(fusion.score_samples(good)) > np.median(fusion.calibration_scores_)
        expected = np.quantile(fusion.calibration_scores_, RATE, method="weibull")
        assert fusion.offset_ == expected

    def test_calibration_at_image_level(self, good):
        fusion = make_fusion(level="image").fit(good)
        z = []
        for _, member in fusion.estimators:
            scores = training_scores(member, good)[1].out_of_sample
            median, spread = scale(scores)
            z.append((scores - median) / spread)
        expected = np.sort(-np.mean(z, axis=0))
        np.testing.assert_allclose(fusion.calibration_scores_, expected, atol=1e-12)

    def test_finds_defects_where_they_are(self, fitted, defective):
        assert (fitted.predict(defective) == -1).all()
        assert (fitted.anomaly_p_value(defective) == 1 / 13).all()
        peak = np.unravel_index(fitted.predict_heatmap(defective)[0].argmax(), (40, 48))
        assert 8 <= peak[0] < 20
        assert 30 <= peak[1] < 42

    def test_contamination_is_a_percentile_of_training_scores(self, good):
        fusion = make_fusion(contamination=0.25).fit(good)
        assert (fusion.predict(good) == -1).sum() == 3

    def test_other_methods_join(self, good, defective):
        members = [("patchcore", make_detector()), ("reconpatch", make_reconpatch(b=3))]
        fusion = make_fusion(estimators=members).fit(good)
        assert (fusion.predict(defective) == -1).all()


class TestDifferentGrids:
    def test_fused_in_image_coordinates(self, mixed, defective):
        maps = mixed.predict_heatmap(defective)
        assert maps.shape == (4, 40, 48)
        # 48 / 0.875 = 55 pixels tall, cropped to 48: a rim that only the other member sees.
        assert np.isfinite(maps).all()
        assert (mixed.predict(defective) == -1).all()

    def test_nan_where_no_member_looked(self, good):
        members = [
            (name, make_detector(image_size=s, geometry="crop"))
            for name, s in (("a", 32), ("b", 48))
        ]
        maps = make_fusion(estimators=members).fit(good).predict_heatmap(good[:1])
        assert np.isnan(maps[0, :, 0]).all()
        assert np.isfinite(maps[0, 20, 24])

    def test_score_is_the_maximum_of_the_map_on_the_common_canvas(self, mixed, defective):
        """As the image: 48 pixels wide; its 40 rows would miss some of the peaks of 48."""
        scores = -mixed.score_samples(defective)
        peaks = np.nanmax(mixed.predict_heatmap(defective), axis=(1, 2))
        assert (peaks <= scores * (1 + 1e-6)).all()
        np.testing.assert_allclose(peaks, scores, rtol=0.01)

    def test_by_patch_it_is_that_of_the_unsmoothed_map(self, good, defective):
        by_patch = make_mixed(image_score="patch").fit(good)
        rough = make_mixed().set_params(a__smoothing=0.0, b__smoothing=0.0).fit(good)
        np.testing.assert_allclose(
            by_patch.score_samples(defective), rough.score_samples(defective), rtol=1e-6
        )

    def test_images_of_different_sizes(self, mixed, defective):
        images = [defective[0], defective[1][:, :40]]
        maps = mixed.predict_heatmap(images)
        assert [m.shape for m in maps] == [(40, 48), (40, 40)]

    @pytest.mark.parametrize("make", [make_fusion, make_mixed])
    def test_padding(self, make, good, defective):
        fusion = make().set_params(a__geometry="pad", b__geometry="pad").fit(good)
        assert np.isfinite(fusion.score_samples(defective)).all()
        assert (fusion.predict(defective) == -1).all()


class TestContract:
    def test_neither_batch_nor_order_matters(self, fitted, good):
        scores = fitted.score_samples(good)
        np.testing.assert_array_equal(fitted.score_samples(good[::-1]), scores[::-1])
        np.testing.assert_array_equal(fitted.score_samples(good[3:4]), scores[3:4])
        other = make_fusion().set_params(a__batch_size=5, b__batch_size=3).fit(good)
        np.testing.assert_array_equal(other.score_samples(good), scores)

    def test_repeatable(self, fitted, good, defective):
        again = clone(fitted).fit(good)
        np.testing.assert_array_equal(
            again.predict_heatmap(defective), fitted.predict_heatmap(defective)
        )
        np.testing.assert_array_equal(again.calibration_scores_, fitted.calibration_scores_)

    def test_defective_images_never_train(self, fitted, good, defective):
        X, y = np.concatenate([defective, good]), np.repeat([-1, 1], [4, 12])
        labelled = make_fusion(contamination=0.25).fit(X, y)
        alone = make_fusion(contamination=0.25).fit(good)
        assert labelled.offset_ == alone.offset_
        assert labelled.n_images_ == 12
        np.testing.assert_array_equal(
            make_fusion().fit(X, y).score_samples(X), fitted.score_samples(X)
        )

    def test_one_warning_about_the_coding(self, good):
        with pytest.warns(UserWarning, match=r"y holds \[0, 1\] and is not used") as caught:
            make_fusion().fit(good, np.repeat([0, 1], 6))
        assert sum("y holds" in str(w.message) for w in caught) == 1

    def test_pickle_holds_numpy_and_no_training_scores(self, fitted, defective):
        dumped = pickle.dumps(fitted)
        assert modules_in_pickle(fitted) <= {"skad", "numpy", "_codecs", "copy_reg"}
        assert b"_training_scores" not in dumped
        np.testing.assert_array_equal(
            pickle.loads(dumped).score_samples(defective), fitted.score_samples(defective)
        )

    def test_rows(self, good, defective):
        shape = {"a__image_shape": (40, 48, 3), "b__image_shape": (40, 48, 3)}
        fusion = make_fusion().set_params(**shape).fit(good.reshape(12, -1))
        assert fusion.n_features_in_ == 40 * 48 * 3
        np.testing.assert_array_equal(
            fusion.score_samples(defective.reshape(4, -1)),
            make_fusion().fit(good).score_samples(defective),
        )


class TestMetaEstimator:
    def test_members_are_cloned(self, fitted):
        assert not hasattr(fitted.estimators[0][1], "bank_")
        assert fitted.named_estimators_.a is fitted.estimators_[0]

    def test_parameters_by_name(self):
        fusion = make_fusion().set_params(a__n_neighbors=3, level="image", b="drop")
        assert fusion.get_params()["a__n_neighbors"] == 3
        assert fusion.estimators[1] == ("b", "drop")
        assert clone(fusion).get_params()["a__n_neighbors"] == 3

    def test_dropped_members_are_not_fitted(self, good, defective):
        fusion = make_fusion().set_params(b="drop").fit(good)
        assert len(fusion.estimators_) == 1
        one = make_fusion(estimators=[("a", make_detector())]).fit(good)
        np.testing.assert_array_equal(fusion.score_samples(defective), one.score_samples(defective))

    def test_free_parameters_reach_the_fitted_members(self, good, defective):
        fusion = make_fusion().fit(good)
        scores = fusion.score_samples(defective)
        fusion.set_params(a__device="cpu", b__batch_size=1)
        assert fusion.estimators_[0].device == "cpu"
        assert fusion.estimators_[1].batch_size == 1
        np.testing.assert_array_equal(fusion.score_samples(defective), scores)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"a__n_neighbors": 2}, "n_neighbors changed after fit"),
            ({"level": "image"}, "level changed after fit"),
            ({"image_score": "patch"}, "image_score changed after fit"),
            ({"b": "drop"}, "estimators changed after fit"),
        ],
    )
    def test_changed_after_fit(self, good, change, message):
        fusion = make_fusion().fit(good).set_params(**change)
        with pytest.raises(ValueError, match=message):
            fusion.score_samples(good)

    def test_grid_search(self, good, defective):
        X, y = np.concatenate([good, defective]), np.repeat([1, -1], [12, 4])
        grid = {"a__n_neighbors": [1, 2], "level": ["map", "image"], "b": ["drop", make_detector()]}
        search = GridSearchCV(make_fusion(), grid, cv=StratifiedKFold(2)).fit(X, y)
        assert search.best_score_ == 1.0

    def test_last_step_of_a_pipeline(self, good, defective):
        crop = FunctionTransformer(lambda images: images[:, 2:-2])
        pipeline = make_pipeline(crop, make_fusion()).fit(good)
        assert (pipeline.predict(defective) == -1).all()

    def test_html(self):
        assert "PatchCoreDetector" in make_fusion()._repr_html_()

    def test_verbose(self, good, capsys):
        make_fusion(verbose=1).fit(good)
        assert "[ScoreFusionDetector] a: 1 in" in capsys.readouterr().err

    def test_ensemble_of_the_paper(self, good, monkeypatch):
        """The expression in the docstring is one, and its missing weights are the usual error."""
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        text = inspect.getdoc(ScoreFusionDetector)
        code = text[text.index("ScoreFusionDetector([\n") : text.index("References\n---")]
        names = {
            "ScoreFusionDetector": ScoreFusionDetector,
            "ReConPatchDetector": ReConPatchDetector,
        }
        ast.parse(code.strip())
        fusion = eval(code.strip(), names)
        assert [name for name, _ in fusion.estimators] == ["wrn", "resnext", "densenet"]
        with pytest.raises(Exception, match=r"estimator 'wrn': .*skad_nano") as caught:
            fusion.fit(good)
        assert type(caught.value).__name__ == "MissingWeightsError"


class TestRefusals:
    @pytest.mark.parametrize(
        ("estimators", "message"),
        [
            ([], "no detector"),
            ([("a", "drop")], "no detector"),
            ([("a", make_detector()), ("a", make_detector())], "not unique"),
            ([("a__b", make_detector())], "__"),
            ([("level", make_detector())], "conflict"),
            ([make_detector()], "name, detector"),
            ([("a", FunctionTransformer())], "estimator 'a' is a FunctionTransformer"),
            ([("a", PatchCoreDetector)], "estimator 'a' is a"),
            ([("a", make_detector()), ("b", make_detector(b=1))], "estimator 'b': .*'b' parameter"),
        ],
    )
    def test_members(self, good, estimators, message):
        with pytest.raises((ValueError, TypeError), match=message):
            ScoreFusionDetector(estimators).fit(good)

    def test_parameters(self, good):
        with pytest.raises(ValueError, match="level"):
            make_fusion(level="pixel").fit(good)

    def test_one_image(self, good):
        with pytest.raises(ValueError, match="at least two good images"):
            make_fusion(contamination=0.1).fit(good[:1])

    @pytest.mark.parametrize("image_score", [0.0, 1.5, 1, "max"])
    def test_image_scores(self, good, image_score):
        with pytest.raises(ValueError, match="image_score"):
            make_fusion(image_score=image_score).fit(good)

    def test_nothing(self):
        with pytest.raises(ValueError, match=r"0|empty"):
            make_fusion().fit([])
