"""Surfaces without an official one-class split: magnetic tiles, and the commutators of KolektorSDD."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from sklearn.utils import Bunch

from skad.datasets._bunch import GOOD, Sample, make_bunch
from skad.datasets._files import check_none_absent, images, subfolders
from skad.datasets._masks import read_mask
from skad.datasets._source import Source

MAGNETIC_TILE = Source(
    "magnetic_tile",
    "Magnetic Tile",
    """\
{root}
  MT_Free/Imgs/*.jpg                         good images
  MT_<defect>/Imgs/*.jpg                     defective images, one folder a kind of defect
  MT_<defect>/Imgs/*.png                     masks of the same names""",
    "Y. Huang et al.",
    "none stated; use is welcome, with a citation",
    "https://github.com/abin24/Magnetic-tile-defect-datasets.",
)
_KOLEKTOR = ("ViCoS (University of Ljubljana)", "CC BY-NC-SA 4.0, not for commercial use")
KOLEKTOR_SDD = Source(
    "kolektor_sdd",
    "KolektorSDD",
    """\
{root}
  kos<NN>/Part<K>.jpg                        surface K of commutator NN
  kos<NN>/Part<K>_label.bmp                  its mask, all zero for good ones
or, for KolektorSDD2,
  train/<image>.png, train/<image>_GT.png
  test/<image>.png, test/<image>_GT.png""",
    *_KOLEKTOR,
    "https://www.vicos.si/resources/kolektorsdd/",
)
KOLEKTOR_SDD2 = Source(
    "kolektor_sdd2",
    "KolektorSDD2",
    KOLEKTOR_SDD.layout,
    *_KOLEKTOR,
    "https://www.vicos.si/resources/kolektorsdd2/",
)
_JPEG = frozenset({".jpg", ".jpeg"})
_FRAME = re.compile(r"_num_(\d+)$")
# The exposures of one magnetic tile follow each other within some 200 frames. Taking two tiles for
# one does no harm; taking one for two would.
_SAME_TILE = 300


# ---- magnetic tile --------------------------------------------------------------------------------


def load_magnetic_tile(
    path: str | os.PathLike[str], *, test_size: float = 0.2, random_state: int = 0
) -> Bunch:
    """Read the magnetic tiles of Huang et al., in a split of our own.

    ``MT_Free`` holds good images; ``MT_Blowhole``, ``MT_Break``, ``MT_Crack``, ``MT_Fray`` and
    ``MT_Uneven`` defective ones ("blowhole" and so on): ``Imgs/*.jpg``, with masks ``Imgs/*.png`` of the
    same names. Licence: none stated; use is welcome, with a citation. Owner's page:
    https://github.com/abin24/Magnetic-tile-defect-datasets. (the full stop belongs to it)

    There is no official one-class split. A share of the good images is drawn for the test, and all
    defective images are tested on. A tile was photographed several times, under other exposures: the
    names, ``exp<exposure>_num_<frame>``, count frames, and images that follow each other within 300
    frames stay together. Figures of papers that draw single images are not comparable.

    Parameters
    ----------
    path : path-like
        The folder with ``MT_Free``.
    test_size : float or int, default=0.2
        Share or number of the good tiles to test on.
    random_state : int, default=0
        Of the draw.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`.

    Raises
    ------
    FileNotFoundError
        If the folder or good images are missing.
    ValueError
        If `path` is a file, or for another `test_size`.

    References
    ----------
    Y. Huang, C. Qiu, K. Yuan, "Surface defect saliency of magnetic tile", The Visual Computer 36, 2020.

    Examples
    --------
    >>> from skad.datasets import load_magnetic_tile
    >>> data = load_magnetic_tile("Magnetic-tile-defect-datasets.")  # doctest: +SKIP
    """
    root = MAGNETIC_TILE.folder(path)
    good = images(root / "MT_Free" / "Imgs", _JPEG)
    if not good:
        raise MAGNETIC_TILE.missing(path, "no images in MT_Free/Imgs")
    tested = _drawn(_tiles(good), test_size, random_state, "good tiles")
    samples = [
        Sample(file, GOOD, "test" if test else "train")
        for file, test in zip(good, tested, strict=True)
    ]
    for folder in subfolders(root):
        if folder.name.startswith("MT_") and folder.name != "MT_Free":
            masks = {mask.stem: mask for mask in images(folder / "Imgs", {".png"})}
            kind = folder.name.removeprefix("MT_").lower()
            samples += [
                Sample(file, kind, "test", masks.get(file.stem))
                for file in images(folder / "Imgs", _JPEG)
            ]
    return make_bunch(samples, MAGNETIC_TILE.name, MAGNETIC_TILE, path)


def _tiles(files: Sequence[Path]) -> list[str]:
    """Tell which tile each file shows; a name without a frame is a tile of its own."""
    frames = {file: int(found[1]) for file in files if (found := _FRAME.search(file.stem))}
    tiles = {file: file.name for file in files}
    last, first = None, ""
    for file in sorted(frames, key=frames.__getitem__):
        if last is None or frames[file] - last > _SAME_TILE:
            first = file.name
        tiles[file], last = first, frames[file]
    return [tiles[file] for file in files]


# ---- KolektorSDD ----------------------------------------------------------------------------------


def load_kolektor_sdd(
    path: str | os.PathLike[str], *, test_size: float = 0.5, random_state: int = 0
) -> Bunch:
    """Read KolektorSDD in a split of our own, or KolektorSDD2 in its official one.

    KolektorSDD: ``kos<NN>/Part<K>.jpg`` with ``kos<NN>/Part<K>_label.bmp``; an image is good where its
    label is all zero, else its kind is "defect". There is no official one-class split. A share of the
    commutators (folders) is drawn for the test, so that no part is on both sides; the defective images
    of the others have the split "train", and are in neither ``X_train`` nor ``X_test``. Owner's page:
    https://www.vicos.si/resources/kolektorsdd/

    KolektorSDD2: ``train/<image>.png`` and ``test/<image>.png`` with ``<image>_GT.png``, as divided by
    its owner, defective training images as above; `test_size` and `random_state` do nothing. Owner's
    page: https://www.vicos.si/resources/kolektorsdd2/

    Licence of both: CC BY-NC-SA 4.0, not for commercial use. All labels are read, which takes seconds.

    Parameters
    ----------
    path : path-like
        The folder with ``kos01``, or with ``train`` and ``test``.
    test_size : float or int, default=0.5
        Share or number of the commutators to test on.
    random_state : int, default=0
        Of the draw.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`.

    Raises
    ------
    FileNotFoundError
        If the folder, images or labels are missing.
    ValueError
        If `path` is a file, for another `test_size`, or if a label cannot be read.

    References
    ----------
    D. Tabernik, S. Sela, J. Skvarc, D. Skocaj, "Segmentation-based deep-learning approach for
    surface-defect detection", Journal of Intelligent Manufacturing 31, 2020; J. Bozic, D. Tabernik,
    D. Skocaj, "Mixed supervision for surface-defect detection", Computers in Industry 2021.

    Examples
    --------
    >>> from skad.datasets import load_kolektor_sdd
    >>> data = load_kolektor_sdd("KolektorSDD", test_size=0.3)  # doctest: +SKIP
    """
    root = KOLEKTOR_SDD.folder(path)
    if _is_second(root):
        found = _labelled([root / "train", root / "test"], "_GT")
        splits = [file.parent.name for file, _ in found]
        return make_bunch(_judged(found, splits), KOLEKTOR_SDD2.name, KOLEKTOR_SDD2, path)
    found = _labelled(subfolders(root), "_label")
    if not found:
        raise KOLEKTOR_SDD.missing(path, "no images in kos<NN>")
    tested = _drawn([file.parent.name for file, _ in found], test_size, random_state, "commutators")
    splits = ["test" if test else "train" for test in tested]
    return make_bunch(_judged(found, splits), KOLEKTOR_SDD.name, KOLEKTOR_SDD, path)


def kolektor_categories(path: str | os.PathLike[str]) -> list[str]:
    """Tell which of the two data sets is there.

    Parameters
    ----------
    path : path-like
        As for :func:`load_kolektor_sdd`.

    Returns
    -------
    list of str
        "kolektor_sdd" or "kolektor_sdd2".

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_kolektor_sdd`.
    """
    return [(KOLEKTOR_SDD2 if _is_second(KOLEKTOR_SDD.folder(path)) else KOLEKTOR_SDD).name]


def _is_second(root: Path) -> bool:
    return (root / "train").is_dir() and (root / "test").is_dir()


def _labelled(folders: Sequence[Path], ending: str) -> list[tuple[Path, Path]]:
    """Images and their labels, which lie beside them and have an ending to their names."""
    found, absent = [], []
    for folder in folders:
        files = {file.stem: file for file in images(folder)}
        for stem, file in files.items():
            if stem.endswith(ending):
                continue
            if f"{stem}{ending}" in files:
                found.append((file, files[f"{stem}{ending}"]))
            else:
                absent.append(f"{folder.name}/{stem}{ending}")
    where = f"labels in {os.fspath(folders[0].parent)!r}" if folders else ""
    check_none_absent(absent, len(found) + len(absent), where)
    return found


def _judged(found: Sequence[tuple[Path, Path]], splits: Sequence[str]) -> list[Sample]:
    """Make samples of images, good where nothing is marked."""
    return [
        Sample(file, "defect" if read_mask(label).any() else GOOD, split, label)
        for (file, label), split in zip(found, splits, strict=True)
    ]


# ---- splits ---------------------------------------------------------------------------------------


def _drawn(
    groups: Sequence[Hashable], test_size: float, random_state: int, what: str
) -> np.ndarray:
    """Draw whole groups for the test: bool, one for every member."""
    n = len(set(groups))
    if n < 2:
        raise ValueError(f"{n} {what}: at least two are needed, to learn from and to test on.")
    splitter = GroupShuffleSplit(1, test_size=test_size, random_state=random_state)
    _, chosen = next(splitter.split(groups, groups=groups))
    tested = np.zeros(len(groups), dtype=bool)
    tested[chosen] = True
    return tested
