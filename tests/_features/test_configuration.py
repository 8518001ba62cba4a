"""Networks are told apart by what they are made of; copies are not."""

import copy
import functools
import threading
import warnings
from collections import deque
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from skad._features.configuration import fingerprint

SCALE = 2.0


class Net(nn.Module):
    """Convolves, then does what it is told to."""

    def __init__(self, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, x):
        return [self.conv(x) * SCALE]


@dataclass
class Settings:
    slope: float = 0.1
    sizes: tuple = (1, 2)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Mode(Enum):
    SUM = 1
    MEAN = 2


def half(x):
    return x / 2


def double(x):
    return x * 2


def scaled(factor):
    return lambda x: x * factor


def alike(one, other, exact=True):
    return fingerprint(one, exact=exact) == fingerprint(other, exact=exact)


DIFFERENT = {
    "class of a module": (nn.ReLU(), nn.Tanh()),
    "pooling": (nn.MaxPool2d(2), nn.AvgPool2d(2)),
    "what repr does not show": (
        nn.AvgPool2d(2, count_include_pad=True),
        nn.AvgPool2d(2, count_include_pad=False),
    ),
    "alignment": (
        nn.Upsample(4, mode="bilinear", align_corners=True),
        nn.Upsample(4, mode="bilinear", align_corners=False),
    ),
    "order": (nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())),
    "number": (0.1, 0.2),
    "kind of number": (1, True),
    "text": ("bilinear", "nearest"),
    "function": (half, double),
    "function of torch": (F.relu, F.gelu),
    "builtin function": (torch.relu, torch.tanh),
    "lambda": (lambda x: x + 1, lambda x: x - 1),
    "constant of a lambda": (lambda x: x + 1, lambda x: x + 2),
    "what a function closes over": (scaled(1.0), scaled(1.5)),
    "partial": (
        functools.partial(F.leaky_relu, negative_slope=0.1),
        functools.partial(F.leaky_relu),
    ),
    "method": (Settings(0.1).__eq__, Settings(0.2).__eq__),
    "nested containers": ({"a": [1, (2, {3})]}, {"a": [1, (2, {4})]}),
    "modules in a list": ([nn.ReLU()], [nn.Sigmoid()]),
    "deque": (deque([1, 2]), deque([2, 1])),
    "data class": (Settings(0.1), Settings(0.2)),
    "namespace": (SimpleNamespace(a=1), SimpleNamespace(a=2)),
    "slots": (Slotted(1), Slotted(2)),
    "enumeration": (Mode.SUM, Mode.MEAN),
    "type": (torch.float32, torch.float64),
    "class": (Settings, Slotted),
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", DIFFERENT)
def test_settings_are_told_apart(kind, exact):
    one, other = DIFFERENT[kind]
    assert not alike(Net(extra=one), Net(extra=other), exact)
    assert alike(Net(extra=one), Net(extra=one), exact)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", DIFFERENT)
def test_copies_are_alike(kind, exact):
    net = Net(extra=DIFFERENT[kind][0])
    assert alike(net, copy.deepcopy(net), exact)


@pytest.mark.parametrize("exact", [True, False])
def test_hooks_count(exact):
    plain, hooked, before = Net(), Net(), Net()
    hooked.conv.register_forward_hook(lambda module, x, y: y * 2)
    before.conv.register_forward_pre_hook(lambda module, x: (x[0] * 2,))
    assert len({fingerprint(net, exact=exact) for net in (plain, hooked, before)}) == 3
    assert alike(hooked, copy.deepcopy(hooked), exact)


@pytest.mark.parametrize("exact", [True, False])
def test_a_forward_method_of_one_object_counts(exact):
    patched = Net()
    patched.forward = lambda x: [x]
    assert not alike(Net(), patched, exact)


def test_what_does_not_matter_does_not_count():
    net = Net()
    other = copy.deepcopy(net).eval().requires_grad_(False)
    assert alike(net, other)


class TestExactly:
    """In this process every bit counts."""

    @pytest.mark.parametrize(
        "value",
        [torch.zeros(3), np.zeros(3), [torch.zeros(3)], {"table": np.zeros(3)}],
        ids=["tensor", "array", "in a list", "in a dict"],
    )
    def test_numbers_held_as_attributes(self, value):
        net, other = Net(table=value), Net(table=copy.deepcopy(value))
        assert alike(net, other)
        held = other.table["table"] if isinstance(value, dict) else other.table
        (held[0] if isinstance(held, list) else held)[1] = 1e-7
        assert not alike(net, other)
        assert alike(net, other, exact=False)  # another processor may have computed it otherwise

    def test_weights_and_buffers_that_no_file_would_hold(self):
        for change in (lambda net: net.conv.weight, lambda net: net.table):
            net = Net()
            net.register_buffer("table", torch.zeros(3), persistent=False)
            other = copy.deepcopy(net)
            assert alike(net, other)
            with torch.no_grad():
                change(other)[0] += 1
            assert not alike(net, other)

    def test_the_dtype_of_weights(self):
        assert not alike(nn.Identity(), Net())
        assert not alike(Net(), Net().half(), exact=False)
        assert not alike(Net(), Net().to(torch.bfloat16))

    def test_private_settings(self):
        assert not alike(Net(_kind="a"), Net(_kind="b"), exact=False)
        assert not alike(Net(_cache=[1]), Net(_cache=[2]))
        assert alike(Net(_cache=[1]), Net(_cache=[2]), exact=False)

    def test_classes_written_anew(self):
        """As a cell of a notebook does when it is run again."""

        def made(factor):
            class Scaling(nn.Module):
                def forward(self, x):
                    return [x * (2 if factor == 2 else 3)]

            class Adding(nn.Module):
                def forward(self, x):
                    return [x + 1]

            Adding.__qualname__ = Scaling.__qualname__
            return Scaling() if factor == 2 else Adding()

        assert alike(made(2), made(2))
        assert not alike(made(2), made(3))

    def test_constants_of_a_module_that_a_class_reads(self, monkeypatch):
        before = fingerprint(Net(), exact=True)
        monkeypatch.setitem(globals(), "SCALE", 3.0)
        assert fingerprint(Net(), exact=True) != before


class TestWhatHasNoDescription:
    @pytest.mark.parametrize("make", [object, threading.Lock, lambda: iter([1])])
    def test_it_is_said_to_be_incomplete(self, make):
        one, other = Net(extra=make()), Net(extra=make())
        digest, complete = fingerprint(one, exact=True)
        assert not complete
        assert (digest, complete) == fingerprint(other, exact=True)

    def test_compiled_networks(self):
        with warnings.catch_warnings():
            # Newer versions of torch say that they will drop it.
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)))
        assert not fingerprint(scripted, exact=True)[1]

    def test_cycles_and_depth(self):
        def looping():
            loop = [1]
            loop.append({"again": loop})
            return Net(loop=loop, itself=None)

        one, other = looping(), looping()
        one.__dict__["itself"], other.__dict__["itself"] = one, other
        assert alike(one, other)
        deep = []
        for _ in range(5000):
            deep = [deep]
        assert not fingerprint(Net(deep=deep), exact=True)[1]

    def test_traced_networks_are_known_by_their_code(self):
        relu, tanh = (fx.symbolic_trace(nn.Sequential(nn.ReLU())) for _ in range(2))
        assert alike(relu, copy.deepcopy(relu))
        node = next(node for node in tanh.graph.nodes if node.op == "call_module")
        with tanh.graph.inserting_after(node):
            node.replace_all_uses_with(tanh.graph.call_function(torch.tanh, (node.args[0],)))
        tanh.recompile()
        assert not alike(relu, tanh, exact=False)
