"""PatchEmbedder: what PatchCore sees, in scikit-learn's hands."""

import pickle

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from skad import PatchCoreDetector
from skad.features import PatchEmbedder
from skad.utils.estimator_checks import defective_images, good_images


def make_embedder(**params):
    return PatchEmbedder(**{"backbone": "skad_nano", "image_size": 32, **params})


@pytest.fixture(scope="module")
def X():
    return good_images(6)


# Rows of numbers without an image shape are strips, of which skad warns.
@pytest.mark.filterwarnings("ignore:X is a table of numbers")
@parametrize_with_checks([make_embedder(), make_embedder(pooling="max")])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_features_are_those_of_patchcore(X):
    det = PatchCoreDetector(
        "skad_nano", image_size=32, whitening=0, coreset_size=1.0, target_false_alarm_rate=0.2
    ).fit(X)
    maps = make_embedder(pooling=None).fit_transform(X)
    assert maps.shape == (6, 4, 4, 192)
    assert maps.dtype == np.float32
    known = {vector.tobytes() for vector in det.bank_.vectors}
    assert known == {vector.tobytes() for vector in maps.reshape(-1, 192)}


@pytest.mark.parametrize(("pooling", "function"), [("mean", np.mean), ("max", np.max)])
def test_rows_are_pooled_maps(X, pooling, function):
    maps = make_embedder(pooling=None).fit_transform(X)
    rows = make_embedder(pooling=pooling).fit_transform(X)
    assert rows.shape == (6, 192)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, function(maps, axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_nothing_depends_on_the_company(X):
    embedder = make_embedder().fit(X)
    rows = embedder.transform(X)
    assert np.array_equal(rows, np.concatenate([embedder.transform([image]) for image in X]))
    assert np.array_equal(rows[::-1], embedder.set_params(batch_size=2).transform(X[::-1]))


def test_padding_does_not_count():
    images = [image[:20] for image in good_images(4)]
    maps = make_embedder(geometry="pad", pooling=None).fit_transform(images)
    outside = np.isnan(maps).all(axis=-1)
    assert outside.any()
    assert not outside.all()
    assert np.array_equal(outside, np.isnan(maps).any(axis=-1))
    assert np.isfinite(make_embedder(geometry="pad").fit_transform(images)).all()


def test_a_region_of_interest(X):
    inside = np.zeros(X.shape[1:3])
    inside[:, :16] = 1
    embedder = make_embedder(roi=inside).fit(X)
    changed = X.copy()
    changed[:, :, 30:] = 0
    assert np.array_equal(embedder.transform(X), embedder.transform(changed))


def test_paths_of_any_sizes(tmp_path, X):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, X, strict=False):
        Image.fromarray(image).resize((40, 50)).save(path)
    assert make_embedder().fit(paths).transform([*paths, X[0]]).shape == (4, 192)


def test_names_and_tables(X):
    embedder = make_embedder().fit(X)
    names = embedder.get_feature_names_out()
    assert len(names) == 192
    assert (names[0], names[63], names[64], names[-1]) == (
        "layer2_0", "layer2_63", "layer3_0", "layer3_127",
    )  # fmt: skip
    table = make_embedder().set_output(transform="pandas").fit_transform(X)
    assert list(table.columns) == list(names)
    adaptive = make_embedder(aggregation="adaptive", pretrain_dim=16, target_dim=12).fit(X)
    assert list(adaptive.get_feature_names_out()) == [f"feature_{i}" for i in range(12)]
    with pytest.raises(ValueError, match="no columns to name"):
        make_embedder(pooling=None).fit(X).get_feature_names_out()


def test_a_network_of_ones_own(X):
    network = nn.Sequential(nn.Conv2d(3, 5, 3, 4, 1), nn.ReLU())

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = network, nn.Conv2d(5, 7, 3, 2, 1)

        def forward(self, x):
            first = self.first(x)
            return [first, self.second(first)]

    embedder = PatchEmbedder(Two(), image_size=32).fit(X)
    assert embedder.transform(X).shape == (6, 12)
    assert list(embedder.get_feature_names_out()[[0, -1]]) == ["layer0_0", "layer1_6"]


def test_in_pipelines_and_searches(X):
    defects = defective_images(6)
    model = make_pipeline(make_embedder(), LocalOutlierFactor(novelty=True, n_neighbors=3)).fit(X)
    assert model.predict(X).shape == (6,)
    images, y = np.concatenate([X, defects]), np.repeat(["good", "bad"], 6)
    supervised = make_pipeline(make_embedder(), LogisticRegression(max_iter=500))
    search = GridSearchCV(supervised, {"patchembedder__pooling": ["mean", "max"]}, cv=2)
    assert search.fit(images, y).score(images, y) > 0.9


def test_a_store_is_shared_with_detectors(X, tmp_path):
    plain = make_embedder().fit_transform(X)
    assert np.array_equal(make_embedder(memory=tmp_path).fit_transform(X), plain)
    n_files = len(list(tmp_path.rglob("*.features")))
    assert n_files == len(X)
    PatchCoreDetector(
        "skad_nano", image_size=32, memory=tmp_path, coreset_size=0.5, target_false_alarm_rate=0.2
    ).fit(X)
    assert len(list(tmp_path.rglob("*.features"))) == n_files


def test_copies_embed_the_same(X, tmp_path):
    embedder = make_embedder().fit(X)
    joblib.dump(embedder, tmp_path / "embedder.joblib")
    for copy in (pickle.loads(pickle.dumps(embedder)), joblib.load(tmp_path / "embedder.joblib")):
        assert np.array_equal(copy.transform(X), embedder.transform(X))
    assert len(pickle.dumps(embedder)) < 20_000  # without the network
    with pytest.raises(NotFittedError):
        clone(embedder).transform(X)


def test_what_changed_after_fit_is_refused(X):
    embedder = make_embedder().fit(X)
    embedder.set_params(batch_size=2, n_jobs=1, device="cpu").transform(X)
    with pytest.raises(ValueError, match="pooling changed after fit"):
        embedder.set_params(pooling="max").transform(X)
    embedder.set_params(pooling="mean").transform(X)
    embedder.set_params(weights=None)
    with pytest.raises(ValueError, match="weights are not those"):
        embedder.transform(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"patch_size": 2}, "must be odd"),
        ({"pooling": "median"}, "pooling"),
        ({"image_size": 0}, "image_size"),
        ({"backbone": "resnet17"}, "resnet17"),
    ],
)
def test_errors(X, params, message):
    embedder = make_embedder(**params)
    with pytest.raises(ValueError, match=message):
        embedder.fit(X)
    with pytest.raises(NotFittedError):
        embedder.transform(X)
