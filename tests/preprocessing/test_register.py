"""Alignment of images, and heat maps back in the images as given."""

import pickle
import sys

import numpy as np
import pytest
from conftest import make_detector
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skad.model_selection import OneClassKFold
from skad.preprocessing import Register

pytest.importorskip("skimage")


def part(seed=0):
    """A part of 30 x 36 pixels on a darker ground."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(60, 256, (10, 12, 3)), np.ones((3, 3, 1)))
    image = np.full((48, 56, 3), 40.0)
    image[9:39, 10:46] = blocks
    return image


@pytest.fixture(scope="module")
def images():
    """The part at twelve places, and by how much it is away from the first."""
    rng = np.random.default_rng(1)
    moves = np.vstack([[0, 0], rng.integers(-4, 5, (11, 2))])
    noise = rng.normal(0, 2, (12, 48, 56, 3))
    moved = [np.roll(part(), move, (0, 1)) for move in moves]
    return np.clip(moved + noise, 0, 255).astype(np.uint8), moves


def test_shifts_are_found(images):
    X, moves = images
    register = Register().fit(X)
    np.testing.assert_allclose(register.shifts(X), -moves, atol=0.21)
    aligned = register.transform(X)
    assert aligned.dtype == np.uint8
    apart = np.abs(aligned.astype(float) - part())[:, 9:39, 10:46].mean()
    assert apart < 0.2 * np.abs(X.astype(float) - part())[:, 9:39, 10:46].mean()


def test_parts_of_pixels(images):
    X, _ = images
    y, x = np.mgrid[:48, :56]

    def blob(row, column):
        return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 30)

    X = [blob(24, 28), blob(24.5, 27.3)]
    assert Register(upsample_factor=20).fit(X[:1]).shifts(X)[1] == pytest.approx(
        [-0.5, 0.7], abs=0.11
    )


def test_maps_come_back(images):
    X, moves = images
    register = Register(upsample_factor=1).fit(X[:1])
    maps = register.transform(X)[..., 0].astype(np.float32)
    restored = register.restore(maps, X)
    seen = np.isfinite(restored)
    np.testing.assert_array_equal(restored[seen], X[..., 0][seen])
    for one, (down, right) in zip(seen, moves, strict=True):
        assert one.sum() == (48 - abs(down)) * (56 - abs(right))


def test_alignment_finds_what_a_fixed_camera_would(images):
    X, _ = images
    damaged = X[8:].copy()
    damaged[:, 20:28, 24:32] = 20
    detector = make_detector(image_size=64)
    pipeline = make_pipeline(Register(), detector).fit(X[:8])
    assert (pipeline.predict(damaged) == -1).all()
    register = pipeline[0]
    maps = register.restore(detector.predict_heatmap(register.transform(damaged)), damaged)
    peaks = [np.unravel_index(np.nanargmax(one), one.shape) for one in maps]
    assert np.abs(np.array(peaks) - [24, 28]).max() < 8


def test_floats_and_files_in_one_list(images, tmp_path):
    from PIL import Image

    X, _ = images
    Image.fromarray(X[1]).save(tmp_path / "b.png")
    mixed = [X[0] / 255 * 0.999, tmp_path / "b.png"]
    found = Register().fit(X).transform(mixed)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, Register().fit(X).transform(X[:2]) / 255, atol=0.01)


def test_an_image_that_shows_something_else_stays(images):
    X, _ = images
    register = Register(max_shift=0.02).fit(X[:1])
    far = np.roll(X[:1], 5, 1)
    with pytest.warns(UserWarning, match=r"image 0 .*-5 rows and \+0 columns.*left where it is"):
        np.testing.assert_array_equal(register.transform(far), far)


def test_bad_input(images):
    X, _ = images
    with pytest.raises(NotFittedError):
        Register().transform(X)
    register = Register().fit(X)
    with pytest.raises(ValueError, match=r"image 1 .*30 x 56 pixels.*48 x 56"):
        register.transform([X[0], X[1][:30]])
    with pytest.raises(ValueError, match="maps must have shape"):
        register.restore(np.ones((1, 48, 56)), X)
    with pytest.raises(ValueError, match="max_shift"):
        Register(max_shift=0.7).fit(X)
    with pytest.raises(ValueError, match="learned from"):
        Register().fit(X, -np.ones(12))
    with pytest.raises(ValueError, match="no table"):
        register.get_feature_names_out()


def test_defective_images_do_not_count(images):
    X, _ = images
    y, register = np.repeat([-1, 1], 6), Register(max_shift=0.2)
    expected = clone(register).fit(X[6:]).reference_
    np.testing.assert_array_equal(register.fit(X, y).reference_, expected)


def test_without_scikit_image(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.registration", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        Register().fit(images[0])


def test_at_home_in_scikit_learn(images):
    X, _ = images
    register = clone(Register(max_shift=0.2)).fit(X)
    again = pickle.loads(pickle.dumps(register))
    np.testing.assert_array_equal(again.transform(X[:3]), register.transform(X[:3]))
    damaged = X[:6].copy()
    damaged[:, 20:28, 24:32] = 20
    search = GridSearchCV(
        make_pipeline(Register(max_shift=0.2), make_detector(image_size=64)),
        {"register__upsample_factor": [1, 10]},
        cv=OneClassKFold(2),
    ).fit(np.concatenate([X, damaged]), np.repeat([1, -1], [12, 6]))
    assert search.best_score_ == 1
