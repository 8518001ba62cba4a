"""A data set: what is known about it, and how a local copy of it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skad._common.forks import LOADING
from skad.datasets._files import PathLike, choose
from skad.datasets._layout import Layout, LocalCopy

if TYPE_CHECKING:
    from sklearn.utils import Bunch


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set: a row of :data:`DATASETS`.

    Parameters
    ----------
    name : str
        Its key in :data:`DATASETS`; its function is ``load_<name>``.
    title : str
        The name that papers use.
    layout : Layout
        How its files are arranged, and what reads them.
    owner : str, default=""
        Who publishes it; empty: the user.
    licence : str, default=""
    url : str, default=""
        The owner's page.
    reference : str, default=""
        What to cite.
    official_categories : tuple of str, default=()
        The categories of the complete data set; empty if it has none.
    example : tuple of str, default=()
        The usual name of its folder, and a category.
    example_sizes : tuple of int, default=()
        Numbers of training and test images of that category.

    Examples
    --------
    >>> from skad.datasets import DATASETS
    >>> DATASETS["mvtec_ad"].title
    'MVTec AD'
    >>> DATASETS["btad"].official_categories
    ('01', '02', '03')
    >>> for category in DATASETS["btad"].categories("BTech_Dataset_transformed"):  # doctest: +SKIP
    ...     data = DATASETS["btad"].load("BTech_Dataset_transformed", category)
    """

    name: str
    title: str
    layout: Layout
    owner: str = ""
    licence: str = ""
    url: str = ""
    reference: str = ""
    official_categories: tuple[str, ...] = ()
    example: tuple[str, ...] = ()
    example_sizes: tuple[int, ...] = ()

    def categories(self, path: PathLike) -> list[str]:
        """List the categories in a folder.

        Parameters
        ----------
        path : path-like
            As for the loader.

        Returns
        -------
        list of str
            In a fixed order. A data set without categories has one, which is its name.

        Raises
        ------
        FileNotFoundError
            If the data set is not there; the message shows its layout.
        ValueError
            If `path` is a file.
        """
        return self.layout.find(self._copy_in(path))

    def load(self, path: PathLike, category: str | None = None, **options: Any) -> Bunch:
        """Read a category.

        Parameters
        ----------
        path : path-like
            As for the loader.
        category : str, default=None
            One of :meth:`categories`; None: the only one.
        **options
            The other parameters of the loader, such as ``random_state``.

        Returns
        -------
        sklearn.utils.Bunch
            As the loader returns it.

        Raises
        ------
        FileNotFoundError
            If files are missing; the message shows the expected layout.
        ValueError
            If `path` is a file, or if `category` does not exist or is needed and not given.
        """
        with LOADING:
            from skad.datasets._bunch import make_bunch

        copy = self._copy_in(path)
        category = choose(category, self.layout.find(copy), path)
        samples = self.layout.read(copy, category, **options)
        return make_bunch(samples, category, copy, self._descr)

    @property
    def _descr(self) -> str:
        """Owner, licence and link in one line."""
        if not self.owner:
            return f"{self.title}."
        return f"{self.title}, published by {self.owner}. Licence: {self.licence}. {self.url}"

    def _copy_in(self, path: PathLike) -> LocalCopy:
        """Check that the folder exists."""
        named, root = os.fspath(path), Path(path)
        if root.is_file():
            raise ValueError(f"{named!r} is a file: unpack archives first, and pass the folder.")
        copy = LocalCopy(named, root, self.name, self._help(named))
        if not root.is_dir():
            raise copy.missing("no such folder")
        return copy

    def _help(self, path: str) -> str:
        text = f"Expected layout:\n{self.layout.tree.format(root=path)}"
        if self.owner:
            text += (
                f"\nskad downloads nothing: {self.title} is published by {self.owner} at {self.url} "
                f"(licence: {self.licence})."
            )
        return text
