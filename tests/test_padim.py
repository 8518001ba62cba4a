"""PaDiM: the paper's formulas on a real backbone's features, and what the detector makes of them."""

import pickle

import numpy as np
import pytest
import torch
from conftest import make_padim
from sklearn.model_selection import GridSearchCV
from torch.nn.functional import interpolate

from skad import FeatureStore, PaDiMDetector, ScoreFusionDetector
from skad._common.memory import temporary_array
from skad._scoring.heatmaps import render
from skad.model_selection import OneClassKFold


def embeddings(det, X):
    """Chosen channels of all layers at every position, by torch's nearest: (n, P, d) float64."""
    now = det._as_fitted()
    pixels = np.concatenate(
        [batch.pixels for batch in now._iter_batches(now._open(X, reset=False))]
    )
    layers = now._network.split(now._network.pool(pixels))
    grid = layers[0].shape[1:3]
    planes = [interpolate(layer.permute(0, 3, 1, 2), size=grid) for layer in layers]
    joined = torch.cat(planes, dim=1)[:, torch.from_numpy(det.channels_)]
    return joined.flatten(2).transpose(1, 2).double().numpy()


def expected_distances(det, learned, new):
    """Mahalanobis distances by Eq. 1 and 2 of the paper, in float64: (n, P)."""
    found = np.empty(new.shape[:2])
    for p in range(new.shape[1]):
        mean = learned[:, p].mean(axis=0)
        S = np.cov(learned[:, p], rowvar=False) + det.regularization * np.eye(learned.shape[2])
        deviations = new[:, p] - mean
        found[:, p] = np.sqrt(np.einsum("ni,ij,nj->n", deviations, np.linalg.inv(S), deviations))
    return found


@pytest.fixture(scope="module")
def fitted(good):
    return make_padim().fit(good)


def test_scores_and_maps_are_those_of_the_paper(fitted, good, defective):
    distances = expected_distances(fitted, embeddings(fitted, good), embeddings(fitted, defective))
    maps = [render(one.reshape(8, 8), 32, 4.0) for one in distances]
    np.testing.assert_allclose(
        -fitted.score_samples(defective), [one.max() for one in maps], rtol=1e-4
    )
    (first, *_) = fitted._as_fitted()._iter_maps(defective)
    np.testing.assert_allclose(first.array(), maps[0], rtol=1e-4)


def test_training_scores_are_those_of_fits_without_each_image(fitted, good):
    for i in (0, 7):
        alone = make_padim(contamination=0.2).fit(np.delete(good, i, axis=0))
        score = alone.score_samples(good[i : i + 1])[0]
        np.testing.assert_allclose(fitted.training_scores_[i], score, rtol=1e-4)
    np.testing.assert_array_equal(fitted.calibration_scores_, np.sort(fitted.training_scores_))


def test_default_numbers_of_channels():
    class Network:
        channels = (64, 128, 256)

    drawn = {}
    for backbone in ("resnet18.tv_in1k", "wide_resnet50_2.tv_in1k", torch.nn.Identity()):
        det = PaDiMDetector(backbone, random_state=3)
        det._network = Network()
        drawn[str(backbone)] = det._draw_channels()
    assert [len(one) for one in drawn.values()] == [100, 448, 100]
    first = drawn["resnet18.tv_in1k"]
    assert (np.diff(first) > 0).all()
    assert 0 <= first[0] < 64 < 192 < first[-1] < 448


def test_channels_depend_on_random_state_alone(fitted, good):
    np.testing.assert_array_equal(make_padim().fit(good[:5]).channels_, fitted.channels_)
    assert not np.array_equal(make_padim(random_state=1).fit(good[:5]).channels_, fitted.channels_)


def test_too_many_channels_are_refused_before_any_image_is_read(good, monkeypatch):
    monkeypatch.setattr(PaDiMDetector, "_extract", None)
    with pytest.raises(ValueError, match=r"n_features=225 .* 224 channels of layers=\(1, 2, 3\)"):
        make_padim(n_features=225).fit(good)


def test_all_channels_of_few_images(good, defective):
    det = make_padim(n_features=224).fit(good)
    expected = expected_distances(det, embeddings(det, good), embeddings(det, defective))
    ((_, scores),) = det._as_fitted()._iter_scores(defective, maps=True)
    np.testing.assert_allclose(scores.grid.reshape(4, -1), expected, rtol=1e-3)


def test_a_single_channel(good, defective):
    det = make_padim(n_features=1).fit(good)
    assert det.score_samples(defective).max() < det.score_samples(good).min()


def test_one_image_needs_a_percentile(good):
    with pytest.raises(ValueError, match="one-shot"):
        make_padim().fit(good[:1])
    det = make_padim(contamination=0.1).fit(good[:1])
    np.testing.assert_array_equal(det.score_samples(good[:1]), [0.0])
    assert np.isnan(det.training_scores_).all()


class TestMemory:
    def test_does_not_change_the_result(self, good, monkeypatch):
        whole, on_disk = make_padim(image_size=128).fit(good), []

        def noted(*args):
            on_disk.append(args[0])
            return temporary_array(*args)

        monkeypatch.setattr("skad._padim.temporary_array", noted)
        det = make_padim(image_size=128, max_memory="600 kB").fit(good)
        assert len(on_disk) == 1
        for mine, theirs in zip(det.factors_, whole.factors_, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(det.training_scores_, whole.training_scores_, rtol=1e-6)

    def test_too_little_is_refused_before_any_work(self, good, monkeypatch):
        monkeypatch.setattr(PaDiMDetector, "_extract", None)
        with pytest.raises(ValueError, match=r"max_memory='50 kB' is too little for 20 channels"):
            make_padim(max_memory="50 kB").fit(good)

    def test_a_store_is_read_by_the_next_fit(self, fitted, good, tmp_path, monkeypatch):
        store = FeatureStore(tmp_path)
        make_padim(memory=store).fit(good)
        monkeypatch.setattr("skad._features.extractor.PatchExtractor.pool", None)
        det = make_padim(memory=store).fit(good)
        np.testing.assert_array_equal(det.training_scores_, fitted.training_scores_)


def test_padding_is_not_scored(good):
    det = make_padim(geometry="pad", image_size=64).fit(good)
    maps = det.predict_heatmap([good[0], good[0, :30]])
    assert [one.shape for one in maps] == [(40, 48), (30, 48)]
    assert all(np.isfinite(one).all() for one in maps)
    ((_, scores),) = det._as_fitted()._iter_scores(good[:2], maps=True)
    assert np.isnan(scores.grid[0]).any()


def test_what_lies_outside_a_region_changes_no_score(good, defective):
    mask = np.ones((40, 48), dtype=bool)
    mask[:, 24:] = False
    det = make_padim(roi=mask, image_size=64).fit(good)
    np.testing.assert_array_equal(det.score_samples(defective), det.score_samples(good[:4]))
    assert np.isnan(det.predict_heatmap(good[:1])[0, :, 24:]).all()


def test_in_an_ensemble_a_search_and_a_pickle(good, defective):
    fused = ScoreFusionDetector(
        [("a", make_padim()), ("b", make_padim(n_features=30))], target_false_alarm_rate=0.2
    ).fit(good)
    assert (fused.predict(defective) == -1).all()
    X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
    search = GridSearchCV(make_padim(), {"n_features": [5, 20]}, cv=OneClassKFold(2)).fit(X, y)
    best = pickle.loads(pickle.dumps(search)).best_estimator_
    np.testing.assert_array_equal(best.score_samples(X), search.best_estimator_.score_samples(X))


def test_a_backbone_of_other_shapes_is_refused(fitted, good):
    det = pickle.loads(pickle.dumps(fitted))
    det.means_ = det.means_[::-1]
    with pytest.raises(ValueError, match="do not belong to this backbone"):
        det.score_samples(good)


def test_features_too_large_for_the_regularization_are_named(good):
    class Large(torch.nn.Module):
        def forward(self, x):
            return [1e14 * torch.nn.functional.avg_pool2d(x, 8).repeat(1, 4, 1, 1)]

    det = make_padim(backbone=Large(), n_features=12, regularization=1e-9)
    with pytest.raises(ValueError, match="regularization=1e-09 is lost"):
        det.fit(good)
