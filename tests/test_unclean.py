"""Training sets that are not clean: what `trim_fraction` does to a detector."""

import pickle

import numpy as np
import pytest
from conftest import make_detector
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad
from skad import PatchCoreDetector, ReConPatchDetector, ScoreFusionDetector
from skad.utils.estimator_checks import defective_images, good_images

N_GOOD = 18


@pytest.fixture(scope="module")
def images():
    """Good images of one part, and others with a defect of one kind."""
    rng = np.random.default_rng(0)
    part, defect = rng.integers(60, 200, size=(64, 64, 3)), rng.integers(0, 255, size=(14, 14, 3))

    def photographs(n):
        noisy = part + rng.integers(-15, 15, size=(n, 64, 64, 3))
        return np.clip(noisy, 0, 255).astype(np.uint8)

    good, bad = photographs(2 * N_GOOD), photographs(8)
    bad[:, 10:24, 30:44] = defect
    return good, bad


@pytest.fixture(scope="module")
def unclean(images):
    good, bad = images
    return np.concatenate([good[:10], bad[:2], good[10:N_GOOD]])


def make(kind=PatchCoreDetector, **params):
    settings = {"image_size": 64, "random_state": 0, "target_false_alarm_rate": 0.1}
    return kind("skad_nano", **{**settings, "trim_fraction": 0.1, **params})


@pytest.fixture(scope="module")
def trimmed(unclean):
    return make().fit(unclean)


@pytest.fixture(scope="module")
def clean(images):
    return make(trim_fraction=0.0).fit(images[0][:N_GOOD])


def test_defects_do_not_vouch_for_defects(trimmed, images, unclean):
    _, bad = images
    assert trimmed.trimmed_indices_.tolist() == [10, 11]
    assert not np.isin([10, 11], trimmed.bank_.sources).any()
    assert (trimmed.predict(bad[2:]) == -1).all()
    trusting = make(trim_fraction=0.0).fit(unclean)
    assert len(trusting.trimmed_indices_) == 0
    assert (trusting.predict(bad[2:]) == 1).any()


def test_trimmed_images_have_scores_and_calibrate_nothing(trimmed, unclean):
    scores = trimmed.training_scores_
    assert np.isfinite(scores).all()
    assert set(np.argsort(scores)[:2]) == {10, 11}
    kept = np.delete(scores, [10, 11])
    np.testing.assert_array_equal(trimmed.calibration_scores_, np.sort(kept))
    assert (make().fit_predict(unclean) == -1)[10:12].all()


def test_contamination_is_a_percentile_of_all_images(unclean):
    """As in scikit-learn; the images trimmed are those that it names."""
    found = make(contamination=0.1).fit(unclean).predict(unclean)
    assert np.flatnonzero(found == -1).tolist() == [10, 11]


@pytest.mark.parametrize("params", [{"coreset_size": 1.0}, {"coreset_size": 300}, {"n_jobs": 1}])
def test_a_bank_of_those_kept(params, unclean, trimmed):
    """With a bank of all patches the images' own are left out; with others, folds are."""
    det = make(**params).fit(unclean)
    assert det.trimmed_indices_.tolist() == [10, 11]
    assert len(det.calibration_scores_) == N_GOOD
    if params.get("coreset_size") == 1.0:
        assert len(det.bank_) == N_GOOD * 64


def test_few_images_lose_none(images):
    """A fraction is rounded down to a number of images."""
    det = make().fit(images[0][:9])
    assert det.trimmed_indices_.tolist() == []
    assert len(det.calibration_scores_) == 9


def test_nothing_changes_by_default(clean, images):
    again = make(trim_fraction=0.01).fit(images[0][:N_GOOD])
    np.testing.assert_array_equal(again.bank_.vectors, clean.bank_.vectors)
    assert again.offset_ == clean.offset_


def test_streaming_trims_the_same(unclean, trimmed):
    det = make(max_memory="1.5MB").fit(unclean)
    np.testing.assert_array_equal(det.trimmed_indices_, trimmed.trimmed_indices_)
    np.testing.assert_array_equal(det.bank_.vectors, trimmed.bank_.vectors)
    assert det.offset_ == trimmed.offset_


def test_images_with_padding(unclean, images):
    shapes = [image[:, : 64 - 16 * (i % 2)] for i, image in enumerate(unclean)]
    det = make(geometry="pad").fit(shapes)
    assert det.trimmed_indices_.tolist() == [10, 11]


def test_partial_fit_trims_the_new_images_among_themselves(trimmed, images):
    good, bad = images
    det = pickle.loads(pickle.dumps(trimmed))
    det.partial_fit(np.concatenate([good[N_GOOD:], bad[2:4]]))
    n = N_GOOD + 2
    assert det.trimmed_indices_.tolist() == [10, 11, n + N_GOOD, n + N_GOOD + 1]
    assert not np.isin(det.trimmed_indices_, det.bank_.sources).any()
    assert len(det.training_scores_) == det.n_images_ == 2 * n
    assert np.isfinite(det.calibration_scores_).all()
    assert (det.predict(bad[4:]) == -1).all()


def test_reconpatch(unclean, images):
    det = make(ReConPatchDetector, epochs=1, embedding_dim=32).fit(unclean)
    assert det.trimmed_indices_.tolist() == [10, 11]
    assert (det.predict(images[1][2:]) == -1).all()


def test_an_ensemble_calibrates_on_what_all_members_keep(unclean, images):
    det = ScoreFusionDetector(
        [("a", make()), ("b", make(random_state=1, trim_fraction=0.0))],
        target_false_alarm_rate=0.1,
    ).fit(unclean)
    assert len(det.calibration_scores_) == N_GOOD
    assert np.isfinite(det.training_scores_).all()
    assert (det.predict(images[1][2:]) == -1).all()


@pytest.mark.parametrize("way", ["pickle", "skad"])
def test_files(way, trimmed, images, tmp_path):
    if way == "pickle":
        read = pickle.loads(pickle.dumps(trimmed))
    else:
        skad.save(trimmed, tmp_path / "a.skad")
        read = skad.load(tmp_path / "a.skad")
    np.testing.assert_array_equal(read.trimmed_indices_, trimmed.trimmed_indices_)
    assert read.trim_fraction == 0.1
    good, bad = images
    np.testing.assert_array_equal(read.score_samples(bad), trimmed.score_samples(bad))
    grown = read.partial_fit(good[N_GOOD:])
    skad.save(grown, tmp_path / "b.skad")
    assert skad.load(tmp_path / "b.skad").offset_ == grown.offset_


def test_a_search_chooses_it(unclean, images):
    good, bad = images
    X = np.concatenate([unclean, good[N_GOOD:24], bad[2:]])
    y = np.r_[np.ones(26), -np.ones(6)]
    search = GridSearchCV(make(), {"trim_fraction": [0.0, 0.2]}, cv=StratifiedKFold(2))
    assert search.fit(X, y).best_estimator_.trim_fraction in (0.0, 0.2)
    assert clone(search.best_estimator_).trim_fraction == search.best_estimator_.trim_fraction


@pytest.mark.parametrize("fraction", [-0.1, 0.5, "auto"])
def test_refused_fractions(fraction, unclean):
    with pytest.raises(ValueError, match="trim_fraction"):
        make(trim_fraction=fraction).fit(unclean)


@pytest.mark.parametrize("seed", range(6))
def test_a_fold_whose_only_image_is_trimmed_is_scored_as_well(seed):
    X = np.concatenate([good_images(3, seed=seed), defective_images(1, seed=seed)])
    det = make_detector(trim_fraction=0.25, target_false_alarm_rate=0.3, random_state=seed).fit(X)
    assert len(det.trimmed_indices_) == 1
    assert np.isfinite(det.training_scores_).all()
    assert len(det.calibration_scores_) == 3
