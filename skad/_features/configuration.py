"""What a network of the user's own is made of, beside its weights: classes, functions, settings.

Two networks with equal weights may compute different things: another activation, another pooling, a
hook. A description tells them apart without running them. It has two degrees:

- *exact*, to find a network again in this process: every tensor by its bits, private attributes, the
  code of classes and functions and what of their modules these refer to. What differs in nothing but a
  cache counts as another network: a second build.
- otherwise, to recognise a network on another day and machine: tensors by their shapes, floats by nine
  digits, code of local functions alone. What two processors may compute differently is not in it.

Libraries stay as they are while a process runs: of those, names suffice where others refer to them.
What has no description (an object of a C library, say) is left to the network's outputs.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import fx, nn

# Deeper, or larger, is no configuration.
_MAX_DEPTH, _MAX_PARTS = 60, 20_000
_INTERNAL = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# Of a traced network, its code says it all.
_OF_GRAPHS = frozenset({"_graph", "_code", "_codegen", "_tracer_cls", "_tracer_extras", "meta"})
_PLAIN = (type(None), bool, int, str, bytes, complex)
# What functions and classes hold, and compute nothing with.
_IDLE = (logging.Logger, types.ModuleType)
# Flag of classes: those in C have none.
_MADE_IN_PYTHON = 1 << 9
_UNREADABLE = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def fingerprint(network: nn.Module, *, exact: bool) -> tuple[str, bool]:
    """Describe a network.

    Parameters
    ----------
    network : torch.nn.Module
    exact : bool
        Whether tensors, private attributes and the code of classes count.

    Returns
    -------
    digest : str
        32 hexadecimal digits; equal for copies of a network.
    complete : bool
        False if a part of the network has no description.

    Examples
    --------
    >>> relu, tanh = (nn.Sequential(nn.Conv2d(3, 8, 3), act) for act in (nn.ReLU(), nn.Tanh()))
    >>> fingerprint(relu, exact=False) == fingerprint(tanh, exact=False)
    False
    """
    description = _Description(exact)
    digest = description.of(network)
    return digest, description.complete


class _Description:
    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.complete = True
        self._known: dict[int, str] = {}
        self._kept: list[Any] = []  # ids are unique as long as their objects live
        self._depth = 0

    def of(self, value: Any) -> str:
        """Describe a value by a short text that is equal for equal values."""
        if isinstance(value, _PLAIN) and not isinstance(value, Enum):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, float):
            return f"float {value!r}" if self.exact else f"float {value:.9g}"
        if id(value) in self._known:
            return self._known[id(value)]
        if self._depth > _MAX_DEPTH or len(self._kept) > _MAX_PARTS:
            return self._unknown(value)
        # Until it is described, what refers back to it says how far up it stands.
        self._known[id(value)] = f"above {self._depth}"
        self._kept.append(value)
        self._depth += 1
        text = "\n".join(self._parts(value))
        self._depth -= 1
        self._known[id(value)] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return self._known[id(value)]

    def _unknown(self, value: Any) -> str:
        self.complete = False
        return _name(type(value))

    def _parts(self, value: Any) -> Iterator[str]:
        ways: tuple[tuple[Any, Callable[[Any], Iterator[str]]], ...] = (
            (nn.Module, self._module),
            (torch.Tensor, self._tensor),
            (np.ndarray, self._array),
            (type, self._class),
            (types.FunctionType, self._function),
            (types.MethodType, self._method),
            ((types.BuiltinFunctionType, types.MethodDescriptorType), self._builtin),
            (types.CodeType, self._code),
            (functools.partial, self._partial),
            (Mapping, self._mapping),
            ((list, tuple), self._sequence),
            ((set, frozenset), self._set),
        )
        for kinds, parts in ways:
            if isinstance(value, kinds):
                yield from parts(value)
                return
        yield from self._object(value)

    # -------------------------------------------------------------------- networks

    def _module(self, module: nn.Module) -> Iterator[str]:
        yield _name(type(module))
        if self.exact:
            yield from self._code_of_class(type(module))
        if isinstance(module, fx.GraphModule | torch.jit.ScriptModule):
            yield str(module.code)
            self.complete &= isinstance(module, fx.GraphModule)
        if self.exact and isinstance(module, fx.GraphModule):
            yield from (self.of(node.target) for node in module.graph.nodes)
        left_out = _INTERNAL | _OF_GRAPHS if isinstance(module, fx.GraphModule) else _INTERNAL
        yield from self._attributes(vars(module), left_out)
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, part in getattr(module, kind).items():
                yield f"{kind} {name} {self.of(part)}"
        for kind in _HOOKS:
            for hook in getattr(module, kind).values():
                yield f"{kind} {self.of(hook)}"

    def _attributes(
        self, attributes: Mapping[str, Any], left_out: frozenset[str] = frozenset()
    ) -> Iterator[str]:
        for name in sorted(attributes.keys() - left_out):
            value = attributes[name]
            # What is private and no setting is a cache.
            counts = self.exact or not name.startswith("_") or isinstance(value, (*_PLAIN, float))
            if counts and not (value is None and name.startswith("_")):
                yield f"{name} {self.of(value)}"

    # --------------------------------------------------------------------- numbers

    def _tensor(self, tensor: torch.Tensor) -> Iterator[str]:
        yield f"tensor {tensor.dtype}"
        try:
            yield str(tuple(tensor.shape))
            if self.exact:
                flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                yield hashlib.blake2b(flat.numpy(), digest_size=16).hexdigest()  # type: ignore[arg-type]
        except _UNREADABLE:  # sparse, quantised, without memory or without a shape
            yield self._unknown(tensor)

    def _array(self, array: np.ndarray) -> Iterator[str]:
        yield f"array {array.dtype} {array.shape}"
        if array.dtype.hasobject:
            yield self.of(array.tolist())
        elif self.exact:
            yield hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()

    # ------------------------------------------------------------------- functions

    def _class(self, kind: type) -> Iterator[str]:
        yield f"class {_name(kind)}"
        if self.exact:
            yield from self._code_of_class(kind)

    def _code_of_class(self, kind: type) -> Iterator[str]:
        for cls in kind.__mro__:
            if _is_in_c(cls) or cls.__module__.split(".")[0] in ("torch", "abc", "typing"):
                continue
            own = not _is_of_a_library(cls.__module__)
            for name, value in sorted(vars(cls).items()):
                held = getattr(value, "__func__", getattr(value, "fget", value))
                if _counts(name, held, own):
                    yield f"{name} {self.of(held)}"

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        yield f"function {_name(function)}"
        yield self.of(function.__defaults__) + self.of(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                yield self.of(cell.cell_contents)
            except ValueError:
                yield "empty"
        if self.exact or "<" in function.__qualname__:
            yield self.of(function.__code__)
            yield from self._globals(function)
            yield from self._attributes(vars(function) if self.exact else {})

    def _globals(self, function: types.FunctionType) -> Iterator[str]:
        """Describe what a function reads of its module."""
        code, of_module = function.__code__, function.__globals__
        if self.exact and not _is_of_a_library(of_module.get("__name__")):
            for name in _names_of_globals(code):
                yield from self._referred(name, of_module.get(name), _names(code))
            return
        for name in code.co_names:
            value = of_module.get(name)
            if isinstance(value, (*_PLAIN, float, tuple)):
                yield f"{name} {self.of(value)}"

    def _referred(self, name: str, value: Any, read: frozenset[str]) -> Iterator[str]:
        """Describe what a name stands for; of a module, those of its names that may be read."""
        if not isinstance(value, _IDLE):
            yield f"{name} {self.of(value)}"
        elif isinstance(value, types.ModuleType) and not _is_of_a_library(value.__name__):
            for part in sorted(read & vars(value).keys()):
                yield from self._referred(f"{name}.{part}", vars(value)[part], read - {part})

    def _code(self, code: types.CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield " ".join(code.co_names)
        for constant in code.co_consts:
            yield self.of(constant)

    def _method(self, method: types.MethodType) -> Iterator[str]:
        yield f"method {self.of(method.__func__)} {self.of(method.__self__)}"

    def _builtin(self, function: Any) -> Iterator[str]:
        yield f"function {_name(function)}"
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, type | types.ModuleType):
            yield self.of(owner)

    def _partial(self, partial: functools.partial) -> Iterator[str]:
        yield f"partial {self.of(partial.func)} {self.of(partial.args)} {self.of(partial.keywords)}"

    # --------------------------------------------------------------------- objects

    def _mapping(self, mapping: Mapping) -> Iterator[str]:
        yield _name(type(mapping))
        for key, value in list(mapping.items()):  # another thread may add to it
            yield f"{self.of(key)} {self.of(value)}"

    def _sequence(self, items: list | tuple) -> Iterator[str]:
        yield _name(type(items))
        for item in list(items):
            yield self.of(item)

    def _set(self, items: set | frozenset) -> Iterator[str]:
        yield _name(type(items))
        yield from sorted(self.of(item) for item in list(items))

    def _object(self, value: Any) -> Iterator[str]:
        yield _name(type(value))
        if self.exact and not _is_of_a_library(type(value).__module__):
            yield from self._code_of_class(type(value))
        if isinstance(value, os.PathLike):
            yield os.fsdecode(value)
        elif isinstance(value, Enum):
            yield value.name
        elif state := _state(value):
            yield from self._attributes(state)
        else:
            text = repr(value) if type(value).__repr__ is not object.__repr__ else " at 0x"
            yield self._unknown(value) if " at 0x" in text else text


def _counts(name: str, held: Any, own: bool) -> bool:
    """Whether an attribute of a class may change what its objects compute."""
    if isinstance(held, types.FunctionType):
        return own or not name.startswith("__") or name == "__call__"
    if name.startswith("__"):
        return False
    if not own:
        return isinstance(held, (*_PLAIN, float))
    # What describes slots and fields holds nothing; nor does what abc keeps.
    field = inspect.isdatadescriptor(held) and _is_in_c(type(held))
    return not field and not isinstance(held, _IDLE) and name != "_abc_impl"


def _is_in_c(cls: type) -> bool:
    return not cls.__flags__ & _MADE_IN_PYTHON


@functools.cache
def _is_of_a_library(module: str | None) -> bool:
    """Whether a module is Python's or installed, not written for the network at hand."""
    top = (module or "").partition(".")[0]
    if top in ("builtins", "__main__"):  # what is executed without a name counts as builtins'
        return False
    if top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(file.split(os.sep))


@functools.lru_cache(4096)
def _names(code: types.CodeType) -> frozenset[str]:
    """Names in a function and in those within it."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return frozenset(code.co_names).union(*inner)


@functools.lru_cache(4096)
def _names_of_globals(code: types.CodeType) -> tuple[str, ...]:
    found = {step.argval for step in dis.get_instructions(code) if "GLOBAL" in step.opname}
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            found.update(_names_of_globals(part))
    return tuple(sorted(found))


def _state(value: Any) -> dict[str, Any]:
    """Attributes of an object, wherever it keeps them."""
    slots = (name for cls in type(value).__mro__ for name in _slots(cls))
    state = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**state, **getattr(value, "__dict__", {})}


def _slots(cls: type) -> list[str]:
    slots = vars(cls).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", None)
    return f"{module}.{getattr(thing, '__qualname__', getattr(thing, '__name__', '?'))}"
