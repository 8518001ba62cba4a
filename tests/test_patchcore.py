"""PatchCore: what is learned, how it is scored, what is refused."""

import numpy as np
import pytest
import torch
from conftest import make_detector
from sklearn.utils import check_random_state

from skad._bank import start_coreset
from skad._images import Frame
from skad._scoring.folds import N_FOLDS, split_images


def embed(det, image):
    """(h * w, d) embeddings of one image, as the detector sees it."""
    pixels = det.geometry_.apply(image)[None].copy()
    return det._as_fitted()._embedder().embed(pixels)[0].double().numpy()


def by_patch(**params):
    """A detector with the image score of the paper (Eq. 6)."""
    return make_detector(image_score="patch", **params)


def distances(queries, vectors):
    return np.linalg.norm(queries[:, None] - vectors[None].astype(float), axis=2)


class TestBank:
    def test_holds_unprojected_vectors_of_known_images(self, good):
        det = make_detector(coreset_projection_dim=16).fit(good)
        n_patches = 12 * 4 * 4
        assert det.bank_.vectors.shape == (n_patches // 4, 64 + 128)
        for vector, source in zip(det.bank_.vectors[:5], det.bank_.sources[:5], strict=True):
            assert distances(vector[None].astype(float), embed(det, good[source])).min() == 0

    @pytest.mark.parametrize(
        ("size", "expected"), [(0.5, 96), (1.0, 192), (7, 7), (192, 192), ("auto", 192)]
    )
    def test_size(self, good, size, expected):
        assert len(make_detector(coreset_size=size).fit(good).bank_.vectors) == expected

    def test_sources_number_the_good_images_only(self, good, defective):
        X = np.concatenate([defective, good])
        det = make_detector().fit(X, np.repeat([-1, 1], [4, 12]))
        assert set(det.bank_.sources) <= set(range(12))

    @pytest.mark.parametrize("method", ["greedy", "approximate", "random"])
    @pytest.mark.parametrize("dim", [None, 16])
    def test_streaming_gives_the_same_detector(self, good, method, dim):
        params = {
            "coreset_method": method,
            "coreset_projection_dim": dim,
            "geometry": "pad",
        }
        whole = make_detector(**params).fit(good)
        if dim is None:
            with pytest.raises(ValueError, match="max_memory=1000"):
                make_detector(max_memory=1000, **params).fit(good)
            return
        streamed = make_detector(max_memory="60kB", **params).fit(good)
        np.testing.assert_array_equal(streamed.bank_.vectors, whole.bank_.vectors)
        np.testing.assert_array_equal(streamed.bank_.sources, whole.bank_.sources)
        np.testing.assert_array_equal(streamed.calibration_scores_, whole.calibration_scores_)

    def test_streaming_embeds_each_image_three_times_or_four(self, good, monkeypatch):
        from skad._features.extractor import PatchExtractor

        make_detector().fit(good)  # the trial of batch invariance is over
        seen, embed_once = [], PatchExtractor.pool
        monkeypatch.setattr(
            PatchExtractor, "pool", lambda self, p: (seen.append(len(p)), embed_once(self, p))[1]
        )
        make_detector().fit(good)
        assert sum(seen) == 12
        seen.clear()
        make_detector(max_memory="60kB", coreset_projection_dim=16, whitening=0).fit(good)
        assert sum(seen) == 3 * 12
        seen.clear()
        make_detector(max_memory="60kB", coreset_projection_dim=16).fit(good)
        assert sum(seen) == 4 * 12

    def test_random_state_decides(self, good):
        a, b, c = (make_detector(random_state=s).fit(good).bank_.vectors for s in (0, 0, 1))
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)

    def test_global_generators_are_left_alone(self, good):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        make_detector(backbone="resnet14t", weights=None).fit(good)
        assert torch.equal(torch.get_rng_state(), before[0])
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


class TestScores:
    def test_distance_to_the_nearest_vector(self, good, defective):
        det = by_patch().fit(good)
        expected = [
            distances(embed(det, x), det.bank_.vectors).min(axis=1).max() for x in defective
        ]
        np.testing.assert_allclose(-det.score_samples(defective), expected, rtol=1e-12)

    @pytest.mark.parametrize("k", [1, 3])
    def test_mean_of_squared_distances_as_in_the_official_code(self, good, defective, k):
        det = by_patch(distance="squared", n_neighbors=k).fit(good)
        near = [np.sort(distances(embed(det, x), det.bank_.vectors), axis=1) for x in defective]
        expected = [np.mean(d[:, :k] ** 2, axis=1).max() for d in near]
        np.testing.assert_allclose(-det.score_samples(defective), expected, rtol=1e-12)

    @pytest.mark.parametrize("b", [2, 5])
    def test_re_weighting_of_the_image_score(self, good, defective, b):
        det = by_patch(b=b).fit(good)
        vectors = det.bank_.vectors.astype(float)
        for image, score in zip(defective, -det.score_samples(defective), strict=True):
            patches = embed(det, image)
            d = distances(patches, vectors)
            top = d.min(axis=1).argmax()
            matched = d[top].argmin()
            around = np.argsort(distances(vectors[matched][None], vectors)[0], kind="stable")[:b]
            to_around = np.linalg.norm(patches[top] - vectors[around], axis=1)
            weight = 1 - np.exp(d[top, matched]) / np.exp(to_around).sum()
            np.testing.assert_allclose(score, weight * d[top, matched], rtol=1e-9)

    def test_re_weighting_leaves_the_map_alone(self, good, defective):
        plain, weighted = by_patch().fit(good), by_patch(b=4).fit(good)
        np.testing.assert_array_equal(
            plain.predict_heatmap(defective), weighted.predict_heatmap(defective)
        )
        assert (weighted.score_samples(defective) > plain.score_samples(defective)).all()

    @pytest.mark.parametrize(
        "params",
        [
            {"image_score": "patch"},
            {"n_neighbors": 2, "b": 3, "image_score": "patch"},
            {"geometry": "pad"},
            {"image_score": 0.1},
        ],
    )
    def test_leave_one_image_out(self, good, params):
        """A bank of all patches, without those of an image, is the bank of the other images."""
        det = make_detector(coreset_size="auto", whitening=0, **params).fit(good)
        vectors, sources = det.bank_.vectors.copy(), det.bank_.sources.copy()
        expected = []
        for i, image in enumerate(good):
            det.bank_ = type(det.bank_)(vectors[sources != i], sources[sources != i])
            expected.append(det.score_samples(image[None])[0])
        np.testing.assert_allclose(det.training_scores_, expected, rtol=1e-12)

    @pytest.mark.parametrize(
        "params", [{}, {"image_score": "patch", "b": 3}, {"geometry": "pad", "index": "Flat"}]
    )
    def test_folds(self, good, params):
        """Each image by a bank of the same size that was chosen among the images of other folds."""
        if "index" in params:
            pytest.importorskip("faiss")
        det = make_detector(whitening=0, **params).fit(good)
        patches = np.stack([embed(det, image) for image in good]).astype(np.float32)
        inside = det.geometry_.footprints([Frame(good[0].shape[:2])], (4, 4))[0].mask.ravel()
        patches = patches[:, inside]
        # The generator draws the projection, the folds, the bank, and the bank of each fold.
        seed = int(check_random_state(0).randint(np.iinfo(np.int32).max))
        generator = torch.Generator().manual_seed(seed)
        projected = torch.from_numpy(patches @ det._as_fitted()._projection(generator).numpy().T)
        folds = split_images(len(good), generator)
        assert np.bincount(folds).tolist() == [len(good) // N_FOLDS] * N_FOLDS
        n = len(det.bank_)
        start_coreset(projected.flatten(0, 1), n, generator=generator)
        expected = np.empty(len(good))
        for fold in range(N_FOLDS):
            others = folds != fold
            rows = start_coreset(projected[others].flatten(0, 1), n, generator=generator).rows
            vectors = patches[others].reshape(-1, patches.shape[-1])[rows]
            det.bank_ = type(det.bank_)(vectors, np.zeros(n))
            expected[~others] = det.score_samples(good[~others])
        np.testing.assert_allclose(det.training_scores_, expected, rtol=1e-12)

    def test_padding_is_never_scored(self, good):
        det = make_detector(geometry="pad", image_size=64).fit(good)
        ((_, scores),) = det._as_fitted()._iter_scores(good[:1, :20], maps=True)
        grid = scores.grid[0]
        assert grid.shape == (8, 8)
        # 20 x 48 pixels fill rows 18 to 44 of 64; the centres of cells lie at 4, 12, 20, ...
        inside = ~np.isnan(grid)
        np.testing.assert_array_equal(np.flatnonzero(inside.any(axis=1)), [2, 3, 4, 5])
        assert inside[2:6].all()

    @pytest.mark.parametrize("index", ["auto", "Flat"])
    def test_exact_indices_agree(self, good, defective, index):
        if index == "Flat":
            pytest.importorskip("faiss")
        reference = make_detector().fit(good).score_samples(defective)
        scores = make_detector(index=index).fit(good).score_samples(defective)
        np.testing.assert_allclose(scores, reference, rtol=1e-12)

    def test_bfloat16_is_close(self, good, defective):
        exact = make_detector().fit(good).score_samples(defective)
        coarse = make_detector(precision="bfloat16").fit(good).score_samples(defective)
        np.testing.assert_allclose(coarse, exact, rtol=0.1)
        assert not np.array_equal(coarse, exact)

    def test_adaptive_aggregation(self, good, defective):
        det = make_detector(aggregation="adaptive", pretrain_dim=64, target_dim=48).fit(good)
        assert det.bank_.vectors.shape[1] == 48
        assert (det.predict(defective) == -1).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"coreset_size": 0.0}, "coreset_size"),
            ({"coreset_size": 2.0}, "coreset_size"),
            ({"coreset_size": 0}, "coreset_size"),
            ({"coreset_size": 193}, "bank of 193 vectors out of 192 patches"),
            ({"coreset_size": 3, "n_neighbors": 5}, "between 5"),
            ({"coreset_size": 3, "b": 4, "image_score": "patch"}, "between 4"),
            ({"coreset_size": "all"}, "coreset_size"),
            ({"b": 1}, "'b' parameter"),
            ({"b": 4}, r'alone; image_score is \'map\'. Set it to "patch"'),
            ({"image_score": "max"}, "image_score"),
            ({"image_score": 1}, "image_score"),
            ({"layers": (2, 9)}, "last layer is 3"),
            ({"layers": (3, 2)}, "shallow to deep"),
            ({"layers": ()}, "shallow to deep"),
            ({"image_size": 8}, "stride 16"),
            ({"patch_size": 2}, "odd"),
            ({"backbone": "resnet10x"}, "Did you mean"),
            ({"weights": "missing.pth"}, r"missing\.pth"),
            ({"geometry": "stretch"}, "geometry"),
            ({"geometry": "crop", "resize": 20}, "resize"),
            ({"distance": "cosine"}, "distance"),
            ({"contamination": 0.9}, "contamination"),
            ({"target_false_alarm_rate": 0}, "target_false_alarm_rate"),
            ({"max_memory": "lots"}, "max_memory='lots'"),
            ({"max_memory": "1 kB"}, "max_memory='1 kB' is too little"),
            ({"batch_size": 0}, "batch_size"),
            ({"index": "Nonsense7"}, "Nonsense7"),
        ],
    )
    def test_absurd_parameters(self, good, params, message):
        with pytest.raises((ValueError, TypeError), match=message):
            make_detector(**params).fit(good)

    def test_refused_before_any_image_is_embedded(self, good, monkeypatch):
        from skad._features.extractor import PatchExtractor

        make_detector().fit(good)
        monkeypatch.setattr(PatchExtractor, "pool", lambda *_: pytest.fail("work has started"))
        for params in (
            {"coreset_size": 193},
            {"b": 1},
            {"b": 2},
            {"max_memory": "1 kB"},
            {"index": "Nonsense7"},
        ):
            with pytest.raises((ValueError, TypeError)):
                make_detector(**params).fit(good)
        with pytest.raises(ValueError, match="image 3"):
            make_detector().fit([*good[:3], good[0][:4]])

    def test_too_few_patches_without_an_image(self, good):
        with pytest.raises(ValueError, match="image 0 alone holds 16 of the 32 vectors"):
            make_detector(coreset_size=1.0, n_neighbors=20).fit(good[:2])
        with pytest.raises(ValueError, match="the images of other folds have 16 patches"):
            make_detector(coreset_size=0.9, n_neighbors=20).fit(good[:2])

    def test_weights_of_another_network_at_scoring(self, good):
        det = make_detector().fit(good)
        det.weights_digest_ = "0" * 32
        with pytest.raises(ValueError, match="weights are not those"):
            det.predict(good)


class TestOwnNetwork:
    class Net(torch.nn.Module):
        def __init__(self, seed=0):
            super().__init__()
            generator = torch.Generator().manual_seed(seed)
            self.one = torch.nn.Conv2d(3, 8, 4, 4)
            self.two = torch.nn.Conv2d(8, 16, 2, 2)
            for p in self.parameters():
                p.data = torch.randn(p.shape, generator=generator) / 8

        def forward(self, x):
            x = self.one(x).relu()
            return [x, self.two(x).relu()]

    def test_fits_and_scores(self, good, defective):
        det = make_detector(backbone=self.Net()).fit(good)
        assert det.bank_.vectors.shape[1] == 24
        assert (det.predict(defective) == -1).all()

    def test_is_left_as_it_was(self, good):
        net = self.Net().train()
        make_detector(backbone=net).fit(good)
        assert net.training
        assert next(net.parameters()).requires_grad

    def test_must_return_feature_maps(self, good):
        with pytest.raises(ValueError, match="feature maps"):
            make_detector(backbone=torch.nn.Sequential(torch.nn.Flatten())).fit(good)
