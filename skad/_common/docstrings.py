"""Docstrings of estimators: what one class says of a parameter, its subclasses need not say again.

scikit-learn's HTML shows the text of a parameter from the docstring of the estimator's own class.
"""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple, TypeVar

_Class = TypeVar("_Class", bound=type)
# The lines from the heading to the next one, or to the end.
_SECTION = re.compile(r"^Parameters\n-{10}\n((?:(?!.+\n---).*\n)*)", re.MULTILINE)
# A line that names a parameter, and the indented lines below it.
_ENTRY = re.compile(r"^(\S+)(?: : (.+))?\n((?:(?: .*)?\n)+)", re.MULTILINE)


class _Entry(NamedTuple):
    """What is said of a parameter."""

    type: str
    text: str

    def extended(self, more: _Entry) -> _Entry:
        """Replace what is said by an entry with a type, add to it by one without."""
        return more if more.type else _Entry(self.type, f"{self.text}\n{more.text}")


def with_inherited_texts(cls: _Class) -> _Class:
    """Complete the section "Parameters" of a class, which it must have, by what its bases say.

    ``name : type`` begins a description, which replaces that of the bases; ``name`` alone begins
    sentences that are added to it. What has no entry is described by the bases alone. Entries come in
    the order of ``__init__``, where there is one, and types with its default values. (Of a module
    that was compiled without docstrings nothing is said.)
    """
    parameters = inspect.signature(cls).parameters
    said = _said(cls)
    entries = "".join(
        f"{name} : {_with_default(said[name].type, parameters.get(name))}\n{said[name].text}\n"
        for name in parameters or said
        if name in said
    )
    docstring = inspect.cleandoc(cls.__doc__ or "") + "\n"
    cls.__doc__ = _SECTION.sub(lambda _: f"Parameters\n----------\n{entries}\n", docstring)
    return cls


def _said(cls: type) -> dict[str, _Entry]:
    """Collect what a class and its bases say of parameters; the types of bases without defaults."""
    said: dict[str, _Entry] = {}
    for base in reversed(cls.__mro__):
        for name, entry in _entries(base).items():
            if base is not cls:
                entry = entry._replace(type=entry.type.partition(", default=")[0])
            said[name] = said[name].extended(entry) if name in said else entry
    return said


def _entries(cls: type) -> dict[str, _Entry]:
    """Read what the docstring of a class itself says."""
    section = _SECTION.search(inspect.cleandoc(vars(cls).get("__doc__") or "") + "\n")
    if section is None:
        return {}
    return {
        name: _Entry(type_ or "", text.rstrip()) for name, type_, text in _ENTRY.findall(section[1])
    }


def _with_default(type_: str, parameter: inspect.Parameter | None) -> str:
    if parameter is None or parameter.default is parameter.empty or ", default=" in type_:
        return type_
    default = parameter.default
    return f"{type_}, default=" + (f'"{default}"' if isinstance(default, str) else repr(default))
