"""The images of one folder, for detectors that want a list of files."""

from __future__ import annotations

import os
from pathlib import Path

from skad._common.image_files import images, subfolders
from skad._common.warn import warn_user
from skad.datasets._unused import of_other_suffixes


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """List the images of a folder by name, whatever the case of their suffixes.

    A pattern such as ``*.jpg`` misses ``.JPG`` and ``.jpeg`` on Linux, and files of the system that no
    pattern was meant for match ``*``. Subfolders are not searched, hidden files and files that are no
    images are left out, and no image is opened.

    Parameters
    ----------
    folder : path-like
        Holds images: PNG, JPEG, BMP, TIFF or WebP.

    Returns
    -------
    list of str
        Paths that begin with `folder`, sorted by name; at least one.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no image in it; names the subfolders that have some.

    Warns
    -----
    UserWarning
        If images of other formats are left out, such as HEIC of phones.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skad.datasets import list_images
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("2.JPG", "1.jpeg", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [Path(path).name for path in list_images(folder)]
    ['1.jpeg', '2.JPG']
    """
    place, name = Path(folder), repr(os.fspath(folder))
    # Path("") is ".": an empty setting must not list the working directory.
    if not os.fspath(folder) or not place.is_dir():
        raise FileNotFoundError(f"there is no folder {name} in {os.fspath(Path.cwd())!r}.")
    found = images(place)
    others = of_other_suffixes(_files(place))
    if not found:
        raise FileNotFoundError(" ".join([f"no images in {name}{_deeper(place)}.", *others]))
    if others:
        warn_user(" ".join([f"{name}:", *others]))
    return [os.fspath(path) for path in found]


def _files(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    )


def _deeper(folder: Path) -> str:
    having = [sub.name for sub in subfolders(folder) if images(sub)]
    if not having:
        return ""
    listed = ", ".join(having[:4]) + (", ..." if len(having) > 4 else "")
    return f", but in its subfolders ({listed}): name those that are meant"
