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


CELL = """
import types, logging
import torch, numpy as np
import torch.nn.functional as F
from torch import nn

LOG = logging.getLogger("a network")
{setting}

class Net(nn.Module):
    {attribute}

    def forward(self, x):
        LOG.debug("called")
        return [{answer}]

network = Net()
"""

# What a forward pass reads; and how it is set in two runs of a cell.
REFERRED = {
    "function": ("def after(x): return F.{}(x)", "after(x)", ("elu", "silu")),
    "function of a function": (
        "def inner(x): return F.{}(x)\ndef after(x): return inner(x)",
        "after(x)",
        ("elu", "silu"),
    ),
    "function within a function": (
        "def inner(x): return F.{}(x)",
        "(lambda y: inner(y))(x)",
        ("elu", "silu"),
    ),
    "function of torch": ("after = torch.{}", "after(x)", ("sin", "cos")),
    "attribute of a function": (
        "def after(x): return x * after.factor\nafter.factor = {}",
        "after(x)",
        (2, 3),
    ),
    "class": (
        "class Block(nn.Module):\n    def forward(self, x): return x {} 2",
        "Block()(x)",
        "+-",
    ),
    "class of torch": ("Kind = nn.{}", "Kind()(x)", ("ELU", "SiLU")),
    "class of settings": ("class Settings:\n    size = [{}]", "x * Settings.size[0]", (2, 3)),
    "inherited": (
        "class Base:\n    factors = {{'a': {}}}\nclass Settings(Base): pass",
        "x * Settings.factors['a']",
        (2, 3),
    ),
    "operator of a class": (
        "class Number:\n    def __init__(self): self.a = 1\n"
        "    def __rmul__(self, x): return x {} self.a\n"
        "NUMBER = Number()",
        "NUMBER.__rmul__(x)",
        "+-",
    ),
    "mapping": ("TABLE = {{'a': [{}]}}", "x * TABLE['a'][0]", (2, 3)),
    "set": ("CHOSEN = {{'{}'}}", "x * len(CHOSEN)", "ab"),
    "tensor": ("SCALE = torch.tensor({})", "x * SCALE", (1.0, 1.0000001)),
    "array": ("SCALE = np.float32([{}])", "x * float(SCALE[0])", (2, 3)),
    "namespace": ("SETTINGS = types.SimpleNamespace(a={})", "x * SETTINGS.a", (2, 3)),
    "module of the user's": (
        "tools = types.ModuleType('tools')\ntools.part = types.ModuleType('part')\n"
        "tools.part.factor = {}",
        "x * tools.part.factor",
        (2, 3),
    ),
}
HELD_BY_CLASS = {
    "list": ("[{}]", "x * self.held[0]", (2, 3)),
    "tensor": ("torch.tensor({})", "x * self.held", (2.0, 3.0)),
    "class": ("nn.{}", "self.held()(x)", ("ELU", "SiLU")),
    "builtin function": ("staticmethod(torch.{})", "self.held(x)", ("sin", "cos")),
    "namespace": ("types.SimpleNamespace(a=[{}])", "x * self.held.a[0]", (2, 3)),
}


def run_cell(answer, setting="", attribute="pass", name=None):
    names = {} if name is None else {"__name__": name}
    exec(CELL.format(setting=setting, attribute=attribute, answer=answer), names)
    return names["network"]


class TestWhatAForwardPassRefersTo:
    """A cell of a notebook that is run again leaves the classes of its networks as they were."""

    @pytest.mark.parametrize("name", [None, "__main__"])
    @pytest.mark.parametrize("kind", REFERRED)
    def test_of_its_module(self, kind, name):
        setting, answer, values = REFERRED[kind]
        one, again, other = (
            run_cell(answer, setting.format(value), name=name)
            for value in (values[0], values[0], values[1])
        )
        assert fingerprint(one, exact=True)[1]
        assert alike(one, again)
        assert not alike(one, other)

    @pytest.mark.parametrize("kind", HELD_BY_CLASS)
    def test_of_its_class(self, kind):
        held, answer, values = HELD_BY_CLASS[kind]
        one, again, other = (
            run_cell(answer, attribute=f"held = {held.format(value)}")
            for value in (values[0], values[0], values[1])
        )
        assert fingerprint(one, exact=True)[1]
        assert alike(one, again)
        assert not alike(one, other)

    def test_changes_in_place(self):
        network = run_cell("x * TABLE['a'][0]", "TABLE = {'a': [2]}")
        before = fingerprint(network, exact=True)
        type(network).forward.__globals__["TABLE"]["a"][0] = 3
        assert fingerprint(network, exact=True) != before

    def test_what_it_does_not_read_does_not_count(self):
        one, other = (run_cell("self.data(x)", f"data = [{i}]\ndef unused(): pass") for i in (1, 2))
        assert alike(one, other)

    def test_circles_end(self):
        circle = "def one(x): return two(x)\ndef two(x): return x if x is None else one(x {} 1)"
        assert alike(*(run_cell("one(x)", circle.format("+")) for _ in range(2)))
        assert not alike(*(run_cell("one(x)", circle.format(sign)) for sign in "+-"))

    @pytest.mark.parametrize("value", ["iter([1])", "object()", "torch.Generator()"])
    def test_what_has_no_description(self, value):
        assert not fingerprint(run_cell("thing(x)", f"thing = {value}"), exact=True)[1]

    def test_functions_that_a_trace_calls(self):
        networks = []
        for name in ("elu", "silu", "elu"):
            names = {"__name__": "cell"}
            exec(f"import torch.nn.functional as F\ndef after(x): return F.{name}(x)", names)
            graph = fx.Graph()
            graph.output([graph.call_function(names["after"], (graph.placeholder("x"),))])
            networks.append(fx.GraphModule(nn.Module(), graph))
        assert alike(networks[0], networks[2])
        assert not alike(networks[0], networks[1])
