"""Detectors that take features in place of images give what they give on the images."""

import pickle

import numpy as np
import pytest
from conftest import make_detector, make_reconpatch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

import skad
from skad import PatchCoreDetector, ReContrastDetector, ScoreFusionDetector
from skad.features import PatchEmbedder
from skad.inspection import CoresetDisplay, report
from skad.model_selection import OneClassKFold
from skad.utils.estimator_checks import defective_images, good_images

SIZE = 64
LAYERS = [(8, 8, 64), (4, 4, 128)]


@pytest.fixture(scope="module")
def images():
    return np.concatenate([good_images(12), good_images(3, seed=5), defective_images(3)])


@pytest.fixture(scope="module")
def embedder(images):
    return PatchEmbedder("skad_nano", image_size=SIZE, pooling=None).fit(images[:1])


@pytest.fixture(scope="module")
def features(embedder, images):
    X = embedder.transform(images)
    X.flags.writeable = False  # nobody may write into what a user holds
    return X


def both(maker, embedder, **params):
    """A detector of images, and one of features, with the same settings."""
    on_images = maker(image_size=SIZE, **params)
    return on_images, clone(on_images).set_params(**embedder.detector_params())


def verdicts(det, X):
    maps, scores = det.predict_heatmap(X, return_scores=True)
    return [
        *(det.training_scores_, scores, maps, det.score_samples(X), det.anomaly_p_value(X)),
        *(det.predict(X), np.array([det.offset_, det.heatmap_threshold_])),
    ]


def assert_same(one, other, images, features):
    """Equal up to rounding, of thresholds as well."""
    for a, b in zip(verdicts(one, images), verdicts(other, features), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-6, atol=2e-6 * np.nanmax(np.abs(a)))
    # Rounding may decide which of two equally far vectors is chosen first.
    assert np.array_equal(np.sort(one.bank_.sources), np.sort(other.bank_.sources))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"whitening": 0.5, "trim_fraction": 0.2, "n_neighbors": 3},
        {"whitening": 0.0, "distance": "squared", "image_score": "patch", "b": 3},
        {"coreset_size": 1.0},
        {"coreset_method": "approximate", "contamination": 0.1},
        {"image_score": 0.1, "smoothing": 2.0},
    ],
    ids=repr,
)
def test_scores_are_those_of_the_images(params, embedder, images, features):
    on_images, on_features = both(make_detector, embedder, **params)
    on_images.fit(images[:12])
    on_features.fit(features[:12])
    # Shown on the canvas, where the maps of features lie.
    shown = np.stack([on_images.geometry_.apply(image) for image in images])
    assert_same(on_images, on_features, shown, features)


def test_without_whitening_they_are_the_same_to_the_last_bit(images, features):
    on_images = make_detector(image_size=SIZE, whitening=0).fit(images[:12])
    on_features = make_detector(backbone="precomputed", image_size="auto", whitening=0)
    on_features.fit(features[:12])
    assert on_features.image_size_ == SIZE
    assert np.array_equal(on_images.training_scores_, on_features.training_scores_)
    assert on_images.offset_ == on_features.offset_
    assert np.array_equal(on_images.bank_.vectors, on_features.bank_.vectors)
    assert np.array_equal(on_images.score_samples(images), on_features.score_samples(features))


def test_whitening_takes_features_of_unknown_layers_for_one(features):
    det = make_detector(backbone="precomputed", image_size="auto").fit(features[:12])
    assert [matrix.shape for matrix in det.whitening_] == [(192, 192)]
    assert det.feature_spec_.layers == ((8, 8, 192),)
    known = make_detector(backbone="precomputed", image_size="auto", layers=LAYERS)
    assert [len(matrix) for matrix in known.fit(features[:12]).whitening_] == [64, 128]
    assert det.offset_ != pytest.approx(known.offset_, rel=0.01)


def test_reconpatch(embedder, images, features):
    on_images, on_features = both(make_reconpatch, embedder)
    on_images.fit(images[:12])
    on_features.fit(features[:12])
    np.testing.assert_allclose(
        on_features.score_samples(features), on_images.score_samples(images), rtol=1e-5
    )
    assert on_features.offset_ == pytest.approx(on_images.offset_, rel=1e-5)


@pytest.mark.parametrize("size", [0.25, 60])
def test_partial_fit(size, embedder, images, features):
    on_images, on_features = both(make_detector, embedder, coreset_size=size)
    on_images.fit(images[:8]).partial_fit(images[8:12])
    on_features.fit(features[:8]).partial_fit(features[8:12])
    np.testing.assert_allclose(
        on_features.score_samples(features), on_images.score_samples(images), rtol=2e-6
    )
    assert on_features.offset_ == pytest.approx(on_images.offset_, rel=2e-6)
    assert on_features.coreset_radius_ == pytest.approx(on_images.coreset_radius_, rel=2e-6)


def test_little_memory_and_files(embedder, features, tmp_path, monkeypatch):
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    det = make_detector(**embedder.detector_params()).fit(features[:12])
    monkeypatch.delattr("skad._patchcore.HeldMaps")  # streamed
    small = make_detector(**embedder.detector_params(), max_memory="0.9MB").fit(mapped[:12])
    assert np.array_equal(small.training_scores_, det.training_scores_)
    assert np.array_equal(small.score_samples(mapped), det.score_samples(features))
    one_by_one = np.concatenate([det.score_samples(one[None]) for one in features])
    assert np.array_equal(det.set_params(batch_size=5).score_samples(features), one_by_one)


def test_labels_and_regions(embedder, features):
    y = np.repeat([1, -1], [15, 3])
    det = make_detector(**embedder.detector_params()).fit(features, y)
    assert det.n_images_ == 15
    assert det.score(features, y) > 0.9
    assert (det.fit_predict(features, y)[15:] == -1).all()
    regions = det.predict_regions(features)
    assert [len(found) > 0 for found in regions] == (det.predict(features) == -1).tolist()
    assert max(max(region.box) for found in regions for region in found) <= SIZE


def test_rectangles(images):
    embedder = PatchEmbedder("skad_nano", image_size=(32, 64), pooling=None)
    X = embedder.fit_transform(images)
    assert X.shape[1:] == (4, 8, 192)
    det = make_detector(**embedder.detector_params()).fit(X[:12])
    assert det.predict_heatmap(X[:2]).shape == (2, 32, 64)
    assert make_detector(backbone="precomputed", image_size="auto").fit(X).image_size_ == (32, 64)


def test_searches_and_pipelines(embedder, images, features):
    y = np.repeat([1, -1], [15, 3])
    grid = [
        {"coreset_size": [0.1, 40], "n_neighbors": [1, 2]},
        {"image_score": ["patch"], "whitening": [0.0, 0.5]},
    ]
    tables = []
    for det, X in zip(both(make_detector, embedder), (images, features), strict=True):
        search = GridSearchCV(det, grid, cv=OneClassKFold(2)).fit(X, y)
        tables.append(search.cv_results_["mean_test_score"])
    assert np.array_equal(*tables)
    assert not np.isnan(tables[0]).any()
    model = Pipeline(
        [
            ("embed", clone(embedder)),
            ("detect", PatchCoreDetector("precomputed", random_state=0, coreset_size=0.2)),
        ]
    )
    with pytest.warns(UserWarning, match="calibration scores|good images"):
        model.fit(images[:12])
    assert (model.predict(images)[-3:] == -1).all()
    search = GridSearchCV(model, {"detect__n_neighbors": [1, 2]}, cv=OneClassKFold(2))
    with pytest.warns(UserWarning, match="calibration scores|good images"):
        assert search.fit(images, y).best_score_ > 0.9


def test_copies(embedder, features, tmp_path):
    det = make_detector(**embedder.detector_params()).fit(features[:12])
    skad.save(det, tmp_path / "det.skad")
    for copy in (pickle.loads(pickle.dumps(det)), skad.load(tmp_path / "det.skad")):
        assert np.array_equal(copy.score_samples(features), det.score_samples(features))
        copy.partial_fit(features[12:15])
    auto = make_detector(backbone="precomputed", image_size="auto").fit(features[:12])
    skad.save(auto, tmp_path / "auto.skad")
    loaded = skad.load(tmp_path / "auto.skad")
    assert np.array_equal(loaded.score_samples(features), auto.score_samples(features))
    with pytest.raises(ValueError, match="there is no network"):
        skad.save(det, tmp_path / "other.skad", include_backbone=True)


def test_ensembles(embedder, images, features):
    def ensemble(**params):
        members = [
            ("one", make_detector(image_size=SIZE, **params)),
            ("other", make_detector(image_size=SIZE, coreset_size=40, n_neighbors=2, **params)),
        ]
        return ScoreFusionDetector(members, target_false_alarm_rate=0.2)

    on_images = ensemble().fit(images[:12])
    params = embedder.detector_params()
    del params["image_size"]
    on_features = ensemble(**params).fit(features[:12])
    np.testing.assert_allclose(
        on_features.score_samples(features), on_images.score_samples(images), rtol=1e-5, atol=1e-5
    )
    mixed = ScoreFusionDetector(
        [("images", make_detector()), ("features", make_detector(**params))]
    )
    for X in (images, features):
        with pytest.raises((ValueError, TypeError), match=r"precomputed|must have the shape"):
            mixed.fit(X)


# ------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "params",
    [
        {"weights": None},
        {"patch_size": 3},
        {"normalize": False},
        {"aggregation": "adaptive"},
        {"pretrain_dim": 64},
        {"target_dim": 64},
        {"geometry": "pad"},
        {"geometry": "crop", "resize": 80},
        {"tiles": (1, 2)},
        {"image_shape": (8, 8)},
        {"roi": np.ones((8, 8))},
        {"memory": "features"},
    ],
    ids=lambda params: next(iter(params)),
)
def test_settings_of_images(params, features):
    det = make_detector(backbone="precomputed", **params)
    with pytest.raises(ValueError, match=f"{next(iter(params))}.*of no use with backbone"):
        det.fit(features)
    assert not hasattr(det, "bank_")


def test_a_store_that_is_set_later(features):
    det = make_detector(backbone="precomputed").fit(features[:12])
    with pytest.raises(ValueError, match="memory: of no use"):
        det.set_params(memory="features").predict(features)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"layers": (2, 3)}, r"layers=\(2, 3\): .* are the shapes"),
        ({"layers": [(8, 8)]}, "are the shapes"),
        ({"layers": [(8, 8, 0), (4, 4, 192)]}, "are the shapes"),
        ({"layers": [(8, 8, 64), (4, 4, 64)]}, r"of shape \(8, 8, 128\)"),
        ({"layers": [(4, 4, 64), (4, 4, 128)]}, r"of shape \(4, 4, 192\)"),
        ({"layers": [(8, 8, 64), (16, 4, 128)]}, "the finest"),
        ({"layers": [(8, 8, 128), (4, 4, 64)], "n_neighbors": 2}, None),
        ({"layers": [(8, 8, 64), (2, 2, 128)]}, "feature map 0: is not made of layers"),
        ({"layers": [(8, 8, 32), (4, 4, 160)]}, "feature map 0: is not made of layers"),
        ({"image_size": 7}, "less than a pixel"),
        ({"image_size": (64, 7)}, "less than a pixel"),
    ],
)
def test_layers_and_sizes_that_cannot_be(params, said, features):
    det = make_detector(**{"backbone": "precomputed", "image_size": "auto", **params})
    if said is None:  # values of the deeper layer may pass for those of the finer
        assert det.fit(features).bank_.vectors.shape[1] == 192
        return
    with pytest.raises(ValueError, match=said):
        det.fit(features)


def test_other_features_than_at_fit(features, images):
    det = make_detector(backbone="precomputed").fit(features[:12])
    for X in (features[:, :4], features[..., :100], features[..., :3]):
        with pytest.raises(ValueError, match=r"was fitted on such of \(8, 8, 192\)"):
            det.score_samples(X)
        with pytest.raises(ValueError, match="was fitted on such of"):
            det.partial_fit(X)
    with pytest.raises(ValueError, match="Images become features"):
        det.predict(images)
    with pytest.raises(ValueError, match=r"found 0 sample"):
        det.predict(features[:0])
    with pytest.raises(ValueError, match=r"found 0 sample"):
        make_detector(backbone="precomputed").fit(features[:0])
    damaged = features.copy()
    damaged[2, 0, 0, 0] = np.nan
    for method in (det.predict, det.partial_fit, clone(det).fit):
        with pytest.raises(ValueError, match="feature map 2: holds NaN"):
            method(damaged)
    with pytest.raises(ValueError, match="too large"):
        det.predict(features * np.float32(1e20))
    with pytest.raises(ValueError, match="backbone changed after fit"):
        det.set_params(backbone="skad_nano").predict(images)


def test_padding_is_refused(images):
    pad = PatchEmbedder("skad_nano", image_size=SIZE, pooling=None, geometry="pad")
    X = pad.fit_transform([image[:30] for image in images])
    with pytest.raises(ValueError, match=r"holds NaN.*geometry=\"squash\""):
        make_detector(**pad.detector_params()).fit(X)


def test_float_images_are_noticed(images):
    with pytest.warns(UserWarning, match="3 values per patch, as images do"):
        make_detector(backbone="precomputed", image_size="auto").fit(images[:4, ::8, ::8] / 255)


def test_others_take_no_features(features, images):
    for estimator in (
        ReContrastDetector("precomputed"),
        PatchEmbedder("precomputed"),
        PatchEmbedder("precomputed", image_size=32),
    ):
        with pytest.raises(ValueError, match="takes features in place of images"):
            estimator.fit(images)
    with pytest.raises(ValueError, match="are shapes, as precomputed features have them"):
        make_detector(layers=LAYERS).fit(images)


def test_what_is_drawn(embedder, features):
    det = make_detector(**embedder.detector_params()).fit(features[:12])
    assert CoresetDisplay.from_estimator(det, features).patches.shape == (18 * 64, 2)
    with pytest.raises(TypeError, match="feature map 0 has no pixels to show"):
        report(det, features)


def test_what_an_embedder_tells(images):
    embedder = PatchEmbedder("skad_nano", image_size=SIZE, pooling=None, precision="bfloat16")
    assert embedder.fit(images).detector_params() == {
        "backbone": "precomputed",
        "layers": LAYERS,
        "image_size": SIZE,
        "precision": "bfloat16",
    }
    with pytest.raises(ValueError, match="leaves no patches"):
        PatchEmbedder("skad_nano", image_size=SIZE).fit(images).detector_params()
    adaptive = {"aggregation": "adaptive", "pretrain_dim": 32, "image_size": SIZE, "pooling": None}
    even = PatchEmbedder("skad_nano", target_dim=32, **adaptive).fit(images)
    assert even.detector_params()["layers"] == [(8, 8, 16), (4, 4, 16)]
    odd = PatchEmbedder("skad_nano", target_dim=31, **adaptive).fit(images)
    with pytest.raises(ValueError, match="mixes values of two layers"):
        odd.detector_params()
