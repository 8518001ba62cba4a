"""Whitening: the formula, what it is estimated from, and that every path whitens alike."""

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch
from sklearn.utils import check_random_state

import skad
from skad._features import (
    Canvases,
    FeatureSpec,
    HeldMaps,
    StreamedMaps,
    WhitenedExtractor,
    learn_whitening,
    patch_extractor,
)
from skad._features.whitening import SHRINKAGE, LayerMoments, whitening_matrix
from skad._images import Footprint
from skad._scoring.folds import split_images
from skad.utils.estimator_checks import good_images

ON = {"whitening": 0.3}


@pytest.fixture(scope="module")
def extractor():
    spec = FeatureSpec("skad_nano", (2, 3), 64, 3, "concat", 64, 48, "float32")
    return patch_extractor(spec, "skad_nano", "pretrained", torch.device("cpu"))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def learn(extractor, images, folds=None):
    images = list(images)
    folds = np.zeros(len(images), dtype=int) if folds is None else folds
    return learn_whitening(extractor, images, 0.5, folds)


def whole(n):
    return Footprint(np.ones((8, 8), bool), (0, 0, 64, 64))


def test_maps_in_memory_are_whitened_in_place(extractor, pixels):
    canvases = Canvases(lambda: [(pixels, [whole(64)] * len(pixels))], len(pixels))
    held, streamed = (kind(extractor, canvases, None) for kind in (HeldMaps, StreamedMaps))
    storage = held._pooled.data_ptr()
    matrices = learn(extractor, held.per_canvas()).matrices
    whitened = held.whitened(matrices)
    assert whitened._pooled.data_ptr() == storage
    for one, other in zip(
        whitened.per_canvas(), streamed.whitened(matrices).per_canvas(), strict=True
    ):
        torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("strength", "times"), [(0.5, 2), (0.25, 4)])
def test_powers_of_the_matrix_invert_the_covariance(strength, times):
    rows = np.random.default_rng(0).standard_normal((500, 6)) @ np.diag([9, 5, 2, 1, 0.5, 0.1])
    covariance = np.cov(rows.T, bias=True)
    ridge = SHRINKAGE * np.trace(covariance) / 6 * np.eye(6)
    matrix = whitening_matrix(torch.tensor(covariance), torch.zeros(6), strength)
    assert np.array_equal(matrix, matrix.T)
    power = np.linalg.matrix_power(matrix.astype(float), times)
    np.testing.assert_allclose(power @ (covariance + ridge), np.eye(6), atol=1e-5)


def test_moments_are_those_of_all_values_far_from_zero():
    rows = np.random.default_rng(0).standard_normal((300, 4)) + 1e4
    moments = LayerMoments(torch.tensor(rows[0]))
    for some in np.split(rows, [7, 100]):
        moments.add(torch.tensor(some))
    np.testing.assert_allclose(moments.mean(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(rows.T, bias=True), rtol=1e-9)


def test_moments_without_a_part_are_those_of_the_rest():
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 4)) + 1e4)
    whole, part, rest = (LayerMoments(rows[0]) for _ in range(3))
    whole.add(rows)
    part.add(rows[:100])
    rest.add(rows[100:])
    found = whole.without(part)
    np.testing.assert_allclose(found.mean(), rest.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.covariance(), rest.covariance(), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1e5])
def test_equal_patches_are_not_whitened(value):
    moments = LayerMoments(torch.full((3,), value))
    moments.add(torch.full((50, 3), value))
    np.testing.assert_array_equal(
        whitening_matrix(moments.covariance(), moments.mean(), 0.5), np.eye(3)
    )


def test_patches_are_mapped_layer_by_layer(extractor, pixels):
    rng = np.random.default_rng(0)
    matrices = [m + m.T for m in (rng.random((n, n), np.float32) for n in extractor.channels)]
    block = np.zeros((extractor.dim, extractor.dim))
    block[:64, :64], block[64:, 64:] = matrices
    found = WhitenedExtractor(extractor, matrices).embed(pixels)
    expected = extractor.embed(pixels).double().numpy() @ block
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_an_image_is_whitened_alike_in_every_batch(extractor, pixels):
    pooled = [(one, whole(1)) for one in extractor.pool(pixels).split(1)]
    whitened = WhitenedExtractor(extractor, learn(extractor, pooled).matrices)
    alone = torch.cat([whitened.embed(pixels[i : i + 1]) for i in range(5)])
    assert torch.equal(whitened.embed(pixels), alone)


def test_padding_does_not_count(extractor, pixels):
    mask = np.zeros((8, 8), bool)
    mask[2:7] = True
    pooled = extractor.pool(pixels[:1])
    footprint = Footprint(mask, (16, 0, 40, 64))
    found = learn(extractor, [(pooled, footprint)]).matrices
    shallow, deep = extractor.split(pooled)
    for matrix, rows in zip(found, (shallow[0, 2:7], deep[0, 1:4]), strict=True):
        rows = rows.flatten(0, 1).double()
        covariance = torch.cov(rows.T, correction=0)
        expected = whitening_matrix(covariance, rows.mean(0), 0.5)
        np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-6)


def test_rounding_errors_grow_as_is_said(extractor, pixels):
    pooled = extractor.pool(pixels)
    images = [(one, whole(1)) for one in pooled.split(1)]
    matrices, rounding, _ = learn(extractor, images)
    whitened = WhitenedExtractor(extractor, matrices)
    generator = torch.Generator().manual_seed(0)
    errors = [
        1e-3 * layer.norm(dim=-1, keepdim=True) * torch.randn(layer.shape, generator=generator)
        / layer.shape[-1] ** 0.5
        for layer in extractor.split(pooled)
    ]  # fmt: skip
    moved = pooled + torch.cat([error.flatten(1) for error in errors], dim=1)
    away = extractor.join(whitened.whiten(moved)) - extractor.join(whitened.whiten(pooled))
    length = extractor.join(whitened.whiten(pooled)).square().mean().sqrt()
    assert away.square().mean().sqrt() / length == pytest.approx(1e-3 * rounding, rel=0.3)


def test_matrices_of_another_backbone_are_refused(extractor):
    with pytest.raises(ValueError, match=r"\[3\] channels.*\[64, 128\]"):
        WhitenedExtractor(extractor, [np.eye(3, dtype=np.float32)])


def test_scores_are_distances_in_the_whitened_space(good, defective, extractor):
    det = make_detector(**ON, image_score="patch", coreset_size=1.0).fit(good)
    raw = make_detector(whitening=0, coreset_size=1.0).fit(good)
    block = np.zeros((192, 192))
    block[:64, :64], block[64:, 64:] = det.whitening_
    embedder = raw._as_fitted()._embedder()

    def embed(images):
        canvases = np.stack([det.geometry_.apply(image) for image in images])
        return embedder.embed(canvases).double().numpy() @ block

    bank, queries = embed(good).reshape(-1, 192), embed(defective)
    nearest = [np.linalg.norm(q[:, None] - bank, axis=2).min(1).max() for q in queries]
    np.testing.assert_allclose(-det.score_samples(defective), nearest, rtol=1e-4)


@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_every_path_whitens_alike(make, good, defective, tmp_path, monkeypatch):
    det = make(**ON, geometry="pad").fit(good)
    scores, maps = det.score_samples(defective), det.predict_heatmap(defective)
    streamed = make(**ON, geometry="pad", max_memory="90kB", coreset_projection_dim=16)
    held = make(**ON, geometry="pad", coreset_projection_dim=16)
    np.testing.assert_array_equal(
        streamed.fit(good).score_samples(defective), held.fit(good).score_samples(defective)
    )
    for _ in range(2):  # features are computed, then read
        stored = make(**ON, geometry="pad", memory=tmp_path).fit(good)
        np.testing.assert_array_equal(stored.score_samples(defective), scores)
    skad.save(det, tmp_path / "det.skad")
    np.testing.assert_array_equal(skad.load(tmp_path / "det.skad").predict_heatmap(defective), maps)
    monkeypatch.setenv("SKAD_PLAIN", "1")
    np.testing.assert_allclose(det.score_samples(defective), scores, rtol=1e-4)


def test_new_images_are_whitened_as_the_first(good, defective):
    det = make_detector(**ON).fit(good[:8])
    before = [matrix.copy() for matrix in det.whitening_]
    det.partial_fit(good[8:])
    np.testing.assert_array_equal(det.whitening_[0], before[0])
    # A patch that the bank holds has no distance from it.
    distances, _ = det.bank_.search(
        det._as_fitted()._embedder().embed(det.geometry_.apply(good[-1])[None].copy())[0], 1
    )
    assert distances.min() == 0


def test_strength_0_maps_nothing(good):
    assert make_detector(whitening=0).fit(good).whitening_ == []


@pytest.mark.parametrize("whitening", [-0.1, 0.6, "strong", None])
def test_other_strengths_are_refused(good, whitening):
    with pytest.raises(ValueError, match="whitening"):
        make_detector(whitening=whitening).fit(good)


# ---- thresholds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregation", ["concat", "adaptive"])
def test_folds_are_whitened_by_the_images_of_the_others(pixels, aggregation):
    spec = FeatureSpec("skad_nano", (2, 3), 64, 3, aggregation, 64, 48, "float32")
    extractor = patch_extractor(spec, "skad_nano", "pretrained", torch.device("cpu"))
    folds = np.array([0, 1, 2, 0, 1])
    images = [(one, whole(1)) for one in extractor.pool(pixels).split(1)]
    learned = learn(extractor, images, folds)
    whitened = WhitenedExtractor(extractor, learned.matrices).embed(pixels)
    assert len(learned.fold_weights) == 3
    for fold, weight in enumerate(learned.fold_weights):
        others = learn(extractor, [images[i] for i in np.flatnonzero(folds != fold)]).matrices
        expected = WhitenedExtractor(extractor, others).embed(pixels)
        np.testing.assert_allclose(
            whitened @ torch.from_numpy(weight.T), expected, atol=1e-3 * float(expected.abs().max())
        )


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_an_image_is_scored_by_maps_that_do_not_know_it(make, good, is_whole):
    # A bank of all patches; or folds, whose banks are so large that they hold all of the others.
    size = 1.0 if is_whole else 12 * 16 - 1
    det = make(**ON, image_score="patch", coreset_size=size).fit(good)
    network = det._find_network()
    canvases = np.stack([det.geometry_.apply(image) for image in good])
    pooled = network.pool(canvases).split(1)
    place = Footprint(np.ones((4, 4), bool), (0, 0, 32, 32))
    f = getattr(det, "components_", np.eye(network.dim))
    seed = int(check_random_state(0).randint(np.iinfo(np.int32).max))
    generator = torch.Generator().manual_seed(seed)
    det._as_fitted()._projection(generator)
    folds = split_images(len(good), generator)
    expected = np.empty(len(good))
    for i, fold in enumerate(folds):
        others = [(pooled[j], place) for j in np.flatnonzero(folds != fold)]
        matrices = learn_whitening(network, others, 0.3, np.zeros(len(others), int)).matrices
        whitened = WhitenedExtractor(network, matrices)
        patches = np.stack([network.join(whitened.whiten(one))[0] for one in pooled]) @ f.T
        known = np.arange(len(good)) != i if is_whole else folds != fold
        bank = patches[known].reshape(-1, patches.shape[-1])
        expected[i] = np.linalg.norm(patches[i][:, None] - bank, axis=2).min(1).max()
    np.testing.assert_allclose(-det.training_scores_, expected, rtol=1e-4)


@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
@pytest.mark.parametrize("size", [0.25, 1.0])
def test_new_images_score_as_training_images(make, size):
    images = good_images(90, seed=3)
    det = make(whitening=0.5, coreset_size=size).fit(images[:30])
    assert 0.4 < det.anomaly_p_value(images[30:]).mean() < 0.75


def test_a_single_image_is_whitened(good):
    det = make_detector(**ON, contamination=0.1).fit(good[:1])
    assert len(det.whitening_) == 2
    assert np.isnan(det.training_scores_).all()
