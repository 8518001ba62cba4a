"""Pickles: numpy only, bitwise the same scores, no network, no GPU."""

import io
import json
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
    params = {k: v for k, v in params.items() if k not in ("b", "image_score")}
    return make_recontrast(**params, warm_start=True, max_iter=3)


def make_fusion(**params):
    members = [("a", make_detector(**params)), ("b", make_detector(layers=(2,)))]
    return ScoreFusionDetector(members, target_false_alarm_rate=0.2)


MAKERS = [make_detector, make_reconpatch, make_trained, make_fusion]


@pytest.fixture(scope="module")
def all_fitted(good):
    params = {"b": 3, "image_score": "patch", "geometry": "pad"}
    found = {make.__name__: make(**params).fit(good) for make in MAKERS}
    for det in found.values():
        det.predict(good)  # whatever a prediction builds must not get into the pickle
    return found


@pytest.fixture(scope="module", params=MAKERS, ids=lambda f: f.__name__)
def fitted(all_fitted, request):
    return all_fitted[request.param.__name__]


def results(det, X):
    return det.score_samples(X), det.predict_heatmap(X), det.anomaly_p_value(X)


@pytest.fixture(scope="module")
def expected(fitted, good, defective):
    return results(fitted, np.concatenate([good, defective]))


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
def test_scores_survive(fitted, good, defective, expected, round_trip):
    loaded = round_trip(fitted)
    found = results(loaded, np.concatenate([good, defective]))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.offset_ == fitted.offset_


def test_nothing_but_numpy_and_skad_inside(fitted):
    assert modules_in_pickle(fitted) <= {"skad", "numpy", "_codecs", "copy_reg"}


def test_memory_mapped(fitted, good, expected, tmp_path):
    path = tmp_path / "detector.joblib"
    joblib.dump(fitted, path)
    loaded = joblib.load(path, mmap_mode="r")
    first = getattr(loaded, "estimators_", [loaded])[0]
    learned = first.bank_.vectors if hasattr(first, "bank_") else first.loss_curve_
    assert isinstance(learned, np.memmap)
    np.testing.assert_array_equal(loaded.score_samples(good), expected[0][: len(good)])


def test_a_new_process_without_network(all_fitted, good, tmp_path):
    joblib.dump((all_fitted, good), tmp_path / "both.joblib")
    code = f"""
import socket
def refuse(*args, **kwargs):
    raise RuntimeError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import json, joblib
detectors, images = joblib.load({str(tmp_path / "both.joblib")!r})
found = {{}}
for name, det in detectors.items():
    devices = dict.fromkeys((n for n in det.get_params() if n.endswith("device")), "cpu")
    found[name] = det.set_params(**devices).score_samples(images).tobytes().hex()
print(json.dumps(found))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    expected = {name: det.score_samples(good).tobytes().hex() for name, det in all_fitted.items()}
    assert json.loads(result.stdout) == expected


def test_clones_are_unfitted_and_equal(fitted, good, expected):
    copy = clone(fitted)
    assert not any(name.endswith("_") for name in vars(copy))
    np.testing.assert_array_equal(copy.fit(good).score_samples(good), expected[0][: len(good)])
