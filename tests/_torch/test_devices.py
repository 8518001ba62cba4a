"""Devices and precisions."""

from types import SimpleNamespace

import pytest
import torch

from skad._torch.devices import (
    autocast,
    autocast_dtype,
    fuses_convolutions,
    has_fast_halves,
    has_room,
    resolve_device,
    training_precision,
)


def test_auto_finds_something():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_cpu_is_always_there():
    assert resolve_device("cpu") == torch.device("cpu")


def test_a_device_that_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"'cuda:3' is not available.*device='cpu'"):
        resolve_device("cuda:3")
    with pytest.raises(ValueError, match="not a torch device"):
        resolve_device("gpu")


@pytest.mark.parametrize("device", ["x" * 5000, "cuda:" + "9" * 4000, "cpu\n" * 900])
def test_names_of_devices_may_be_long(device):
    with pytest.raises(ValueError, match=r"^device='") as raised:
        resolve_device(device)
    assert len(str(raised.value)) < 500


def test_precision_is_never_chosen_silently():
    product = torch.ones(2, 2)
    with autocast(torch.device("cpu"), "float32"):
        assert (product @ product).dtype == torch.float32
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (product @ product).dtype == torch.bfloat16


def test_room_on_a_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (1000, 4000))
    assert has_room(torch.device("cuda"), 500)
    assert not has_room(torch.device("cuda"), 501)
    assert has_room(torch.device("cpu"), 10**15)


@pytest.mark.parametrize("supported", [True, False])
def test_training_precision_follows_the_hardware(monkeypatch, supported):
    for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, question, lambda: supported, raising=False)
    capability = (9, 0) if supported else (7, 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    expected = "bfloat16" if supported else "float32"
    for device in (torch.device("cpu"), torch.device("cuda")):
        assert training_precision(device, "auto") == expected
        assert training_precision(device, "float32") == "float32"
        assert training_precision(device, "bfloat16") == "bfloat16"
    assert training_precision(torch.device("mps"), "auto") == "float32"


def test_training_precision_where_torch_cannot_tell(monkeypatch):
    for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, question, raising=False)
    assert training_precision(torch.device("cpu"), "auto") == "float32"


@pytest.mark.parametrize("switches", [{}, {"allow_fp16_accumulation": False}])
def test_halves_are_fast_on_a_gpu_that_adds_them_up_in_float32(monkeypatch, switches):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(**switches))
    assert has_fast_halves(gpu)
    assert not has_fast_halves(torch.device("cpu"))
    torch.backends.cuda.matmul.allow_fp16_accumulation = True
    assert not has_fast_halves(gpu)


def test_type_of_the_surrounding_autocast():
    cpu = torch.device("cpu")
    assert autocast_dtype(cpu) is None
    for precision, expected in (("float32", None), ("bfloat16", torch.bfloat16)):
        with autocast(cpu, precision):
            assert autocast_dtype(cpu) is expected


def test_cudnn_alone_fuses(monkeypatch):
    assert not fuses_convolutions(torch.device("cpu"))
    monkeypatch.setattr(torch.version, "hip", None)
    assert fuses_convolutions(torch.device("cuda"))
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert not fuses_convolutions(torch.device("cuda"))
