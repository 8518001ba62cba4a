"""Weights: the hub and its absence, files of every kind, names, fingerprints."""

import json
import pickle
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from skad._features.backbones import _create, load_backbone
from skad._features.weight_files import (
    MissingWeightsError,
    _offline_message,
    load_weights,
    read_state_dict,
    weights_digest,
)

CPU = torch.device("cpu")


@pytest.fixture
def state():
    """A whole ResNet-10-T's tensors, as a full checkpoint would hold them."""
    from skad._features._timm import import_timm

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        return import_timm().create_model("resnet10t").state_dict()


def save(state, path):
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("partial", [False, True])
def test_whole_and_partial_files_load(state, tmp_path, name, partial):
    if partial:
        state = {k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}
    net = load_backbone("resnet10t", save(state, tmp_path / name), (2, 3), CPU)
    loaded = net.body.state_dict()["layer3.0.conv1.weight"]
    torch.testing.assert_close(loaded, state["layer3.0.conv1.weight"])


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrapped_and_prefixed_checkpoints(state, tmp_path, wrapper):
    wrapped = {wrapper: {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
    plain = load_backbone("resnet10t", save(state, tmp_path / "a.pth"), (2, 3), CPU)
    packed = load_backbone("resnet10t", save(wrapped, tmp_path / "b.pth"), (2, 3), CPU)
    assert packed.digest == plain.digest


def test_half_precision_files_load_as_float32(state, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    net = load_backbone("resnet10t", save(half, tmp_path / "half.safetensors"), (2,), CPU)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_old_densenet_names_load():
    model = _create("densenet121", (1,))
    state = model.state_dict()
    old = {}
    for key, value in state.items():
        key = key.replace("features_", "features.")
        for n in "12":
            key = key.replace(f".norm{n}.", f".norm.{n}.").replace(f".conv{n}.", f".conv.{n}.")
        old[key] = value
    assert any(".norm.1." in key for key in old)
    load_weights(model, old, "file")


def test_missing_and_misshapen_tensors_are_named(state, tmp_path):
    del state["layer3.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"lacks 1 of the \d+ tensors.*layer3\.0\.conv1\.weight"):
        load_backbone("resnet10t", save(state, tmp_path / "a.pth"), (2, 3), CPU)
    state["layer3.0.conv1.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"layer3\.0\.conv1\.weight \(2, 2\) instead of"):
        load_backbone("resnet10t", save(state, tmp_path / "b.pth"), (2, 3), CPU)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.skad", "w"])
@pytest.mark.parametrize(
    "content",
    [
        b"hello\nworld\n",
        b"not weights at all",
        b"",
        b"{}",
        b"<html><body>404</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        pickle.dumps({"a": [1, 2]}, 2),
        pickle.dumps(SimpleNamespace(a=1), 2),
        b"PK\x03\x04" + bytes(100),
        bytes(range(256)),
    ],
    ids=range(10),
)
def test_files_that_are_not_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}' (cannot be read as weights|holds no)") as caught:
        read_state_dict(tmp_path / name)
    assert len(str(caught.value)) < 600
    assert "weights_only" not in str(caught.value)


def test_folders_and_files_that_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(MissingWeightsError, match="it is a folder; name a file in it"):
        load_backbone("resnet10t", tmp_path, (1,), CPU)

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "w.pth").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ValueError, match=r"w\.pth' cannot be read as weights: PermissionError"):
        load_backbone("resnet10t", tmp_path / "w.pth", (1,), CPU)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "hacked"), "w"))

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "evil.pth")
    assert not (tmp_path / "hacked").exists()


def test_a_file_without_tensors(tmp_path):
    with pytest.raises(ValueError, match="holds no tensors"):
        read_state_dict(save({"epoch": 1}, tmp_path / "empty.pth"))
    with pytest.raises(MissingWeightsError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18_layer123.safetensors"),
        ("densenet169", "densenet169_features.fp16.safetensors"),
        ("resnet50", "resnet50_keras_layer123.fp16.safetensors"),
    ],
)
def test_real_partial_weights_load(shared, name, file):
    net = load_backbone(name, shared / "weights" / file, (2, 3), CPU)
    maps = net(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert [layer.shape[-1] for layer in maps] == [8, 4]
    assert all(layer.isfinite().all() for layer in maps)


def test_the_fingerprint_sees_every_value():
    net = torch.nn.Linear(3, 2)
    before = weights_digest(net)
    assert weights_digest(net) == before
    net.bias.data[0] += 1e-6
    assert weights_digest(net) != before


def start_with_hub(code, tmp_path, endpoint):
    """Start a process whose hub lies at `endpoint`; the hub's names are read at import."""
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "cache"),
        "PATH": "/usr/bin:/bin",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, env=environment, text=True, **pipes)


class _Hub(BaseHTTPRequestHandler):
    """The few answers of a model hub that a download needs."""

    content = b""

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def do_GET(self):
        if not self.path.endswith("model.safetensors"):
            body = json.dumps({"sha": "0" * 40, "siblings": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *args):
        pass


_LOAD_TWICE = """
    import time, torch
    from skad._features import backbones
    from skad._features.backbones import load_backbone

    def load(name):
        return load_backbone(name, "pretrained", (2, 3), torch.device("cpu"))

    print(load("resnet10t.c3_in1k").digest, flush=True)
    input()  # the hub goes away
    # As in another process.
    for kept in (backbones._alive, backbones._latest, backbones._found, backbones._contents):
        kept.clear()
    print(load("resnet10t.c3_in1k").digest)
    start = time.perf_counter()
    try:
        load("resnet18.tv_in1k")
    except OSError as error:
        print(isinstance(error, ValueError), error)
    print("seconds", time.perf_counter() - start)
"""


def test_weights_come_from_the_hub_and_then_from_its_cache(state, tmp_path):
    full = {k: v for k, v in state.items() if "num_batches" not in k}
    _Hub.content = save(full, tmp_path / "served.safetensors").read_bytes()
    expected = load_backbone("resnet10t", tmp_path / "served.safetensors", (2, 3), CPU).digest
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = start_with_hub(_LOAD_TWICE, tmp_path, f"http://127.0.0.1:{server.server_port}")
    try:
        online = process.stdout.readline().strip()
    finally:
        server.shutdown()
        server.server_close()
    offline, errors = process.communicate("\n", timeout=120)
    assert online == expected, errors
    from_cache, said = offline.split("\n", 1)
    assert from_cache == expected, errors
    assert_fails_at_once_and_names_the_remedies(said, tmp_path)


def assert_fails_at_once_and_names_the_remedies(said, tmp_path):
    """Of weights that the cache does not have."""
    assert "True The pretrained weights of 'resnet18.tv_in1k'" in said
    first, then = "backbone='skad_nano'", "weights='/path/to/model.safetensors'"
    assert 0 < said.find(first) < said.find(then)
    assert str(tmp_path / "cache" / "hub" / "models--timm--resnet18.tv_in1k") in said
    assert float(said.split()[-1]) < 10


def altered(state, key, change):
    return {k: change(v) if k == key else v for k, v in state.items()}


def with_one(value):
    def change(tensor):
        tensor = tensor.double()
        tensor.view(-1)[-1] = value
        return tensor

    return change


FAULTS = [
    ("layer1.0.conv2.weight", with_one(float("nan")), "NaN or infinite"),
    ("layer2.0.bn1.bias", with_one(float("-inf")), "NaN or infinite"),
    # In float32, which skad computes in.
    ("layer2.0.bn1.weight", with_one(1e300), "NaN or infinite"),
    ("layer2.0.bn2.running_mean", with_one(float("nan")), "NaN or infinite"),
    ("layer1.0.bn1.running_var", with_one(-1e-3), "a negative variance"),
    ("layer1.0.conv1.weight", torch.Tensor.short, "int16 instead of floats"),
    ("layer1.0.bn1.weight", torch.Tensor.bool, "bool instead of floats"),
    ("layer1.0.conv1.weight", lambda t: t.to(torch.complex128), "complex128 instead of floats"),
    ("layer1.0.conv1.weight", lambda t: t.to("meta"), "without numbers, on the device meta"),
    ("layer1.0.bn1.bias", torch.Tensor.to_sparse, "sparse"),
]


@pytest.mark.parametrize(("key", "change", "fault"), FAULTS)
def test_numbers_that_no_network_computes_with_are_named(state, tmp_path, key, change, fault):
    file = save(altered(state, key, change), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth' holds .*{key} \(.*({fault})") as caught:
        load_backbone("resnet10t", file, (1, 2), CPU)
    assert len(str(caught.value)) < 400


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_quantised_weights_are_named(state, tmp_path):
    def quantised(tensor):
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.quint8)

    file = save(altered(state, "conv1.0.weight", quantised), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth' holds .*conv1\.0\.weight \(quantised\)"):
        load_backbone("resnet10t", file, (1,), CPU)


def test_what_the_backbone_does_not_need_may_hold_anything(state, tmp_path):
    state = altered(state, "layer4.0.conv1.weight", with_one(float("nan")))
    state = altered(state, "fc.weight", torch.Tensor.int)
    load_backbone("resnet10t", save(state, tmp_path / "w.pth"), (1, 2), CPU)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.skad", "w.bin"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\n", "run git lfs pull"),
        (b"\n<!DOCTYPE HTML PUBLIC><html>", "it is a web page"),
        (b"<HTML lang=en>sign in", "it is a web page"),
        (b"", "it is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "it is no file of weights, is incomplete, or"),
        (b"\x1f\x8b" + bytes(50), "it is no file of weights, is incomplete, or"),
        (b"cut", "it is no file of weights, is incomplete, or"),
        (pickle.dumps([1]), "it is no file of weights, is incomplete, or|holds no tensors"),
    ],
)
def test_one_sentence_for_all_that_is_no_file_of_weights(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_state_dict(tmp_path / name)
    foreign = ("Error", "miniz", "\x1b", "can still be loaded")
    assert not [word for word in foreign if word in str(caught.value)]


def test_whole_modules_and_cut_files_get_that_sentence(state, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    whole = save(state, tmp_path / "w.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    for name in ("module.pth", "cut.pth"):
        with pytest.raises(
            ValueError, match=f"{name}' cannot be read as weights: it is no file of"
        ):
            read_state_dict(tmp_path / name)


def test_a_saved_detector_without_its_backbone(state, tmp_path):
    save_file({"bank": torch.zeros(3, 2)}, tmp_path / "line.skad")
    with pytest.raises(ValueError, match=r"line\.skad' holds no backbone: .*include_backbone=True"):
        read_state_dict(tmp_path / "line.skad")


def test_an_empty_name():
    with pytest.raises(MissingWeightsError, match=r"weights='' names no file\."):
        read_state_dict("")


@pytest.mark.parametrize(("licence", "is_named"), [("dinov3-license", True), ("apache-2.0", False)])
def test_licences_that_are_not_free_are_named(licence, is_named):
    message = _offline_message("timm/a.b", "model.safetensors", OSError("no network"), licence)
    assert (licence in message) == is_named
