"""Packages whose public names are loaded on first use, so that ``--help`` costs no more than that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from skad._common.forks import LOADING


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package : str
        Its ``__name__``.
    homes : mapping of str to str
        The module that defines each public name, relative to the package: ``"_runner"``.

    Returns
    -------
    getattr, dir : callables
        Names that were asked for once are attributes of the package from then on.

    Examples
    --------
    >>> load, names = lazy_names("skad.datasets", {"read_mask": "_masks"})
    >>> load("read_mask").__module__
    'skad.datasets._masks'
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with LOADING:
            found = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
