"""All data sets by name, for commands and scripts that take the name from their user."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sklearn.utils import Bunch

from skad.datasets import _folders, _medical, _surfaces, _visa
from skad.datasets._files import choose
from skad.datasets._source import Source

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Dataset:
    """A data set, found by name.

    Parameters
    ----------
    name : str
        Its key in :data:`DATASETS`.
    title : str
        As papers write it.
    loader : callable
        The function behind `load`, such as :func:`load_mvtec_ad`.
    find : callable
        Lists the categories in a folder.
    has_categories : bool
        Whether `loader` takes one.

    Examples
    --------
    >>> from skad.datasets import DATASETS
    >>> DATASETS["mvtec_ad"].title
    'MVTec AD'
    >>> for category in DATASETS["btad"].categories("BTech_Dataset_transformed"):  # doctest: +SKIP
    ...     data = DATASETS["btad"].load("BTech_Dataset_transformed", category)
    """

    name: str
    title: str
    loader: Callable[..., Bunch]
    find: Callable[[PathLike], list[str]]
    has_categories: bool

    def categories(self, path: PathLike) -> list[str]:
        """List the categories in a folder.

        Parameters
        ----------
        path : path-like
            As for the loader.

        Returns
        -------
        list of str
            In a fixed order; a data set without categories has one, of its own name.

        Raises
        ------
        FileNotFoundError
            If the data set is not there; the message shows its layout.
        ValueError
            If `path` is a file.
        """
        return self.find(path)

    def load(self, path: PathLike, category: str | None = None, **params: Any) -> Bunch:
        """Read a category.

        Parameters
        ----------
        path : path-like
            As for the loader.
        category : str, default=None
            None: the only one.
        **params
            Of the loader, such as ``random_state``.

        Returns
        -------
        sklearn.utils.Bunch
            As :func:`load_folder`.

        Raises
        ------
        FileNotFoundError
            If images are missing.
        ValueError
            For a category that does not exist or is not said.
        """
        if self.has_categories:
            return self.loader(path, category, **params)
        choose(category, self.find(path), path)
        return self.loader(path, **params)


def _in_folders(source: Source, loader: Callable[..., Bunch]) -> Dataset:
    find = partial(_folders.layout_categories, source)
    return Dataset(source.name, source.title, loader, find, has_categories=True)


def _single(source: Source, loader: Callable[..., Bunch]) -> Dataset:
    find = partial(_its_name, source)
    return Dataset(source.name, source.title, loader, find, has_categories=False)


def _its_name(source: Source, path: PathLike) -> list[str]:
    source.folder(path)
    return [source.name]


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        _in_folders(_folders.MVTEC_AD, _folders.load_mvtec_ad),
        _in_folders(_folders.MVTEC_LOCO, _folders.load_mvtec_loco),
        Dataset("visa", "VisA", _visa.load_visa, _visa.visa_categories, has_categories=True),
        _in_folders(_folders.BTAD, _folders.load_btad),
        _in_folders(_folders.MPDD, _folders.load_mpdd),
        _single(_surfaces.MAGNETIC_TILE, _surfaces.load_magnetic_tile),
        Dataset(
            "kolektor_sdd",
            "KolektorSDD",
            _surfaces.load_kolektor_sdd,
            _surfaces.kolektor_categories,
            has_categories=False,
        ),
        _single(_medical.APTOS, _medical.load_aptos),
        _single(_medical.OCT2017, _medical.load_oct2017),
        _single(_medical.ISIC2018, _medical.load_isic2018),
        _in_folders(_folders.FOLDER, _folders.load_folder),
    )
}
"""Every data set that skad reads, by name."""
