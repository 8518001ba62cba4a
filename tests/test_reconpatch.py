"""ReConPatch: what is learned, what the bank holds, how patches are scored, what is refused."""

import copy

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skad._features import PatchesInMemory
from skad._features.extractor import PatchExtractor


def embed(det, image):
    """(h * w, E) vectors of one image, as the detector sees it."""
    pixels = det.geometry_.apply(image)[None].copy()
    return det._as_fitted()._embedder().embed(pixels)[0].double().numpy()


def distances(queries, vectors):
    return np.linalg.norm(queries[:, None] - vectors[None].astype(float), axis=2)


@pytest.fixture(scope="module")
def fitted(good):
    return make_reconpatch().fit(good)


@pytest.fixture(scope="module")
def by_b(good, fitted):
    """Detectors that score by patch, by the number of neighbours that re-weight their scores."""
    return {b: make_reconpatch(b=b, image_score="patch").fit(good) for b in (None, 2, 5)}


class TestTraining:
    def test_attributes(self, fitted):
        assert fitted.components_.shape == (48, 64 + 128)
        assert fitted.components_.dtype == np.float32
        assert fitted.loss_curve_.shape == (fitted.n_iter_,) == (3,)
        assert fitted.sigma_ > 0

    def test_f_is_trained(self, good, fitted):
        start = make_reconpatch(epochs=0).fit(good)
        assert start.n_iter_ == 0
        assert start.loss_curve_.shape == (0,)
        change = np.abs(start.components_ - fitted.components_)
        assert change.max() > 1e-3

    def test_bank_holds_f_of_unprojected_features(self, good, fitted):
        extractor = fitted._as_fitted()._whitened_network()
        for vector, source in zip(fitted.bank_.vectors[:5], fitted.bank_.sources[:5], strict=True):
            pixels = fitted.geometry_.apply(good[source])[None].copy()
            mapped = extractor.embed(pixels)[0].numpy() @ fitted.components_.T
            np.testing.assert_allclose(
                np.abs(mapped - vector).max(axis=1).min(), 0, atol=1e-6 * np.abs(vector).max()
            )

    def test_without_training_an_isometric_f_is_patchcore(self, good, defective):
        """An orthogonal map into enough dimensions changes no distance."""
        params = {"coreset_projection_dim": None, "coreset_size": "auto"}
        plain = make_detector(**params).fit(good)
        det = make_reconpatch(epochs=0, embedding_dim=192, **params).fit(good)
        np.testing.assert_allclose(
            det.score_samples(defective), plain.score_samples(defective), rtol=1e-5
        )

    def test_finds_defects(self, fitted, good, defective):
        assert (fitted.predict(defective) == -1).all()
        assert fitted.score(np.concatenate([good, defective]), np.repeat([1, -1], [12, 4])) == 1

    def test_repeatable(self, good, fitted):
        again = clone(fitted).fit(good)
        np.testing.assert_array_equal(again.components_, fitted.components_)
        np.testing.assert_array_equal(again.bank_.vectors, fitted.bank_.vectors)
        np.testing.assert_array_equal(again.calibration_scores_, fitted.calibration_scores_)
        other = make_reconpatch(random_state=1).fit(good)
        assert not np.array_equal(other.components_, fitted.components_)

    def test_backbone_sees_each_image_once(self, good, monkeypatch):
        seen, embed_once = [], PatchExtractor.pool
        monkeypatch.setattr(
            PatchExtractor, "pool", lambda self, p: (seen.append(len(p)), embed_once(self, p))[1]
        )
        make_reconpatch().fit(good)
        assert sum(seen) == 12

    @pytest.mark.parametrize("dim", [None, 16])
    def test_features_on_disk_give_the_same_detector(self, good, defective, dim, monkeypatch):
        params = {"coreset_projection_dim": dim, "geometry": "pad"}
        whole = make_reconpatch(**params).fit(good)
        kinds, make = [], PatchesInMemory.__init__

        def spy(self, *args):
            make(self, *args)
            kinds.append(type(self.embeddings))

        monkeypatch.setattr(PatchesInMemory, "__init__", spy)
        limit = "60kB" if dim else "150kB"
        on_disk = make_reconpatch(max_memory=limit, **params).fit(good)
        assert kinds == [np.memmap]
        np.testing.assert_array_equal(on_disk.bank_.vectors, whole.bank_.vectors)
        np.testing.assert_array_equal(
            on_disk.score_samples(defective), whole.score_samples(defective)
        )

    def test_a_disk_that_is_too_small(self, good, monkeypatch):
        usage = type("Usage", (), {"free": 1000})()
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
        with pytest.raises(OSError, match="TMPDIR"):
            make_reconpatch(max_memory="60kB", coreset_projection_dim=16).fit(good)

    def test_progress(self, good, capsys):
        make_reconpatch(verbose=1).fit(good)
        assert "[ReConPatchDetector] training: 3 in" in capsys.readouterr().err


class TestScores:
    @pytest.mark.parametrize("b", [None, 2, 5])
    def test_every_patch_is_re_weighted_before_the_maximum(self, by_b, defective, b):
        det = by_b[b]
        vectors = det.bank_.vectors.astype(float)
        around = np.argsort(distances(vectors, vectors), axis=1, kind="stable")[:, :b]
        for image, score in zip(defective, -det.score_samples(defective), strict=True):
            d = distances(embed(det, image), vectors)
            s = d.min(axis=1)
            if b is not None:
                to_around = np.take_along_axis(d, around[d.argmin(axis=1)], axis=1)
                s = s * (1 - np.exp(s) / np.exp(to_around).sum(axis=1))
            np.testing.assert_allclose(score, s.max(), rtol=1e-6)

    def test_re_weighting_reaches_the_map(self, by_b, defective):
        maps = [by_b[b].predict_heatmap(defective) for b in (None, 2)]
        assert (maps[1] < maps[0]).all()

    def test_neither_batch_nor_order_matters(self, fitted, good):
        scores = fitted.score_samples(good)
        alone = [fitted.score_samples(image[None])[0] for image in good]
        np.testing.assert_array_equal(scores, alone)
        in_fives = make_reconpatch(batch_size=5).fit(good)
        np.testing.assert_array_equal(in_fives.score_samples(good[::-1]), scores[::-1])

    def test_leave_one_image_out(self, good):
        det = make_reconpatch(coreset_size="auto", whitening=0).fit(good)
        vectors, sources = det.bank_.vectors.copy(), det.bank_.sources.copy()
        expected = []
        for i, image in enumerate(good):
            det.bank_ = type(det.bank_)(vectors[sources != i], sources[sources != i])
            expected.append(det.score_samples(image[None])[0])
        np.testing.assert_allclose(det.training_scores_, expected, rtol=1e-12)

    def test_read_only_components(self, fitted, good):
        """A worker sees the arrays of a detector through a read-only memory map."""
        det = copy.deepcopy(fitted)
        det.components_.flags.writeable = False
        np.testing.assert_array_equal(det.score_samples(good), fitted.score_samples(good))


class TestInScikitLearn:
    def test_grid_search_over_the_papers_symbols(self, good, defective):
        X = np.concatenate([good, defective])
        y = np.repeat([1, -1], [len(good), len(defective)])
        grid = {"k": [3, 5], "alpha": [0.5], "m": [0.5, 1.0]}
        search = GridSearchCV(make_reconpatch(), grid, cv=StratifiedKFold(2)).fit(X, y)
        assert search.best_score_ == 1.0
        assert len({tuple(row) for row in search.cv_results_["params"]}) >= 1
        assert (search.predict(defective) == -1).all()

    def test_changed_after_fit(self, good, fitted):
        det = copy.deepcopy(fitted).set_params(embedding_dim=12)
        with pytest.raises(ValueError, match="embedding_dim changed after fit"):
            det.predict(good)


class TestRefusals:
    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"k": 0}, "'k' parameter"),
            ({"k": 192}, "k=192 neighbours.*have 192 patches"),
            ({"train_batch_size": 5}, "train_batch_size=5"),
            ({"alpha": 1.5}, "alpha"),
            ({"m": -1}, "'m' parameter"),
            ({"sigma": 0}, "sigma"),
            ({"sigma": "median"}, "sigma"),
            ({"gamma": 1.1}, "gamma"),
            ({"embedding_dim": 0}, "embedding_dim"),
            ({"projection_dim": 0}, "projection_dim"),
            ({"init": "xavier"}, "init"),
            ({"epochs": -1}, "epochs"),
            ({"lr": 0}, "'lr' parameter"),
            ({"weight_decay": -1}, "weight_decay"),
            ({"tol": -1}, "tol"),
            ({"max_memory": "1 kB"}, "max_memory='1 kB' is too little"),
            ({"index": "Nonsense7"}, "Nonsense7"),
        ],
    )
    def test_absurd_parameters(self, good, params, message, monkeypatch):
        make_detector().fit(good)  # the trial of batch invariance is over
        monkeypatch.setattr(PatchExtractor, "pool", lambda *_: pytest.fail("work has started"))
        with pytest.raises((ValueError, TypeError), match=message):
            make_reconpatch(**params).fit(good)

    def test_black_images(self):
        """Every patch is alike: nothing to learn, nothing breaks."""
        det = make_reconpatch(contamination=0.1).fit(np.zeros((3, 32, 32, 3), dtype=np.uint8))
        assert np.isfinite(det.components_).all()
        assert torch.isfinite(torch.from_numpy(det.bank_.vectors)).all()
