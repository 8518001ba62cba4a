"""One state: what a fitted detector may change, what other threads do, what a failed fit leaves."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections import OrderedDict
from weakref import WeakValueDictionary

import numpy as np
import pytest
import tiny_encoders  # noqa: F401  registers backbones
import tiny_resnet  # noqa: F401
from conftest import (
    make_detector,
    make_dinomaly,
    make_padim,
    make_reconpatch,
    make_recontrast,
    make_spade,
)
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

import skad
from skad import ScoreFusionDetector
from skad.inspection import report
from skad.utils.estimator_checks import defective_images, good_images


def make_fusion(**params):
    members = [("a", make_detector()), ("b", make_detector(layers=(2,)))]
    return ScoreFusionDetector(members, target_false_alarm_rate=0.2, **params)


MAKERS = {
    "patchcore": make_detector,
    "reconpatch": make_reconpatch,
    "recontrast": lambda **params: make_recontrast(max_iter=2, **params),
    "dinomaly": lambda **params: make_dinomaly(max_iter=2, image_size=32, **params),
    "padim": make_padim,
    "spade": make_spade,
    "fusion": make_fusion,
}

# Another allowed value of every parameter of any detector.
OTHER = {
    "aggregation": "adaptive",
    "alpha": 0.25,
    "alpha_start": -1.0,
    "b": 2,
    "backbone": "resnet18",
    "batch_size": 3,
    "bn": "train",
    "contamination": 0.1,
    "coreset_method": "random",
    "coreset_projection_dim": 16,
    "coreset_size": 0.5,
    "device": "cpu",
    "discard": 0.5,
    "discard_iter": 5,
    "distance": "squared",
    "dropout": 0.5,
    "embedding_dim": 32,
    "encoder_lr": 1e-4,
    "epochs": 5,
    "final_lr": 1e-3,
    "gamma": 0.5,
    "geometry": "pad",
    "hard_mining": False,
    "image_layer": 2,
    "image_score": 0.5,
    "image_shape": (40, 48, 3),
    "image_size": 64,
    "index": "Flat",
    "init": "uniform",
    "k": 3,
    "kappa": 2,
    "level": "image",
    "layers": (1, 2),
    "loss": "regional",
    "lr": 1e-2,
    "m": 2.0,
    "maps": "frozen",
    "max_iter": 9,
    "max_memory": "2GB",
    "memory": "SET BELOW",
    "n_features": 30,
    "n_groups": 1,
    "n_jobs": 2,
    "n_neighbors": 3,
    "n_starts": 5,
    "pairs": "own",
    "normalize": True,
    "patch_size": 5,
    "precision": "bfloat16",
    "pretrain_dim": 64,
    "projection_dim": 8,
    "random_state": 7,
    "regularization": 0.1,
    "resize": 48,
    "roi": [[1] * 48] * 40,
    "sigma": 2.0,
    "smoothing": 0.5,
    "stop_gradient": False,
    "target_dim": 64,
    "target_false_alarm_rate": 0.4,
    "tiles": (1, 2),
    "tol": 0.1,
    "train_batch_size": 32,
    "train_encoder": False,
    "train_precision": "float32",
    "trim_fraction": 0.2,
    "validation_fraction": 0.5,
    "verbose": 1,
    "warm_start": True,
    "warmup_fraction": 0.5,
    "weight_decay": 1e-3,
    "weights": None,
    "whitening": 0.5,
}


# How to work, not what comes of it. Weights are recognised by their fingerprint.
_FREE = {"batch_size", "device", "max_memory", "memory", "n_jobs", "random_state", "verbose"}
_FREE |= {"warm_start"}


@pytest.fixture(scope="module", params=MAKERS)
def fitted(request, good):
    return MAKERS[request.param]().fit(good)


def _verdicts(det, X):
    """Everything that hangs on scores, maps and thresholds."""
    maps, scores = det.predict_heatmap(X, return_scores=True)
    return scores, maps, det.predict(X), maps > det.heatmap_threshold_, det.anomaly_p_value(X)


def test_what_may_change_after_fit_changes_no_verdict(fitted, defective, tmp_path):
    X = np.concatenate([good_images(4, seed=5), defective])
    before = _verdicts(fitted, X)
    for name, value in fitted.get_params().items():
        if hasattr(value, "get_params") or name == "estimators":
            continue
        det = copy.deepcopy(fitted)
        name_of_value = name.split("__")[-1]
        other = tmp_path / "store" if name_of_value == "memory" else OTHER[name_of_value]
        assert other != value, name
        if name_of_value in ("target_false_alarm_rate", "smoothing"):
            continue  # moves the threshold (tests/test_verdicts.py); waits for the next fit (below)
        det.set_params(**{name: other})
        if name_of_value in _FREE:
            for a, b in zip(before, _verdicts(det, X), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            said = f"{name_of_value} changed after fit"
            if name_of_value == "weights":
                said = "weights are not those"
            with pytest.raises(ValueError, match=said):
                det.predict(X)


def test_smoothing_waits_for_the_next_fit(fitted, good, defective):
    det = copy.deepcopy(fitted)
    before = _verdicts(det, defective)
    det.set_params(**{name: 0.5 for name in det.get_params() if name.endswith("smoothing")})
    for method in ("predict", "predict_heatmap", "anomaly_p_value"):
        with pytest.warns(
            UserWarning, match=r"smoothing=0\.5 takes effect at the next fit"
        ) as seen:
            getattr(det, method)(defective)
        assert len({str(w.message) for w in seen}) == 1
        assert {w.filename for w in seen} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        after = _verdicts(det, defective)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(_verdicts(det.fit(good), defective)[1], before[1])


class _Meddling:
    """An image that, when it is read, lets another thread change the detector."""

    ndim, shape, dtype = 3, (40, 48, 3), np.dtype("uint8")

    def __init__(self, pixels, meddle):
        self.pixels, self.meddle = pixels, meddle

    def __array__(self, dtype=None, copy=None):
        thread = threading.Thread(target=self.meddle)
        thread.start()
        thread.join()
        return self.pixels


@pytest.mark.parametrize(
    "method", ["decision_function", "predict", "anomaly_p_value", "predict_heatmap"]
)
@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_a_prediction_sees_one_state_while_another_thread_learns(good, method, make):
    det = make(batch_size=1).fit(good)
    new = good_images(20, seed=4)
    new[:, ::2] //= 2
    X = [*good, *new[:3], *defective_images(2)]
    old = copy.deepcopy(det)
    expected = getattr(old, method)(X)
    items = [*X[:5], _Meddling(X[5], lambda: det.partial_fit(new)), *X[6:]]
    found = getattr(det, method)(items)
    np.testing.assert_array_equal(found, expected)
    assert det.n_images_ == len(good) + len(new)  # the other thread was there
    assert not np.array_equal(getattr(det, method)(X), expected)


def test_a_report_sees_one_state(good, tmp_path):
    det = make_detector().fit(good)
    offset, new = det.offset_, good_images(20, seed=4) // 2
    items = [*good[:4], _Meddling(good[4], lambda: det.partial_fit(new))]
    page = report(det, items, path=tmp_path / "r.html", n_examples=1).read_text()
    assert f"{offset:.4g}" in page
    assert det.offset_ != offset


def test_a_fusion_sees_one_state_of_its_members(good, defective):
    fusion = make_fusion().fit(good)
    expected = fusion.decision_function(defective)
    member = fusion.estimators_[0]
    items = [_Meddling(defective[0], lambda: member.partial_fit(good_images(20, seed=4)))]
    np.testing.assert_array_equal(fusion.decision_function(items), expected[:1])
    assert member.n_images_ > len(good)


def test_two_partial_fits_at_once_lose_no_image_in_silence(good):
    det = make_detector().fit(good)
    items = [*good[:3], _Meddling(good[3], lambda: det.partial_fit(good_images(5, seed=6)))]
    with pytest.raises(RuntimeError, match="another thread"):
        det.partial_fit(items)
    assert det.n_images_ == len(good) + 5


def test_a_failed_refit_is_not_fitted(fitted, good, tmp_path):
    det = copy.deepcopy(fitted)
    check_is_fitted(det)
    with pytest.raises(ValueError, match="no such file"):
        det.fit([str(tmp_path / "missing.png")] * 3)
    with pytest.raises(NotFittedError):
        check_is_fitted(det)
    with pytest.raises(NotFittedError):
        det.predict(good)
    check_is_fitted(det.fit(good))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_nothing_of_a_prediction_stays_behind(good, make):
    det = make().fit(good)
    names, size = set(vars(det)), len(pickle.dumps(det))
    det.predict_heatmap(good[:2])
    assert set(vars(det)) == names
    assert len(pickle.dumps(det)) == size


def test_a_backbone_is_kept_as_long_as_its_detector(good, monkeypatch):
    from skad._features import backbones

    built = []
    build = backbones._build
    monkeypatch.setattr(backbones, "_build", lambda *a: (built.append(a), build(*a))[1])
    # None of them is there from another test.
    monkeypatch.setattr(backbones, "_alive", WeakValueDictionary())
    monkeypatch.setattr(backbones, "_latest", OrderedDict())
    names = ["resnet10t", "tiny_resnet", "tiny_convnext", "tiny_densenet", "tiny_efficientnet"]
    members = [(n, make_detector(backbone=n, weights=None, coreset_size=8)) for n in names]
    fusion = ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
    fusion.score_samples(good[:2])
    fusion.predict_heatmap(good[:2])
    assert len(built) == len(names)


class TestIdenticalImages:
    @pytest.mark.parametrize(
        ("seed", "contamination"), [(0, "auto"), (1, "auto"), (2, "auto"), (3, 0.1)]
    )
    @pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
    def test_all_alike(self, good, make, seed, contamination):
        det = make(contamination=contamination)
        if "random_state" in det.get_params():
            det.set_params(random_state=seed)
        det.fit(np.repeat(good[:1], 16, axis=0))
        assert (det.predict(good[:1]) == 1).all()
        maps = det.predict_heatmap(good[:1])
        assert maps.max() <= det.heatmap_threshold_
        assert (det.predict(defective_images(2)) == -1).all()

    def test_a_twin_stands_in_for_an_image_that_is_left_out(self, good):
        X = np.concatenate([good[:5], good[:1]])
        det = make_detector(coreset_size="auto").fit(X)
        # A bank without one of the two copies would know both of them.
        np.testing.assert_array_equal(det.training_scores_[[0, 5]], det.score_samples(X[[0, 5]]))
        assert (det.training_scores_[1:5] < det.score_samples(X[1:5]).min()).all()

    def test_partial_fit_with_twins(self, good):
        twins = np.repeat(good_images(1, seed=8), 3, axis=0)
        det = make_detector(coreset_size=0.5).fit(good).partial_fit(twins)
        np.testing.assert_array_equal(det.calibration_scores_[-3:], det.score_samples(twins))

    def test_good_on_a_processor_that_rounds_otherwise(self, good, tmp_path):
        same = np.repeat(good[:1], 16, axis=0)
        np.save(tmp_path / "same.npy", same)
        for name, make in MAKERS.items():
            skad.save(make().fit(same), tmp_path / f"{name}.skad")
        code = (
            "import sys, skad, numpy as np\n"
            "X = np.load(sys.argv[1] + '/same.npy')[:2]\n"
            f"for name in {list(MAKERS)}:\n"
            "    det = skad.load(f'{sys.argv[1]}/{name}.skad')\n"
            "    print(det.predict(X).min(), det.anomaly_p_value(X).min(),"
            " det.predict_heatmap(X).max() <= det.heatmap_threshold_)\n"
        )
        other = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, **other},
            capture_output=True,
            text=True,
        )
        assert run.stdout.splitlines() == ["1 1.0 True"] * len(MAKERS), run.stdout + run.stderr


class TestDivergence:
    @pytest.mark.parametrize("max_iter", [1, 5])
    def test_in_any_step(self, good, max_iter):
        det = make_recontrast(lr=1e25, max_iter=max_iter)
        with pytest.raises(ValueError, match=r"diverged\. Lower lr"):
            det.fit(good)
        with pytest.raises(NotFittedError):
            check_is_fitted(det)


@pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
@pytest.mark.parametrize("rate", [1e-12, np.nextafter(0, 1), 1 - 1e-12, np.nextafter(1, 0)])
def test_rates_next_to_none_and_all(good, rate):
    det = make_detector(target_false_alarm_rate=rate).fit(good)
    assert np.isfinite([det.offset_, det.heatmap_threshold_]).all()
    if rate > 0.5:
        assert det.offset_ == det.calibration_scores_[-1]
    else:
        assert det.offset_ < det.calibration_scores_[0]


class TestChangesDuringAFit:
    @pytest.mark.parametrize("make", [make_detector, MAKERS["recontrast"]])
    def test_a_parameter_set_meanwhile_is_the_next_fits(self, good, make):
        det = make()
        items = [*good[:5], _Meddling(good[5], lambda: det.set_params(batch_size=2))]
        det.fit([*items, *good[6:]])
        assert det.get_params()["batch_size"] == 2
        found = det.predict_heatmap(good[:2])
        np.testing.assert_array_equal(found, make().fit(good).predict_heatmap(good[:2]))

    def test_one_that_shapes_scores_is_refused_afterwards(self, good):
        det = make_detector()
        det.fit([*good[:5], _Meddling(good[5], lambda: det.set_params(n_neighbors=3))])
        with pytest.raises(ValueError, match="n_neighbors changed after fit"):
            det.predict(good)
        det.set_params(n_neighbors=1).predict(good)

    def test_who_predicts_meanwhile_finds_the_state_of_before(self, fitted, good):
        det, found = copy.deepcopy(fitted), []
        before = det.score_samples(good[:2])
        new = good_images(12, seed=5)
        meddling = _Meddling(new[0], lambda: found.append(det.score_samples(good[:2])))
        det.fit([meddling, *new[1:]])
        assert found
        for scores in found:
            np.testing.assert_array_equal(scores, before)
        assert not np.array_equal(det.score_samples(good[:2]), before)


@pytest.mark.parametrize("hold", [list, np.array])
def test_a_list_changed_in_place_is_noticed(good, hold):
    shape, rows = hold((40, 48, 3)), good.reshape(12, -1)
    det = make_detector(image_shape=shape).fit(rows)
    det.predict(rows)
    shape[:] = hold((48, 40, 3))
    with pytest.raises(ValueError, match="image_shape changed after fit"):
        det.predict(rows)


@pytest.mark.parametrize("teach", ["fit", "partial_fit"])
def test_a_member_that_has_learned_since_is_refused(good, teach):
    fusion = make_fusion().fit(good)
    getattr(fusion.named_estimators_["b"], teach)(good_images(20, seed=8))
    for now in (fusion, pickle.loads(pickle.dumps(fusion))):
        with pytest.raises(ValueError, match="member 'b' has learned since"):
            now.predict(good)
    fusion.fit(good).predict(good)
