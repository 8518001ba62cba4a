"""What is said about a data set: whose it is, under which licence, how its folder looks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Origin and layout of a data set, for error messages and ``DESCR``.

    Parameters
    ----------
    name : str
        Key in :data:`skad.datasets.DATASETS`.
    title : str
        As papers write it.
    layout : str
        The expected files; ``{root}`` stands for the folder that the user names.
    owner : str, default=""
        Who publishes it; empty: the user.
    licence : str, default=""
    url : str, default=""
        The owner's page.
    """

    name: str
    title: str
    layout: str
    owner: str = ""
    licence: str = ""
    url: str = ""

    @property
    def descr(self) -> str:
        """Owner, licence and link in one line."""
        if not self.owner:
            return f"{self.title}."
        return f"{self.title}, published by {self.owner}. Licence: {self.licence}. {self.url}"

    def missing(self, path: str | os.PathLike[str], what: str) -> FileNotFoundError:
        """Make the error for a folder in which something is missing.

        Parameters
        ----------
        path : path-like
            The folder that the user named.
        what : str
            What is missing.

        Returns
        -------
        FileNotFoundError
            To be raised; shows the layout, and where the owner publishes the data set.
        """
        root = os.fspath(path)
        message = f"{root!r}: {what}. Expected the layout\n{self.layout.format(root=root)}"
        if self.owner:
            message += (
                f"\nskad downloads nothing: {self.title} is published by {self.owner} at {self.url} "
                f"(licence: {self.licence})."
            )
        return FileNotFoundError(message)

    def folder(self, path: str | os.PathLike[str]) -> Path:
        """Check that the data set's folder is there.

        Parameters
        ----------
        path : path-like
            The folder that the user named.

        Returns
        -------
        Path

        Raises
        ------
        FileNotFoundError
            If there is nothing.
        ValueError
            If it is a file, such as an archive that is not unpacked.
        """
        root = Path(path)
        if root.is_file():
            raise ValueError(
                f"{os.fspath(path)!r} is a file, but a folder is needed. Unpack archives first."
            )
        if not root.is_dir():
            raise self.missing(path, "no such folder")
        return root
