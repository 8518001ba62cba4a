"""The docstring of a loader: what is common to all, and what the row of its data set says."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sklearn.utils import Bunch

from skad.datasets._dataset import Dataset

_Loader = TypeVar("_Loader", bound=Callable[..., Bunch])
_PARAMETERS = "\n\nParameters\n----------\n"
_CATEGORY = """\
category : str, default=None
    One of the categories in the folder; None: the only one."""
_RETURNS = """\
sklearn.utils.Bunch
    ``X`` : list of str, paths of all images, training images first, always in the same order;
    ``y`` : ndarray of shape (n,), +1 good, -1 defective;
    ``masks`` : list of str or None, the ground truth of each image for :func:`read_mask`; None for
    good images, and where there is none;
    ``defects`` : list of str, the kind of each image, "good" for good ones;
    ``split`` : ndarray of shape (n,) of str, "train", "validation" or "test";
    ``X_train`` : list of str, the good training images;
    ``X_test``, ``y_test``, ``masks_test``, ``defects_test`` : the test images;
    ``category`` : str, for tables;
    ``DESCR`` : str, owner, licence and link."""
_RAISES = """\
FileNotFoundError
    If the folder, or files in it, are missing; the message shows the layout.
ValueError
"""


def documented(dataset: Dataset) -> Callable[[_Loader], _Loader]:
    """Complete the docstring of a loader.

    The docstring in the code has a summary, what is peculiar to the data set and, in a section
    "Parameters", the options of the loader. All other sections are added.
    """

    def complete(load: _Loader) -> _Loader:
        load.__doc__ = "\n\n".join(_parts(dataset, load)) + "\n"
        return load

    return complete


def _parts(dataset: Dataset, load: Callable[..., Any]) -> Iterator[str]:
    layout, names = dataset.layout, dataset.official_categories
    by_category = "category" in inspect.signature(load).parameters
    about, _, options = (inspect.getdoc(load) or "").partition(_PARAMETERS)
    yield about
    if names:
        yield _wrapped(f"{len(names)} categories: {', '.join(names)}.")
    yield "Layout::\n\n" + textwrap.indent(layout.tree.format(root="<path>"), "    ")
    if dataset.owner:
        yield _wrapped(f"Licence: {dataset.licence}. Owner's page: {dataset.url}")
    path = f"path : path-like\n    {layout.path}"
    yield _section("Parameters", path, _CATEGORY if by_category else "", options)
    yield _section("Returns", _RETURNS)
    unknown = "`category` does not exist, or is None and there are several" if by_category else ""
    errors = "; if ".join(filter(None, ("If `path` is a file", unknown, layout.errors))) + "."
    yield _section("Raises", _RAISES + textwrap.indent(_wrapped(errors), "    "))
    if layout.warnings:
        yield _section("Warns", f"UserWarning\n{textwrap.indent(layout.warnings, '    ')}")
    if dataset.reference:
        yield _section("References", dataset.reference)
    yield _section("Examples", *_example(dataset, load.__name__))


def _section(title: str, *entries: str) -> str:
    return "\n".join([title, "-" * len(title), *filter(None, entries)])


def _example(dataset: Dataset, name: str) -> Iterator[str]:
    arguments = ", ".join(f'"{argument}"' for argument in dataset.example)
    yield f">>> from skad.datasets import {name}"
    yield f">>> data = {name}({arguments})  # doctest: +SKIP"
    yield ">>> det.fit(data.X_train).score(data.X_test, data.y_test)  # doctest: +SKIP"
    if dataset.example_sizes:
        yield ">>> len(data.X_train), len(data.X_test)  # doctest: +SKIP"
        yield str(dataset.example_sizes)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=96, break_long_words=False, break_on_hyphens=False)
