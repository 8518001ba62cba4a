"""SPADE: the paper's formulas on a real backbone's features, and what the detector makes of them."""

import pickle

import numpy as np
import pytest
import torch
from conftest import make_padim, make_spade
from sklearn.model_selection import GridSearchCV
from torch.nn.functional import interpolate

from skad import FeatureStore, ScoreFusionDetector, SPADEDetector
from skad._scoring.heatmaps import render
from skad.model_selection import OneClassKFold
from skad.utils.estimator_checks import good_images


def taken(det, X):
    """Mean of the last layer, and layers 1 to 3 at every position: (n, D), (n, P, d) float64."""
    now = det._as_fitted()
    pixels = np.concatenate(
        [batch.pixels for batch in now._iter_batches(now._open(X, reset=False))]
    )
    layers = [layer.double() for layer in now._network.split(now._network.pool(pixels))]
    grid = layers[0].shape[1:3]
    planes = [interpolate(layer.permute(0, 3, 1, 2), size=grid) for layer in layers]
    pixel = torch.cat(planes, dim=1).flatten(2).transpose(1, 2)
    return layers[-1].mean(dim=(1, 2)).numpy(), pixel.numpy()


def expected(det, learned, new, squared=False):
    """Mean distances to the k nearest images, and to the kappa nearest of their pixels."""
    power = 2 if squared else 1
    (descriptors, gallery), scores, grids = learned, [], []
    for descriptor, pixels in zip(*new, strict=True):
        distances = np.linalg.norm(descriptors - descriptor, axis=1)
        nearest = np.argsort(distances)[: det.k]
        scores.append(np.mean(distances[nearest] ** power))
        others = gallery[nearest].reshape(-1, pixels.shape[1])
        every = np.linalg.norm(pixels[:, None] - others[None], axis=2)
        grids.append(np.mean(np.sort(every, axis=1)[:, : det.kappa] ** power, axis=1))
    return np.array(scores), np.array(grids)


@pytest.fixture(scope="module")
def fitted(good):
    return make_spade().fit(good)


@pytest.mark.parametrize(("k", "kappa", "distance"), [(5, 1, "euclidean"), (3, 4, "squared")])
def test_scores_and_maps_are_those_of_the_paper(good, defective, k, kappa, distance):
    det = make_spade(k=k, kappa=kappa, distance=distance).fit(good)
    squared = distance == "squared"
    scores, grids = expected(det, taken(det, good), taken(det, defective), squared)
    np.testing.assert_allclose(-det.score_samples(defective), scores, rtol=1e-6)
    maps = [render(grid.reshape(8, 8), 32, 4.0) for grid in grids]
    found = [image.array() for image in det._as_fitted()._iter_maps(defective)]
    np.testing.assert_allclose(found, maps, rtol=1e-5)


def test_training_scores_are_those_of_fits_without_each_image(fitted, good):
    for i in (0, 7):
        alone = make_spade(contamination=0.2).fit(np.delete(good, i, axis=0))
        maps, scores = alone.predict_heatmap(good[i : i + 1], return_scores=True)
        np.testing.assert_allclose(fitted.training_scores_[i], scores[0], rtol=1e-9)
        assert np.isclose(fitted._calibration_peaks, maps.max(), rtol=0.05).any()


def test_scores_by_the_map_are_its_highest_values(good, defective):
    det = make_spade(image_score="map").fit(good)
    peaks = [image.array().max() for image in det._as_fitted()._iter_maps(defective)]
    np.testing.assert_array_equal(-det.score_samples(defective), peaks)
    assert det.heatmap_threshold_ == -det.offset_


def test_the_last_layer_finds_images(good):
    det = make_spade(backbone="resnet10t", weights=None, image_size=64).fit(good)
    assert (det.layers_, det.image_layer_) == ((1, 2, 3), 4)
    assert det.feature_spec_.layers == (1, 2, 3, 4)
    assert det.descriptors_.shape == (12, 512)
    assert det.features_.shape[1] == 64 * 256 + 128 * 64 + 256 * 16
    other = make_spade(backbone="resnet10t", weights=None, image_size=64, image_layer=2).fit(good)
    assert other.descriptors_.shape == (12, 128)
    assert other.feature_spec_.layers == (1, 2, 3)
    np.testing.assert_array_equal(other.features_, det.features_)


def test_an_earlier_layer_may_find_images(good):
    det = make_spade(layers=(2, 3), image_layer=1).fit(good)
    assert det.counting_.shape == (12, 4, 4)
    assert det.descriptors_.shape == (12, 32)
    assert det.predict_heatmap(good[:2]).shape == (2, 40, 48)


def test_a_network_of_ones_own_gives_all_of_its_maps(good, defective):
    class Own(torch.nn.Module):
        def forward(self, x):
            return [torch.nn.functional.avg_pool2d(x, size) for size in (4, 8, 16)]

    det = make_spade(backbone=Own()).fit(good)
    assert det.descriptors_.shape == (12, 3)
    assert det.features_.shape == (12, 3 * (64 + 16 + 4))
    assert det.score_samples(defective).max() < det.training_scores_.min()


class TestNumbers:
    @pytest.mark.parametrize(
        ("params", "n", "message"),
        [
            ({}, 5, r"k=5 .* 5 good images, which leave one fewer .* set k=4 at most"),
            ({"contamination": 0.1}, 4, r"k=5 .* among 4 good images: set k=4 at most"),
            ({"contamination": 0.1}, 1, r"k=5 .* among 1 good images: set k=1 at most"),
            ({"max_memory": "10 kB"}, 8, r"max_memory='10 kB': the features"),
        ],
    )
    def test_are_refused_before_any_image_is_read(self, good, monkeypatch, params, n, message):
        monkeypatch.setattr(SPADEDetector, "_describe", None)
        with pytest.raises(ValueError, match=message):
            make_spade(**params).fit(good[:n])

    def test_of_pixels_that_count(self, good):
        with pytest.raises(ValueError, match=r"kappa=65 nearest pixels .* an image has 64"):
            make_spade(kappa=65).fit(good)

    def test_one_image_needs_a_percentile(self, good, defective):
        with pytest.raises(ValueError, match="one-shot"):
            make_spade(k=1).fit(good[:1])
        det = make_spade(k=1, contamination=0.1).fit(good[:1])
        np.testing.assert_array_equal(det.score_samples(good[:1]), [0.0])
        assert np.isnan(det.training_scores_).all()
        assert (det.score_samples(defective) < 0).all()


def test_a_store_is_read_by_the_next_fit(fitted, good, tmp_path, monkeypatch):
    store = FeatureStore(tmp_path)
    make_spade(memory=store).fit(good)
    monkeypatch.setattr("skad._features.extractor.PatchExtractor.pool", None)
    det = make_spade(memory=store).fit(good)
    np.testing.assert_array_equal(det.training_scores_, fitted.training_scores_)


def test_padding_is_neither_found_nor_scored(good):
    det = make_spade(geometry="pad", image_size=64).fit(good)
    assert not det.counting_.all()
    maps = det.predict_heatmap([good[0], good[0, :30]])
    assert [one.shape for one in maps] == [(40, 48), (30, 48)]
    assert all(np.isfinite(one).all() for one in maps)


def test_what_lies_outside_a_region_changes_no_score(good, defective):
    mask = np.ones((40, 48), dtype=bool)
    mask[:, 24:] = False
    det = make_spade(roi=mask, image_size=64).fit(good)
    np.testing.assert_array_equal(det.score_samples(defective), det.score_samples(good[:4]))
    assert np.isnan(det.predict_heatmap(good[:1])[0, :, 24:]).all()


def test_in_an_ensemble_a_search_and_a_pickle(good, defective):
    fused = ScoreFusionDetector(
        [("a", make_spade()), ("b", make_padim())], target_false_alarm_rate=0.2
    ).fit(good)
    assert (fused.predict(defective) == -1).all()
    X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
    search = GridSearchCV(make_spade(), {"k": [2, 4]}, cv=OneClassKFold(2)).fit(X, y)
    best = pickle.loads(pickle.dumps(search)).best_estimator_
    np.testing.assert_array_equal(best.score_samples(X), search.best_estimator_.score_samples(X))


def test_features_of_another_backbone_are_refused(fitted):
    det = pickle.loads(pickle.dumps(fitted))
    det.features_ = det.features_[:, 1:]
    with pytest.raises(ValueError, match="do not belong to this backbone"):
        det.score_samples(good_images(1))
