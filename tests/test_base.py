"""The contract of every detector: labels, thresholds, p-values, guards, coordinates."""

import threading
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import make_detector
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.metrics import roc_auc_score

from skad._scoring.thresholds import fitted_threshold
from skad.exceptions import TabularDataWarning


@pytest.fixture(scope="module")
def fitted(good):
    return make_detector().fit(good)


@pytest.fixture
def as_files(good, tmp_path):
    paths = []
    for i, image in enumerate(good):
        paths.append(tmp_path / f"{i:02d}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


class TestInput:
    def test_every_kind_of_input_gives_bitwise_equal_scores(self, good, as_files):
        reference = make_detector().fit(good).score_samples(good)
        n = len(good)
        kinds = {
            "paths": as_files,
            "str paths": np.array([str(path) for path in as_files]),
            "series": pd.Series([str(path) for path in as_files]),
            "pil": [Image.fromarray(image) for image in good],
            "list of arrays": list(good),
            "rows": good.reshape(n, -1),
            "float rows": good.reshape(n, -1) / 255,
            "data frame": pd.DataFrame(good.reshape(n, -1)),
            "floats": good / 255,
            "float32": (good / 255).astype(np.float32),
            "rgba": np.concatenate([good, np.full((*good.shape[:3], 1), 7, np.uint8)], axis=-1),
        }
        for name, X in kinds.items():
            det = make_detector(image_shape=(40, 48, 3)).fit(X)
            np.testing.assert_array_equal(det.score_samples(X), reference, err_msg=name)

    def test_torch_tensors(self, good, fitted):
        import torch

        scores = fitted.score_samples(torch.from_numpy(good))
        np.testing.assert_array_equal(scores, fitted.score_samples(good))

    def test_grey_images_equal_their_rgb_copies(self, good):
        grey = good[..., 0]
        rgb = np.repeat(grey[..., None], 3, axis=-1)
        first, second = make_detector().fit(grey), make_detector().fit(rgb)
        np.testing.assert_array_equal(first.score_samples(grey), second.score_samples(rgb))

    @pytest.mark.parametrize("batch_size", [1, 3, 5, 12])
    def test_scores_do_not_depend_on_the_batch(self, good, fitted, batch_size):
        scores = fitted.score_samples(good)
        det = clone(fitted).set_params(batch_size=batch_size).fit(good)
        np.testing.assert_array_equal(det.score_samples(good), scores)

    def test_scores_do_not_depend_on_order_and_company(self, good, defective, fitted):
        X = np.concatenate([good, defective])
        scores = fitted.score_samples(X)
        order = np.random.default_rng(0).permutation(len(X))
        np.testing.assert_array_equal(fitted.score_samples(X[order]), scores[order])
        alone = np.concatenate([fitted.score_samples(X[i : i + 1]) for i in range(len(X))])
        np.testing.assert_array_equal(alone, scores)

    def test_scores_do_not_depend_on_the_number_of_threads(self, as_files):
        one = make_detector(n_jobs=1).fit(as_files).score_samples(as_files)
        many = make_detector(n_jobs=4).fit(as_files).score_samples(as_files)
        np.testing.assert_array_equal(one, many)

    @pytest.mark.filterwarnings("ignore::skad.exceptions.TabularDataWarning")
    def test_rows_are_remembered_and_forgotten(self, good):
        with pytest.warns(TabularDataWarning, match="one pixel high"):
            det = make_detector().fit(good[..., 0].reshape(len(good), -1))
        assert det.n_features_in_ == 40 * 48
        with pytest.raises(ValueError, match="features"):
            det.predict(good[..., 0].reshape(len(good), -1)[:, :-1])
        det.fit(good)
        assert not hasattr(det, "n_features_in_")

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            ([], "0 sample"),
            ("part.png", "list"),
            (["no-such-file.png"] * 2, r"image 0 .*no-such-file\.png"),
            (np.full((3, 40, 48), 1.5), "0..1|0 and 1|255"),
            (np.zeros((3, 3, 40, 48)), "NHWC|n, H, W"),
            ([np.zeros((40, 48)), np.full((40, 48), np.nan)], "image 1"),
            (np.zeros((2, 4, 48), np.uint8), "image 0"),
            (np.zeros((1, 40, 48), np.uint8), "n_samples=1"),
        ],
    )
    def test_unusable_input_is_named(self, X, message):
        with pytest.raises((ValueError, TypeError), match=message):
            make_detector().fit(X)

    def test_a_corrupt_file_among_many_is_named(self, as_files, fitted):
        paths = [as_files[i % len(as_files)] for i in range(1000)]
        broken = as_files[0].with_name("broken.png")
        broken.write_bytes(as_files[0].read_bytes()[:200])
        paths[500] = broken
        with pytest.raises(ValueError, match=r"image 500 .*broken\.png"):
            make_detector().fit(paths)


class TestLabels:
    def test_defective_images_do_not_train(self, good, defective):
        X = np.concatenate([good, defective])
        y = np.repeat([1, -1], [len(good), len(defective)])
        with_y, without = make_detector().fit(X, y), make_detector().fit(good)
        np.testing.assert_array_equal(with_y.bank_.vectors, without.bank_.vectors)
        assert with_y.offset_ == without.offset_
        assert with_y.n_images_ == len(good)

    def test_fit_predict_passes_the_labels_on(self, good, defective):
        """Good images are judged by their scores out of sample, in the order of X."""
        X = np.concatenate([defective, good])
        y = np.repeat([-1, 1], [len(defective), len(good)])
        det = make_detector().fit(good)
        expected = np.append(
            det.predict(defective), np.where(det.training_scores_ < det.offset_, -1, 1)
        )
        assert (expected == -1).sum() > len(defective)
        np.testing.assert_array_equal(make_detector().fit_predict(X, y), expected)
        percentile = make_detector(contamination=0.2)
        np.testing.assert_array_equal(percentile.fit_predict(X, y), percentile.fit(X, y).predict(X))

    @pytest.mark.parametrize("y", [[0, 1] * 6, [1, -1, 0] * 4, np.arange(12.0)])
    def test_other_numbers_train_on_all_with_a_warning(self, good, y):
        with pytest.warns(UserWarning, match=r"all 12 images count as good.*np\.where") as seen:
            det = make_detector().fit(good, y)
        assert det.n_images_ == len(good)
        assert seen[0].filename == __file__

    @pytest.mark.parametrize("y", [None, [1] * 12, np.ones(12)])
    def test_good_images_alone_are_silent(self, good, y):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert make_detector().fit(good, y).n_images_ == len(good)

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([1, 1, -1], "3 labels for 12 images"),
            ([-1] * 12, "no image is labelled"),
            (["good", "bad"] * 6, r"y\[0\] is 'good'"),
            ([True, False] * 6, r"y\[0\] is 'True'"),
        ],
    )
    def test_labels_that_cannot_be_read(self, good, method, y, message):
        det = make_detector().fit(good)
        with pytest.raises(ValueError, match=message):
            getattr(det, method)(good, y)


class TestThreshold:
    def test_offset_comes_from_leave_one_image_out_scores(self, good, fitted):
        assert len(fitted.calibration_scores_) == len(good)
        expected = np.quantile(fitted.calibration_scores_, 0.2, method="weibull")
        assert fitted.offset_ == expected
        # Without its own patches an image cannot look more normal.
        in_sample = np.sort(fitted.score_samples(good))
        assert (fitted.calibration_scores_ <= in_sample).all()

    def test_contamination_is_the_percentile_of_training_scores(self, good):
        det = make_detector(contamination=0.25).fit(good)
        assert det.offset_ == np.percentile(det.score_samples(good), 25)
        assert (det.predict(good) == -1).sum() == 3

    def test_too_few_images_for_the_rate(self, good):
        with pytest.warns(UserWarning, match="cannot be promised from 12 good images"):
            det = make_detector(target_false_alarm_rate=0.01).fit(good)
        assert det.offset_ == fitted_threshold(det.calibration_scores_, 0.01)

    def test_defects_are_found(self, good, defective, fitted):
        assert (fitted.predict(defective) == -1).all()
        X = np.concatenate([good, defective])
        y = np.repeat([1, -1], [len(good), len(defective)])
        assert fitted.score(X, y) == roc_auc_score(y, fitted.score_samples(X)) == 1.0

    def test_decision_function_and_predict_agree(self, good, defective, fitted):
        X = np.concatenate([good, defective])
        decision = fitted.decision_function(X)
        np.testing.assert_array_equal(decision, fitted.score_samples(X) - fitted.offset_)
        np.testing.assert_array_equal(fitted.predict(X), np.where(decision >= 0, 1, -1))

    @pytest.mark.parametrize(
        ("y", "hint"), [([0, 1, 0, 1], "is_defective"), ([1, 1, 1, 1], "StratifiedKFold")]
    )
    def test_score_without_proper_labels_is_nan(self, defective, fitted, y, hint):
        with pytest.warns(UndefinedMetricWarning, match=hint):
            assert np.isnan(fitted.score(defective, y))

    @pytest.mark.parametrize("y", [["a", "b", "a", "b"], [1, -1], [1, None, -1, 1]])
    def test_score_with_labels_that_cannot_be_read(self, defective, fitted, y):
        with pytest.raises(ValueError, match="label"):
            fitted.score(defective, y)


class TestPValues:
    def test_definition(self, good, defective, fitted):
        p = fitted.anomaly_p_value(np.concatenate([good, defective]))
        scores = fitted.score_samples(np.concatenate([good, defective]))
        expected = [(1 + np.sum(fitted.calibration_scores_ <= s)) / 13 for s in scores]
        np.testing.assert_allclose(p, expected)
        assert (p[-len(defective) :] == 1 / 13).all()

    def test_one_shot_has_a_threshold_but_no_p_values(self, good):
        det = make_detector(contamination=0.1).fit(good[:1])
        assert det.calibration_scores_ is None
        assert det.predict(good[:1]).shape == (1,)
        with pytest.raises(ValueError, match="fitted on one"):
            det.anomaly_p_value(good)


class TestHeatmaps:
    def test_one_array_for_equal_sizes(self, defective, fitted):
        maps = fitted.predict_heatmap(defective)
        assert maps.shape == (4, 40, 48)
        assert maps.dtype == np.float32

    def test_a_list_for_different_sizes(self, good, fitted):
        maps = fitted.predict_heatmap([good[0], good[1][:, :33]])
        assert [heatmap.shape for heatmap in maps] == [(40, 48), (40, 33)]

    @pytest.mark.parametrize("geometry", ["squash", "pad", "crop"])
    def test_the_peak_lies_in_the_defect(self, good, defective, geometry):
        det = make_detector(geometry=geometry, image_size=64, smoothing=2).fit(good)
        for heatmap in det.predict_heatmap(defective):
            row, column = np.unravel_index(np.nanargmax(heatmap), heatmap.shape)
            assert 4 <= row <= 24
            assert 26 <= column <= 46

    def test_only_the_crop_leaves_pixels_out(self, good):
        cropped = make_detector(geometry="crop", image_size=28, resize=40).fit(good)
        heatmap = cropped.predict_heatmap(good[:1])[0]
        np.testing.assert_array_equal(np.isnan(heatmap).sum(), 40 * 48 - 28 * 28)
        padded = make_detector(geometry="pad").fit(good)
        assert not np.isnan(padded.predict_heatmap(good)).any()

    def test_scores_from_the_same_pass(self, defective, fitted):
        maps, scores = fitted.predict_heatmap(defective, return_scores=True)
        np.testing.assert_array_equal(scores, fitted.score_samples(defective))
        np.testing.assert_array_equal(maps, fitted.predict_heatmap(defective))

    def test_threshold_of_heat_maps(self, good, defective, fitted):
        assert fitted.predict_heatmap(defective).max(axis=(1, 2)).min() > fitted.heatmap_threshold_
        peaks = fitted.predict_heatmap(good).max(axis=(1, 2))
        assert (peaks > fitted.heatmap_threshold_).mean() <= 0.2


class TestGuards:
    def test_not_fitted(self, good):
        for method in ("predict", "score_samples", "predict_heatmap", "anomaly_p_value"):
            with pytest.raises(NotFittedError):
                getattr(make_detector(), method)(good)

    def test_a_parameter_changed_after_fit_is_refused(self, good):
        det = make_detector().fit(good).set_params(n_neighbors=3, layers=(1, 2))
        with pytest.raises(
            ValueError, match=r"layers, n_neighbors changed after fit.*layers='auto'"
        ):
            det.predict(good)
        det.set_params(n_neighbors=1, layers="auto").predict(good)

    def test_a_fit_that_fails_leaves_no_mixed_state(self, good):
        det = make_detector().fit(good)
        with pytest.raises(ValueError, match="bank of"):
            det.set_params(geometry="pad", coreset_size=10_000).fit(good)
        det.set_params(geometry="squash", coreset_size=0.25)
        with pytest.raises(NotFittedError):
            det.predict(good)

    def test_how_to_work_may_change_after_fit(self, good):
        det = make_detector().fit(good)
        scores = det.score_samples(good)
        det.set_params(device="cpu", batch_size=2, n_jobs=2, verbose=0)
        np.testing.assert_array_equal(det.score_samples(good), scores)

    def test_device_that_is_not_there(self, good):
        with pytest.raises(ValueError, match="device='nonsense'"):
            make_detector(device="nonsense").fit(good)


def test_two_fits_are_bitwise_equal_also_from_threads(good):
    reference = make_detector().fit(good)
    results = [None] * 4

    def fit(i):
        results[i] = make_detector().fit(good)

    threads = [threading.Thread(target=fit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for det in results:
        np.testing.assert_array_equal(det.bank_.vectors, reference.bank_.vectors)
        np.testing.assert_array_equal(det.calibration_scores_, reference.calibration_scores_)
