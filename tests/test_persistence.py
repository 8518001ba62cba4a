"""Pickles: numpy only, bitwise the same scores, no network, no GPU."""

import io
import pickle
import subprocess
import sys

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
from conftest import make_detector, make_reconpatch, make_recontrast
from sklearn.base import clone

from skad import ScoreFusionDetector
from skad.utils.estimator_checks import modules_in_pickle


def make_trained(**params):
    params.pop("b", None)
    return make_recontrast(**params, warm_start=True, max_iter=3)


def make_fusion(**params):
    members = [("a", make_detector(**params)), ("b", make_detector(layers=(2,)))]
    return ScoreFusionDetector(members, target_false_alarm_rate=0.2)


MAKERS = [make_detector, make_reconpatch, make_trained, make_fusion]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda f: f.__name__)
def fitted(good, request):
    det = request.param(b=3, geometry="pad").fit(good)
    det.predict(good)  # whatever a prediction builds must not get into the pickle
    return det


def via_joblib(det):
    buffer = io.BytesIO()
    joblib.dump(det, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


def via_skops(det):
    """As a careful user does: nothing is trusted but what skad has defined itself."""
    data = skops.io.dumps(det)
    unknown = skops.io.get_untrusted_types(data=data)
    assert {name.split(".")[0] for name in unknown} == {"skad"}
    return skops.io.loads(data, trusted=unknown)


@pytest.mark.parametrize(
    "round_trip",
    [
        lambda det: pickle.loads(pickle.dumps(det)),
        lambda det: pickle.loads(cloudpickle.dumps(det)),
        via_joblib,
        via_skops,
    ],
    ids=["pickle", "cloudpickle", "joblib", "skops"],
)
def test_scores_survive(fitted, good, defective, round_trip):
    X = np.concatenate([good, defective])
    loaded = round_trip(fitted)
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    np.testing.assert_array_equal(loaded.predict_heatmap(X), fitted.predict_heatmap(X))
    np.testing.assert_array_equal(loaded.anomaly_p_value(X), fitted.anomaly_p_value(X))
    assert loaded.offset_ == fitted.offset_


def test_nothing_but_numpy_and_skad_inside(fitted):
    assert modules_in_pickle(fitted) <= {"skad", "numpy", "_codecs", "copy_reg"}


def test_memory_mapped(fitted, good, tmp_path):
    path = tmp_path / "detector.joblib"
    joblib.dump(fitted, path)
    loaded = joblib.load(path, mmap_mode="r")
    first = getattr(loaded, "estimators_", [loaded])[0]
    learned = first.bank_.vectors if hasattr(first, "bank_") else first.loss_curve_
    assert isinstance(learned, np.memmap)
    np.testing.assert_array_equal(loaded.score_samples(good), fitted.score_samples(good))


def test_a_new_process_without_network(fitted, good, tmp_path):
    joblib.dump((fitted, good), tmp_path / "both.joblib")
    code = f"""
import socket
def refuse(*args, **kwargs):
    raise RuntimeError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import joblib
det, images = joblib.load({str(tmp_path / "both.joblib")!r})
devices = dict.fromkeys((n for n in det.get_params() if n.endswith("device")), "cpu")
print(det.set_params(**devices).score_samples(images).tobytes().hex())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == fitted.score_samples(good).tobytes().hex(), result.stderr


def test_clones_are_unfitted_and_equal(fitted, good):
    copy = clone(fitted)
    assert not any(name.endswith("_") for name in vars(copy))
    np.testing.assert_array_equal(copy.fit(good).score_samples(good), fitted.score_samples(good))
