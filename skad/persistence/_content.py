"""Objects as JSON and arrays, and back: what the tables of `_declared` name, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone

from skad._bank import MemoryBank
from skad._base import BaseDetector
from skad._fusion import ScoreFusionDetector
from skad.persistence._checks import check_object, names_of
from skad.persistence._declared import CLASSES, LEFT_BEHIND
from skad.persistence._rules import joined, shown

SUFFIX = ".skad"


class Writer:
    """Turns objects into JSON; arrays go to `tensors`, and what occurs twice is written once."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # ids are unique as long as their objects live

    def encode(self, value: Any, where: str = "") -> Any:
        """Turn an object into what JSON can hold.

        Parameters
        ----------
        value : object
        where : str
            Its place, for the error.

        Returns
        -------
        object

        Raises
        ------
        ValueError
            If it is of a type that files cannot hold.
        """
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, int | float):
            return value
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        if isinstance(value, type) and CLASSES.get(value.__name__) is value:
            return {"class": value.__name__}
        if id(value) in self._seen:
            return {"again": self._seen[id(value)]}
        self._seen[id(value)] = len(self._kept)
        self._kept.append(value)
        return self._encode_object(value, where)

    def _encode_object(self, value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            return self._encode_array(value)
        name = type(value).__name__
        if CLASSES.get(name) is type(value):
            return {"object": name, "state": self._items(_state(value, where), where)}
        if isinstance(value, dict):
            return {"dict": self._items(value, where)}
        if isinstance(value, list | tuple | range):
            items = [self.encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
            return {"list" if isinstance(value, list) else "tuple": items}
        raise ValueError(
            f"{where} holds a {name}, which a {SUFFIX} file cannot: use a number, a text or a path "
            "there, or pickle the detector."
        )

    def _items(self, items: dict, where: str) -> list[list[Any]]:
        return [
            [str(key), self.encode(item, joined(where, str(key)))] for key, item in items.items()
        ]

    def _encode_array(self, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.kind in "OU":
            return {"texts": [str(text) for text in array]}
        name = f"array{len(self.tensors)}"
        self.tensors[name] = contiguous(array)
        return {"array": name}


def contiguous(array: np.ndarray) -> np.ndarray:
    """Lay an array out as safetensors writes memory; of no axis, where it has none."""
    # ascontiguousarray makes vectors of single numbers.
    return np.ascontiguousarray(array).reshape(array.shape)


def _state(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, tuple):  # named
        return value._asdict()  # type: ignore[attr-defined]
    if isinstance(value, MemoryBank):
        return value.__getstate__()
    state = {name: item for name, item in vars(value).items() if name not in LEFT_BEHIND}
    for name in state.keys() - names_of(type(value)):
        raise ValueError(
            f"{joined(where, name)} is no attribute that a {SUFFIX} file can hold: delete it, or pickle "
            "the detector."
        )
    if "memory" in state:
        state["memory"] = None
    if isinstance(value, ScoreFusionDetector):
        # Fitting clones them: what else they hold is of no use to anyone.
        state["estimators"] = [
            (name, given if given == "drop" else clone(given)) for name, given in value.estimators
        ]
    return state


class Reader:
    """Turns JSON and arrays back into objects, if they are what the tables declare."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._tensors = tensors
        self._unread = set(tensors)
        self._made: list[Any] = []

    def read(self, content: Any) -> Any:
        """Make the object that is the whole content.

        Parameters
        ----------
        content : object
            From :meth:`Writer.encode`, by way of JSON.

        Returns
        -------
        object

        Raises
        ------
        ValueError
            That names the attribute which cannot be.
        """
        made = self._decode(content, "")
        if self._unread:
            raise ValueError(f"the array {min(self._unread)!r} belongs to no attribute")
        return made

    def _decode(self, value: Any, where: str) -> Any:
        if isinstance(value, list):
            raise ValueError(f"{where} is a list without a kind")
        if not isinstance(value, dict):
            return value
        kind, content = next(iter(value.items()), ("", None))
        if kind == "again":
            return self._again(content, where)
        if kind == "class":
            return _class(content, where)
        # The place is taken before the parts are read, as it was in writing.
        place = len(self._made)
        self._made.append(_UNFINISHED)
        makers: dict[str, Callable[[], Any]] = {
            "array": lambda: self._array(content, where),
            "texts": lambda: _texts(content, where),
            "list": lambda: self._several(content, where),
            "tuple": lambda: tuple(self._several(content, where)),
            "dict": lambda: self._pairs(content, where),
            "object": lambda: self._object(content, value.get("state"), where),
        }
        if kind not in makers:
            raise ValueError(f"{where} is of the unknown kind {shown(kind)}")
        self._made[place] = makers[kind]()
        return self._made[place]

    def _again(self, number: Any, where: str) -> Any:
        known = type(number) is int and 0 <= number < len(self._made)
        if not known or self._made[number] is _UNFINISHED:
            raise ValueError(f"{where} refers to {shown(number)}, which is not there")
        return self._made[number]

    def _array(self, name: Any, where: str) -> np.ndarray:
        if not isinstance(name, str) or name not in self._tensors:
            raise ValueError(f"{where}: there is no array {shown(name)}")
        self._unread.discard(name)
        return self._tensors[name]

    def _several(self, items: Any, where: str) -> list[Any]:
        if not isinstance(items, list):
            raise ValueError(f"{where} is no list")
        return [self._decode(item, f"{where}[{i}]") for i, item in enumerate(items)]

    def _pairs(self, items: Any, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for item in items if isinstance(items, list) else [None]:
            if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
                raise ValueError(f"{where or 'the detector'} is no list of names and values")
            if item[0] in found:
                raise ValueError(f"{joined(where, item[0])} is there twice")
            found[item[0]] = self._decode(item[1], joined(where, item[0]))
        return found

    def _object(self, name: Any, items: Any, where: str) -> Any:
        cls = _class(name, where)
        state = self._pairs(items, where)
        check_object(cls, state, where)
        if not issubclass(cls, BaseDetector | MemoryBank):
            return cls(**state)
        made = cls.__new__(cls)
        made.__setstate__(state)
        return made


# In place of an object that is being read.
_UNFINISHED = object()


def _class(name: Any, where: str) -> type:
    if not isinstance(name, str) or name not in CLASSES:
        raise ValueError(f"{where or 'the detector'} is of the unknown class {shown(name)}")
    return CLASSES[name]


def _texts(items: Any, where: str) -> np.ndarray:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{where} is no list of texts")
    return np.array(items, dtype=object)
