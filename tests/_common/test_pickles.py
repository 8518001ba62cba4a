"""What pickles and files of skops hold: text for paths, and classes of skad's own list."""

import contextlib
import copy
import io
import pathlib
import pickle
import pickletools
import subprocess
import sys
from functools import cache

import joblib
import numpy as np
import pytest
import skops.io
import tiny_resnet  # noqa: F401  (registers a backbone, whose ReContrast is small)
import torch
from conftest import (
    make_detector,
    make_dinomaly,
    make_padim,
    make_reconpatch,
    make_recontrast,
    make_spade,
)
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import skad
from skad import DefectClassifier, FeatureStore, ScoreFusionDetector

BUNDLED = next(pathlib.Path(skad.__file__).parent.rglob("skad_nano*.safetensors"))


def classes_in(pickled):
    """Names of the classes that a pickle of protocol 2 asks for."""
    opcodes = pickletools.genops(pickled)
    return {arg.replace(" ", ".") for code, arg, _ in opcodes if code.name == "GLOBAL"}


def make_small(**params):
    tiny = {} if params.get("weights") == BUNDLED else {"backbone": "tiny_resnet", "image_size": 64}
    return make_recontrast(**tiny, **params, max_iter=2)


def make_fusion(**params):
    members = [
        ("bank", make_detector(**params)),
        ("network", make_small(weights=params.get("weights", "pretrained"))),
    ]
    return ScoreFusionDetector(members, target_false_alarm_rate=0.2)


class TestPaths:
    """A path object of one system cannot be unpickled on another."""

    KINDS = {
        "weights": lambda folder: {"weights": BUNDLED},
        "memory": lambda folder: {"memory": folder / "store"},
        "store": lambda folder: {"memory": FeatureStore(folder / "store")},
        "joblib": lambda folder: {"memory": joblib.Memory(folder / "store", verbose=0)},
        "both": lambda folder: {"weights": BUNDLED, "memory": folder},
    }

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("make", [make_detector, make_reconpatch, make_fusion])
    def test_are_text(self, good, tmp_path, make, kind):
        params = self.KINDS[kind](tmp_path)
        detector = make(**params)
        before = detector.get_params()
        detector.fit(good)
        pickled = pickle.dumps(detector, 2)
        assert not any(name.startswith("pathlib") for name in classes_in(pickled))
        # The live detector keeps what it was given, and the other one scores the same.
        after = detector.get_params()
        assert all(after[name] is value for name, value in before.items() if "memory" in name)
        loaded = pickle.loads(pickled)
        np.testing.assert_array_equal(loaded.score_samples(good), detector.score_samples(good))

    @pytest.mark.parametrize("make", [make_detector, make_reconpatch, make_recontrast])
    def test_before_fit_and_inside_others(self, make):
        params = {"weights": BUNDLED} | (
            {} if make is make_recontrast else {"memory": BUNDLED.parent}
        )
        detector = make(**params)
        for holder in (detector, make_pipeline(detector), [detector], make_fusion(weights=BUNDLED)):
            assert b"pathlib" not in pickle.dumps(holder, 2)
        loaded = pickle.loads(pickle.dumps(detector))
        assert loaded.weights == str(BUNDLED)
        assert detector.weights is BUNDLED

    def test_of_another_system(self, good):
        detector = make_detector().fit(good)
        detector.set_params(weights=pathlib.PureWindowsPath("C:/weights/a.safetensors"))
        pickled = pickle.dumps(detector, 2)
        assert b"pathlib" not in pickled
        assert pickle.loads(pickled).weights == r"C:\weights\a.safetensors"

    def test_stores_stay_equal(self, tmp_path):
        store = FeatureStore(tmp_path, max_size="1GB")
        detector = pickle.loads(pickle.dumps(make_detector(memory=store)))
        assert detector.memory == store
        assert detector.memory.path == str(tmp_path)

    def test_copies_and_clones(self, good):
        detector = make_detector(weights=BUNDLED).fit(good)
        assert clone(detector).weights == BUNDLED
        assert copy.deepcopy(detector).score_samples(good).tolist() == (
            detector.score_samples(good).tolist()
        )


class Pooled(torch.nn.Module):
    """A network of a user's own, of no tensors: skops writes none."""

    def forward(self, x):
        return [torch.nn.functional.avg_pool2d(x, 4)]


@pytest.fixture(scope="module")
def dumped(good):
    """A function that fits a detector once: images, the detector, its content for skops."""

    @cache
    def dump(name):
        X = good[:, :16, :16, 0].reshape(len(good), -1) / 255.0 if name == "rows" else good
        detector = TestTypesToTrust.MAKERS[name]().fit(X)
        return X, detector, skops.io.dumps(detector)

    return dump


class TestTypesToTrust:
    MAKERS = {
        "patchcore": make_detector,
        "rows": lambda: make_detector(image_shape=(16, 16)),
        "weighted": lambda: make_detector(
            b=3, image_score="patch", geometry="pad", random_state=np.random.RandomState(0)
        ),
        "percentile": lambda: make_detector(contamination=0.1, layers=[2]),
        "range": lambda: make_detector(layers=range(1, 3)),
        "range of a trained one": lambda: make_reconpatch(epochs=1, layers=range(2, 3)),
        "reconpatch": lambda: make_reconpatch(epochs=1),
        "recontrast": lambda: make_small(warm_start=True),
        "dinomaly": lambda: make_dinomaly(max_iter=1),
        "padim": make_padim,
        "spade": make_spade,
        "fusion": make_fusion,
    }

    @pytest.mark.parametrize("name", MAKERS)
    def test_are_complete(self, dumped, name):
        X, detector, data = dumped(name)
        assert set(skops.io.get_untrusted_types(data=data)) <= set(skad.SKOPS_TYPES)
        loaded = skops.io.loads(data, trusted=skad.SKOPS_TYPES)
        np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
        # What skops trusts by itself, and the list, hold it all.
        with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException):
            skops.io.loads(data, trusted=[])

    @pytest.mark.parametrize("make", [FeatureStore, lambda path: path])
    def test_with_a_store(self, good, tmp_path, make):
        detector = make_detector(memory=make(tmp_path)).fit(good)
        loaded = skops.io.loads(skops.io.dumps(detector), trusted=skad.SKOPS_TYPES)
        np.testing.assert_array_equal(loaded.score_samples(good), detector.score_samples(good))

    def test_of_a_pipeline(self, good):
        pipeline = make_pipeline(make_detector()).fit(good)
        loaded = skops.io.loads(skops.io.dumps(pipeline), trusted=skad.SKOPS_TYPES)
        np.testing.assert_array_equal(loaded.predict(good), pipeline.predict(good))

    def test_are_minimal(self, good, defective, dumped, tmp_path):
        """Each is asked for by some detector."""
        others = (
            make_detector(memory=FeatureStore(tmp_path)),
            make_detector(backbone=Pooled()),
            make_detector(roi=np.ones(good.shape[1:3])),
            make_detector(image_size=48, tiles=(1, 2)),
        )
        files = [dumped(name)[2] for name in self.MAKERS]
        files += [skops.io.dumps(detector.fit(good)) for detector in others]
        X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
        for method in ("sigmoid", "isotonic"):
            clf = DefectClassifier(make_detector(), defect_label=-1, method=method)
            files.append(skops.io.dumps(clf.fit(X, y)))
        asked = {kind for data in files for kind in skops.io.get_untrusted_types(data=data)}
        assert {name for name in asked if name.startswith("skad.")} == set(skad.SKOPS_TYPES)
        assert sorted(skad.SKOPS_TYPES) == skad.SKOPS_TYPES

    def test_cost_no_import(self):
        code = "import skad, sys; skad.SKOPS_TYPES; print(*({'torch', 'skops'} & set(sys.modules)))"
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert found.stdout == "\n"


@pytest.fixture(
    scope="module", params=[make_detector, make_small, make_fusion], ids=lambda f: f.__name__
)
def watched(request, good):
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9")
    pytest.importorskip("rich")
    with contextlib.redirect_stdout(io.StringIO()):
        return request.param().set_callbacks(callback.ProgressBar()).fit(good)


class TestCallbacks:
    def test_stay_behind_in_files_of_skad(self, watched, good, tmp_path):
        skad.save(watched, tmp_path / "det.skad")
        loaded = skad.load(tmp_path / "det.skad")
        assert not any("callback" in name for name in vars(loaded))
        assert watched._skl_callbacks
        np.testing.assert_array_equal(loaded.score_samples(good), watched.score_samples(good))

    def test_travel_in_pickles_as_scikit_learn_has_them(self, watched, good):
        """Its workers need them."""
        loaded = pickle.loads(pickle.dumps(watched))
        assert len(loaded._skl_callbacks) == 1
        np.testing.assert_array_equal(loaded.score_samples(good), watched.score_samples(good))
