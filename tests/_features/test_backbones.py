"""Backbones: names, levels, the shared cache, layouts, random weights."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from skad._features.backbones import load_backbone

CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))


def test_levels_have_the_strides_of_the_papers():
    net = load_backbone("resnet10t", None, (1, 2, 3), CPU)
    assert list(net.strides) == [4, 8, 16]
    assert [tuple(level.shape) for level in net(PIXELS)] == [
        (2, 64, 16, 16),
        (2, 128, 8, 8),
        (2, 256, 4, 4),
    ]


def test_extraction_stops_at_the_last_level():
    names = load_backbone("resnet10t", None, (1, 2), CPU).state_dict()
    assert not any("layer3" in name for name in names)


def test_uint8_and_float_pixels_are_one():
    net = load_backbone("resnet10t", None, (2,), CPU)
    as_float = (PIXELS.numpy().astype(np.float32)) / np.float32(255)
    assert torch.equal(net(PIXELS)[0], net(torch.from_numpy(as_float))[0])


def test_channels_last_networks_are_turned():
    net = load_backbone("swin_tiny_patch4_window7_224", None, (1, 2), CPU)
    maps = net(PIXELS.repeat(1, 4, 4, 1)[:1, :224, :224])
    assert [tuple(level.shape) for level in maps] == [(1, 192, 28, 28), (1, 384, 14, 14)]


def test_random_weights_are_always_the_same_and_frozen():
    net = load_backbone("resnet10t", None, (2,), CPU)
    other = load_backbone("resnet10t", None, (2, 3), CPU)
    weight = "layer2.0.conv1.weight"
    assert torch.equal(net.body.state_dict()[weight], other.body.state_dict()[weight])
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training


def test_built_once_for_all_threads(monkeypatch):
    import skad._features.backbones as home

    built, build = [], home._build
    monkeypatch.setattr(home, "_build", lambda *a: (built.append(a), build(*a))[1])
    nets = []
    threads = [
        threading.Thread(target=lambda: nets.append(load_backbone("resnet14t", None, (1,), CPU)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert all(net is nets[0] for net in nets)


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "w.pth"
    state = load_backbone("resnet10t", None, (1,), CPU).body.state_dict()
    torch.save(state, path)
    first = load_backbone("resnet10t", path, (1,), CPU).digest
    torch.save({k: v + 1 if v.is_floating_point() else v for k, v in state.items()}, path)
    assert load_backbone("resnet10t", path, (1,), CPU).digest != first


@pytest.mark.parametrize(
    ("backbone", "weights", "levels", "message"),
    [
        ("resnet_18", None, (2, 3), "Did you mean"),
        ("resnet18", "pretrained", (2, 3), r"needs its tag.*resnet18\.tv_in1k"),
        ("resnet18.nope", "pretrained", (2, 3), r"Its tags: .*resnet18\.tv_in1k"),
        ("resnet18", None, (2, 7), "last level is 4"),
        ("resnet18", None, (-1, 2), "non-negative"),
    ],
)
def test_refusals(backbone, weights, levels, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(backbone, weights, levels, CPU)


def test_a_torchvision_of_another_build_does_no_harm():
    """With the operators gone, torchvision alone fails to import; through skad it succeeds."""
    code = """
import sys, torch
load = torch.ops.load_library
def refuse(path):
    raise OSError("no operators")
torch.ops.load_library = refuse
try:
    import torchvision
    sys.exit("torchvision was expected to fail")
except RuntimeError as error:
    assert "torchvision::nms" in str(error), error
from skad._features._timm import import_timm
net = import_timm().create_model("resnet10t", features_only=True)
import torchvision
print("imported", torchvision.__version__)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.startswith("imported"), result.stderr
