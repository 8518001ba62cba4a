"""Good images that come later: what the bank becomes, what the thresholds promise, what is refused."""

import pickle

import joblib
import numpy as np
import pytest
from callback_recorder import Recorder
from conftest import make_detector, make_reconpatch, make_recontrast

import skad
from skad import ScoreFusionDetector
from skad._bank import sizes
from skad._base import TrainingScores
from skad._scoring.calibration import CalibrationLog
from skad.utils.estimator_checks import defective_images, good_images

MAKERS = {"patchcore": make_detector, "reconpatch": make_reconpatch}
IMAGES = good_images(48, seed=4)
NEW = np.concatenate([good_images(24, seed=6), defective_images(8, seed=7)])
LABELS = np.repeat([1, -1], [24, 8])


def grown(make=make_detector, cuts=(24,), **params):
    first, *later = np.split(IMAGES, cuts)
    detector = make(**params).fit(first)
    for portion in later:
        assert detector.partial_fit(portion) is detector
    return detector


def state(detector):
    """Everything that a detector consists of, as bytes."""
    return pickle.dumps({k: v for k, v in vars(detector).items() if "callback" not in k})


def patches_of(detector, X):
    embedder = detector._as_fitted()._embedder()
    batches = detector._iter_batches(detector._open(X, reset=False))
    return np.concatenate([rows.numpy() for b in batches for rows in embedder.embed(b.pixels)])


def radius(detector, X):
    return detector.bank_.search(patches_of(detector, X), 1)[0].max()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_of_an_unfitted_detector_it_is_fit(make):
    assert make().partial_fit(IMAGES).offset_ == make().fit(IMAGES).offset_


def test_who_has_it():
    assert not hasattr(make_recontrast(), "partial_fit")
    assert not hasattr(ScoreFusionDetector([("a", make_detector())]), "partial_fit")


@pytest.mark.parametrize("size", [0.1, 60], ids=["share", "number"])
@pytest.mark.parametrize("cuts", [(24,), (24, 30, 42), (8,)], ids=["two", "four", "late"])
def test_equals_a_refit_within_noise(cuts, size):
    # Whitening stays as it was learned from the first images.
    params = {"coreset_size": size, "coreset_projection_dim": None, "whitening": 0}
    refit = make_detector(**params).fit(IMAGES)
    det = grown(cuts=cuts, **params)
    assert len(det.bank_) == len(refit.bank_)
    assert det.n_images_ == 48
    assert radius(det, IMAGES) <= min(1.25 * radius(refit, IMAGES), det.coreset_radius_ * 1.001)
    assert det.score(NEW, LABELS) == refit.score(NEW, LABELS) == 1.0
    spread = refit.score_samples(NEW[:24]).std()
    assert np.abs(det.score_samples(NEW) - refit.score_samples(NEW)).mean() < spread
    assert abs(det.offset_ - refit.offset_) < 2 * spread
    assert abs(det.heatmap_threshold_ / refit.heatmap_threshold_ - 1) < 0.15


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_fraction_only_adds(make):
    before = make(coreset_size=0.1).fit(IMAGES[:24])
    det = grown(make, coreset_size=0.1)
    n = len(before.bank_)
    np.testing.assert_array_equal(det.bank_.vectors[:n], before.bank_.vectors)
    np.testing.assert_array_equal(det.bank_.sources[:n], before.bank_.sources)
    assert set(det.bank_.sources[n:]) <= set(range(24, 48))
    assert (det.score_samples(NEW) >= before.score_samples(NEW)).all()
    assert det.score_samples(IMAGES[24:]).mean() > before.score_samples(IMAGES[24:]).mean()
    if make is make_reconpatch:
        np.testing.assert_array_equal(det.components_, before.components_)


def test_a_vector_comes_from_the_image_that_its_source_names():
    det = grown(coreset_size=40)
    assert {*det.bank_.sources} & {*range(24)}
    assert {*det.bank_.sources} & {*range(24, 48)}
    for vector, source in zip(det.bank_.vectors[::5], det.bank_.sources[::5], strict=True):
        assert (patches_of(det, IMAGES[source : source + 1]) == vector).all(axis=1).any()


def test_auto_stays_at_least_and_grows_with_many_images(monkeypatch):
    """All patches; then a fixed number, which gives vectors up; then a fraction, which only adds."""
    monkeypatch.setattr(sizes, "_LEAST", 400)
    monkeypatch.setattr(sizes, "_FRACTION", 0.75)
    det = make_detector(coreset_size="auto", coreset_projection_dim=None).fit(IMAGES[:12])
    assert len(det.bank_) == 12 * 16
    for n, expected in ((24, 384), (30, 400), (36, 432), (48, 576)):
        det.partial_fit(IMAGES[det.n_images_ : n])
        assert len(det.bank_) == expected
        assert radius(det, IMAGES[:n]) <= det.coreset_radius_ * 1.001
    assert det.score(NEW, LABELS) == 1.0


@pytest.mark.parametrize("method", ["random", "approximate"])
@pytest.mark.parametrize("size", [0.2, 50])
def test_other_methods(method, size):
    det = grown(coreset_method=method, coreset_size=size)
    assert det.coreset_radius_ is None
    assert det.score(NEW, LABELS) == 1.0
    again = grown(coreset_method=method, coreset_size=size)
    np.testing.assert_array_equal(det.bank_.vectors, again.bank_.vectors)


# ---- thresholds ------------------------------------------------------------------------------------


def test_new_images_of_a_bank_of_all_patches_are_scored_without_their_own():
    det = grown(coreset_size="auto", image_score="patch")
    queries = patches_of(det, IMAGES[30:31])
    expected = det.bank_.search(queries, 1, exclude_source=30)[0].max()
    np.testing.assert_allclose(det.training_scores_[30], -expected, rtol=1e-12)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_new_images_are_scored_by_banks_that_grew_without_them(make):
    first = make(coreset_size=40).fit(IMAGES[:24])
    scores = first.score_samples(IMAGES[24:27])
    alone = grown(make, coreset_size=40, cuts=(24, 25))
    assert alone.training_scores_[24] == scores[0]  # by the bank as it was
    det = grown(make, coreset_size=40, cuts=(24, 27))
    for i in range(24, 27):  # by what the two others would have made of it
        others = [k for k in range(24, 27) if k != i]
        without = make(coreset_size=40).fit(IMAGES[:24]).partial_fit(IMAGES[others])
        expected = without.score_samples(IMAGES[i : i + 1])[0]
        np.testing.assert_allclose(det.training_scores_[i], expected, rtol=1e-12)


def test_old_scores_stay():
    first = make_detector(coreset_size=0.1).fit(IMAGES[:32])
    det = grown(coreset_size=0.1, cuts=(32,))
    assert len(det.calibration_scores_) == 48
    np.testing.assert_array_equal(det.training_scores_[:32], first.training_scores_)
    assert np.isin(first.calibration_scores_, det.calibration_scores_).all()


def test_scores_of_a_bank_of_far_fewer_images_no_longer_count():
    def measured(n, known):
        return CalibrationLog.of(TrainingScores(np.arange(n) + 0.0, None, np.ones(n)), known)

    log = measured(10, 10).followed_by(measured(5, 15))
    assert log.n_images.tolist() == [10] * 10 + [15] * 5
    log = log.followed_by(measured(1, 16))
    assert log.n_images.tolist() == [15] * 5 + [16]
    for known in range(17, 200):
        log = log.followed_by(measured(1, known))
        assert len(log.peaks) > known / 3
    assert log.n_images.min() == 133


@pytest.mark.parametrize("size", [0.1, 60], ids=["share", "number"])
def test_p_values_of_new_good_images_stay_valid(size):
    X = good_images(130, seed=3)
    det = make_detector(coreset_size=size).fit(X[:20])
    for portion in np.split(X[20:70], [10, 11, 30]):
        det.partial_fit(portion)
    p = det.anomaly_p_value(X[70:])
    spread = 4 * np.sqrt(1 / len(p) + 1 / len(det.calibration_scores_))
    for rate in (0.1, 0.2, 0.4):
        assert np.mean(p <= rate) <= rate + spread * np.sqrt(rate * (1 - rate))
    assert p.min() < 0.5
    assert (det.anomaly_p_value(NEW[24:]) == 1 / (1 + len(det.calibration_scores_))).all()


def test_a_percentile_is_updated_and_one_image_can_be_the_start():
    det = make_detector(contamination=0.1).fit(IMAGES[:1])
    assert det.calibration_scores_ is None
    det.partial_fit(IMAGES[1:3]).partial_fit(IMAGES[3:12])
    assert len(det.calibration_scores_) == 9  # the others knew far fewer
    assert np.isfinite([det.offset_, det.heatmap_threshold_]).all()
    assert (det.predict(NEW[24:]) == -1).all()


# ---- the same whatever surrounds it ----------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_memory_limits_and_stores_change_nothing(make, tmp_path):
    expected = grown(make, coreset_projection_dim=16)
    for params in ({"max_memory": "60kB"}, {"memory": tmp_path}, {"n_jobs": 2, "batch_size": 3}):
        det = grown(make, coreset_projection_dim=16, **params)
        np.testing.assert_array_equal(det.bank_.vectors, expected.bank_.vectors)
        assert det.offset_ == expected.offset_


@pytest.mark.parametrize("index", ["Flat", "IVF4,Flat;nprobe=4"])
def test_an_index_is_built_again(index):
    pytest.importorskip("faiss")
    det, exact = make_detector(index=index).fit(IMAGES[:24]), grown()
    det.score_samples(NEW)  # trains it
    det.partial_fit(IMAGES[24:])
    np.testing.assert_allclose(det.score_samples(NEW), exact.score_samples(NEW), rtol=1e-6)


@pytest.mark.parametrize("size", [0.1, 30])
def test_files_go_on_as_if_nothing_had_been(size, tmp_path):
    det = make_detector(coreset_size=size, random_state=None).fit(IMAGES[:24])
    skad.save(det, tmp_path / "det.skad")
    copies = [pickle.loads(pickle.dumps(det)), skad.load(tmp_path / "det.skad")]
    det.partial_fit(IMAGES[24:])
    joblib.dump(det, tmp_path / "det.joblib")
    for copy in [
        *(copy.partial_fit(IMAGES[24:]) for copy in copies),
        joblib.load(tmp_path / "det.joblib"),
    ]:
        np.testing.assert_array_equal(copy.score_samples(NEW), det.score_samples(NEW))
        np.testing.assert_array_equal(copy.calibration_scores_, det.calibration_scores_)
        assert copy.coreset_radius_ == det.coreset_radius_


def test_images_of_other_sizes_and_labels():
    mixed = [*IMAGES[24:30], NEW[24], *(image[:36, 2:] for image in IMAGES[30:36])]
    y = np.where(np.arange(13) == 6, -1, 1)
    for geometry in ("squash", "pad"):
        det = make_detector(geometry=geometry).fit(IMAGES[:24]).partial_fit(mixed, y)
        assert det.n_images_ == 36
        assert det.score(NEW, LABELS) == 1.0


# ---- what is refused leaves the detector as it was -------------------------------------------------


@pytest.mark.parametrize(
    ("X", "y", "error"),
    [
        ([], None, ValueError),
        (IMAGES[:3], [-1, -1, -1], ValueError),
        (["absent.png"], None, (ValueError, FileNotFoundError)),
        (np.full((2, 40, 48), np.nan), None, ValueError),
    ],
    ids=["empty", "defective", "absent", "nan"],
)
def test_unusable_images(X, y, error):
    det = make_detector().fit(IMAGES[:24])
    before = state(det)
    with pytest.raises(error):
        det.partial_fit(X, y)
    assert state(det) == before


@pytest.mark.parametrize("step", ["_score_training", "_calibrate", "_collect_new_patches"])
def test_an_interrupt(step, monkeypatch):
    det = make_detector().fit(IMAGES[:24])
    before = state(det)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(det), step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        det.partial_fit(IMAGES[24:])
    assert state(det) == before


def test_changed_parameters_and_weights(monkeypatch):
    det = make_detector().fit(IMAGES[:24])
    with pytest.raises(ValueError, match="n_neighbors changed after fit"):
        det.set_params(n_neighbors=2).partial_fit(IMAGES[24:])
    det.set_params(n_neighbors=1)
    det.weights_digest_ = "other"
    with pytest.raises(ValueError, match="weights are not those"):
        det.partial_fit(IMAGES[24:])


def test_a_detector_of_an_earlier_version():
    det = make_detector().fit(IMAGES[:24])
    del det._growth
    with pytest.raises(ValueError, match="without partial_fit"):
        det.partial_fit(IMAGES[24:])


# ---- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_line_a_stage(make, capsys):
    det = make(coreset_size=0.25).fit(IMAGES[:24]).set_params(verbose=1)
    det.partial_fit(IMAGES[24:36])
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()]
    assert [line.split(" in ")[0] for line in lines] == [
        "extraction: 12",
        "coreset: 48",
        "calibration: 12",
    ]


def test_callbacks():
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    det = make_detector().set_callbacks(recorder)
    for calls in (1, 2):
        det.partial_fit(IMAGES[:12])
        assert recorder.torn_down == calls
        assert recorder.begun[0] == ("fit", 3)
        assert recorder.ended.count("calibration step") == 12 * calls
        assert recorder.ended[-1] == "fit"


def test_the_score_of_a_small_grid_is_its_highest_patch():
    """Sixteen patches are asked for together, highest bound first, once the bank is worth bounding."""
    det = grown(image_score="patch")
    assert len(det.bank_) >= 128
    highest = [det.bank_.search(patches_of(det, [image]), 1)[0].max() for image in NEW]
    np.testing.assert_allclose(det.score_samples(NEW), -np.array(highest), rtol=1e-6)
