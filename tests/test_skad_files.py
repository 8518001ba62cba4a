"""Files without pickle: the same detector or an error, nothing else."""

import json
import os
import pickle
import socket
from collections import OrderedDict

import numpy as np
import pytest
import rewriting
import torch
from conftest import (
    make_detector,
    make_dinomaly,
    make_padim,
    make_reconpatch,
    make_recontrast,
    make_spade,
)
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError

import skad
from skad import ScoreFusionDetector, persistence
from skad._features import backbones
from skad.persistence import _archive


def make_ensemble(**params):
    members = [("bank", make_detector(geometry="pad")), ("network", make_recontrast(max_iter=1))]
    return ScoreFusionDetector(members, target_false_alarm_rate=0.2)


MAKERS = {
    "patchcore": lambda: make_detector(geometry="pad", b=2, image_score="patch"),
    "reconpatch": make_reconpatch,
    "recontrast": lambda: make_recontrast(max_iter=1, warm_start=True),
    "dinomaly": lambda: make_dinomaly(max_iter=1, warm_start=True),
    "padim": make_padim,
    "spade": make_spade,
    "ensemble": make_ensemble,
}


@pytest.fixture(scope="module", params=MAKERS)
def fitted(good, request):
    return MAKERS[request.param]().fit(good)


@pytest.fixture(scope="module")
def simple(good):
    return make_detector(coreset_size=0.02).fit(good)


def test_come_back_the_same(fitted, good, defective, tmp_path):
    skad.save(fitted, tmp_path / "det.skad")
    loaded = skad.load(tmp_path / "det.skad")
    assert type(loaded) is type(fitted)
    assert str(loaded.get_params()) == str(fitted.get_params())
    X = np.concatenate([good, defective])
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    np.testing.assert_array_equal(loaded.predict_heatmap(X), fitted.predict_heatmap(X))
    np.testing.assert_array_equal(loaded.anomaly_p_value(X), fitted.anomaly_p_value(X))
    assert loaded.offset_ == fitted.offset_
    assert [p.name for p in tmp_path.iterdir()] == ["det.skad"]


def test_a_warm_start_goes_on(good, tmp_path):
    det = make_recontrast(max_iter=1, warm_start=True).fit(good)
    skad.save(det, tmp_path / "det.skad")
    loaded = skad.load(tmp_path / "det.skad")
    for d in (det, loaded):
        d.set_params(max_iter=3).fit(good)
    np.testing.assert_array_equal(loaded.loss_curve_, det.loss_curve_)
    np.testing.assert_array_equal(loaded.score_samples(good), det.score_samples(good))


def test_members_stay_shared(good, tmp_path):
    skad.save(make_ensemble().fit(good), tmp_path / "det.skad")
    loaded = skad.load(tmp_path / "det.skad")
    assert loaded.named_estimators_["bank"] is loaded.estimators_[0]
    loaded.set_params(bank__batch_size=3).score_samples(good)
    assert loaded.estimators_[0].batch_size == 3


def test_names_of_columns(good, tmp_path):
    import pandas as pd

    rows = pd.DataFrame(good[:, :16, :16, 0].reshape(len(good), -1) / 255.0)
    rows.columns = [f"p{i}" for i in rows.columns]
    det = make_detector(image_shape=(16, 16)).fit(rows)
    skad.save(det, tmp_path / "det.skad")
    loaded = skad.load(tmp_path / "det.skad")
    np.testing.assert_array_equal(loaded.feature_names_in_, det.feature_names_in_)
    np.testing.assert_array_equal(loaded.score_samples(rows), det.score_samples(rows))


def test_memory_is_left_behind(good, tmp_path):
    det = make_detector(memory=tmp_path / "store").fit(good)
    skad.save(det, tmp_path / "det.skad")
    assert skad.load(tmp_path / "det.skad").memory is None
    assert det.memory is not None


def test_without_network_or_pickles(simple, good, tmp_path, monkeypatch):
    skad.save(simple, tmp_path / "det.skad")
    expected = simple.score_samples(good)

    def refuse(*args, **kwargs):
        raise RuntimeError("forbidden")

    for name in ("create_connection", "getaddrinfo", "socket"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    # As in another process.
    monkeypatch.setattr(backbones, "_alive", {})
    monkeypatch.setattr(backbones, "_latest", OrderedDict())
    np.testing.assert_array_equal(skad.load(tmp_path / "det.skad").score_samples(good), expected)


class TestBackbone:
    def test_travels_along(self, good, tmp_path, monkeypatch):
        """Weights that the other machine does not have."""
        from skad._features import load_backbone

        net = load_backbone("resnet10t", None, (2, 3), torch.device("cpu"))
        file = tmp_path / "weights.safetensors"
        save_file(
            {n: np.array(t.numpy(), order="C") for n, t in net.body.state_dict().items()}, file
        )
        det = make_detector(backbone="resnet10t", weights=file, image_size=64).fit(good)
        skad.save(det, tmp_path / "det.skad", include_backbone=True)
        expected = det.score_samples(good)
        file.unlink()
        loaded = skad.load(tmp_path / "det.skad")
        assert loaded.weights == str(tmp_path / "det.skad")
        np.testing.assert_array_equal(loaded.score_samples(good), expected)

    def test_of_recontrast_and_of_an_ensemble_of_one(self, good, tmp_path):
        members = [
            ("a", make_recontrast(max_iter=1)),
            ("b", make_recontrast(max_iter=1, bn="eval")),
        ]
        det = ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
        skad.save(det, tmp_path / "det.skad", include_backbone=True)
        loaded = skad.load(tmp_path / "det.skad")
        assert {member.weights for member in loaded.estimators_} == {str(tmp_path / "det.skad")}
        np.testing.assert_array_equal(loaded.score_samples(good), det.score_samples(good))

    def test_several_do_not_fit_into_one_file(self, good, tmp_path):
        members = [("a", make_detector()), ("b", make_detector(weights=None))]
        det = ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
        with pytest.raises(ValueError, match="one backbone per file"):
            skad.save(det, tmp_path / "det.skad", include_backbone=True)


class TestRefusals:
    def test_suffix(self, simple, tmp_path):
        with pytest.raises(ValueError, match=r"must end in '\.skad'"):
            skad.save(simple, tmp_path / "det.pkl")
        with pytest.raises(ValueError, match=r"must end in '\.skad'"):
            skad.load(tmp_path / "det.pkl")

    def test_unfitted_and_foreign(self, tmp_path):
        with pytest.raises(NotFittedError):
            skad.save(make_detector(), tmp_path / "det.skad")
        with pytest.raises(TypeError, match="dict is no detector"):
            skad.save({}, tmp_path / "det.skad")

    def test_parameters_that_are_no_text(self, good, tmp_path):
        det = make_detector(random_state=np.random.RandomState(0)).fit(good)
        with pytest.raises(ValueError, match="random_state holds a RandomState"):
            skad.save(det, tmp_path / "det.skad")
        assert not list(tmp_path.iterdir())

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            skad.load(tmp_path / "det.skad")

    def test_a_safetensors_file_of_something_else(self, tmp_path):
        save_file({"a": np.zeros(3)}, tmp_path / "det.skad")
        with pytest.raises(ValueError, match="lacks skad's header"):
            skad.load(tmp_path / "det.skad")

    def test_another_version_warns(self, simple, good, tmp_path, monkeypatch):
        monkeypatch.setattr(persistence, "__version__", "0.0.1")
        skad.save(simple, tmp_path / "det.skad")
        monkeypatch.undo()
        with pytest.warns(UserWarning, match=r"written by skad 0\.0\.1"):
            loaded = skad.load(tmp_path / "det.skad")
        np.testing.assert_array_equal(loaded.score_samples(good), simple.score_samples(good))

    def test_another_format(self, simple, tmp_path, monkeypatch):
        monkeypatch.setattr(persistence, "_FORMAT", "99")
        skad.save(simple, tmp_path / "det.skad")
        monkeypatch.undo()
        with pytest.raises(ValueError, match="has format '99'"):
            skad.load(tmp_path / "det.skad")

    @pytest.mark.parametrize(
        "text", ["9" * 10_000, "9\n" * 5000, "\x1b[31m" * 2000, "\u202e" * 300]
    )
    @pytest.mark.parametrize("name", ["__version__", "_FORMAT"])
    def test_what_a_header_says_is_shown_in_one_line(
        self, simple, tmp_path, monkeypatch, name, text
    ):
        monkeypatch.setattr(persistence, name, text)
        skad.save(simple, tmp_path / "det.skad")
        monkeypatch.undo()
        if name == "_FORMAT":
            with pytest.raises(ValueError, match="has format") as raised:
                skad.load(tmp_path / "det.skad")
            message = str(raised.value)
        else:
            with pytest.warns(UserWarning, match="written by skad") as caught:
                skad.load(tmp_path / "det.skad")
            message = str(caught[0].message)
        assert len(message) < 300 + len(str(tmp_path))
        assert message.isprintable()

    @pytest.mark.parametrize(
        "parameter", ["contamination", "geometry", "coreset_method", "unknown" * 999]
    )
    def test_what_a_content_says_is_shown_in_a_few_lines(self, simple, tmp_path, parameter):
        skad.save(simple, tmp_path / "det.skad")
        content, tensors = rewriting.parts(tmp_path / "det.skad")
        pairs = [pair for pair in content["state"] if pair[0] != parameter]
        content["state"] = [*pairs, [parameter, "x" * 10_000]]
        rewriting.write(tmp_path / "det.skad", content, tensors)
        with pytest.raises(ValueError, match=parameter[:7]) as raised:
            skad.load(tmp_path / "det.skad")
        assert len(str(raised.value)) < 700 + len(str(tmp_path))

    def test_a_failure_leaves_the_old_file(self, simple, good, tmp_path, monkeypatch):
        skad.save(simple, tmp_path / "det.skad")
        before = (tmp_path / "det.skad").read_bytes()

        def failing(*args):
            raise OSError("No space left on device")

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="No space"):
            skad.save(simple, tmp_path / "det.skad")
        assert [p.name for p in tmp_path.iterdir()] == ["det.skad"]
        assert (tmp_path / "det.skad").read_bytes() == before


class TestTampering:
    def rewritten(self, simple, tmp_path, change):
        """A file with another content under the old checksum."""
        path = tmp_path / "det.skad"
        skad.save(simple, path)
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        change(metadata, tensors)
        save_file(tensors, path, metadata=metadata)
        return path

    def test_other_numbers(self, simple, tmp_path):
        def change(metadata, tensors):
            tensors["array0"] = tensors["array0"] + 1

        with pytest.raises(ValueError, match="checksum"):
            skad.load(self.rewritten(simple, tmp_path, change))

    def test_another_threshold(self, simple, tmp_path):
        def change(metadata, tensors):
            content = metadata["content"].replace(str(simple.offset_), "-100.0")
            assert content != metadata["content"]
            metadata["content"] = content

        with pytest.raises(ValueError, match="checksum"):
            skad.load(self.rewritten(simple, tmp_path, change))

    def test_classes_that_are_not_skads(self, simple, tmp_path):
        """Even with a right checksum."""

        def change(metadata, tensors):
            metadata["content"] = json.dumps({"object": "Popen", "state": [["args", "true"]]})
            metadata["checksum"] = _archive.checksum(metadata, tensors)

        with pytest.raises(ValueError, match="not what skad writes"):
            skad.load(self.rewritten(simple, tmp_path, change))

    @pytest.mark.parametrize("n", [0, 7, 100, 2000, -1])
    def test_truncated(self, simple, tmp_path, n):
        path = tmp_path / "det.skad"
        skad.save(simple, path)
        path.write_bytes(path.read_bytes()[:n])
        with pytest.raises(ValueError, match="damaged, incomplete or no file"):
            skad.load(path)

    @pytest.mark.parametrize("n", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
    def test_mutated_files(self, simple, n, tmp_path):
        """An error of ours or an equal detector, nothing else."""
        path = tmp_path / "det.skad"
        skad.save(simple, path)
        original = path.read_bytes()
        header = int.from_bytes(original[:8], "little") + 8
        rng, n_equal = np.random.default_rng(0), 0
        for i in range(n):
            content = bytearray(original)
            # Half of the mutations hit the header, which is small beside the arrays.
            end = header if i % 2 else len(content)
            for at in rng.integers(0, end, size=rng.integers(1, 4)):
                content[at] = rng.integers(0, 256)
            if i % 7 == 0:
                del content[int(rng.integers(0, len(content))) :]
            path.write_bytes(content)
            try:
                loaded = skad.load(path)
            except ValueError:
                continue
            n_equal += 1
            np.testing.assert_array_equal(loaded.bank_.vectors, simple.bank_.vectors)
            assert loaded.offset_ == simple.offset_
            assert str(loaded) == str(simple)
        assert n_equal < n / 20
