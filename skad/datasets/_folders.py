"""Layouts in which the folder of an image says its split and its kind: MVTec AD's and a medical one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from skad._common.image_files import images, subfolders
from skad.datasets._layout import GOOD, Layout, LocalCopy, Sample
from skad.datasets._unused import means_good, warn_of_unused

# Folders that hold nothing but good images, and their splits.
_TRAINING_ALONE = {"train": "train"}


# ---- MVTec AD -------------------------------------------------------------------------------------


def find_categories(copy: LocalCopy) -> list[str]:
    """List the categories of a data set in MVTec AD's layout."""
    return list(_category_folders(copy))


def read_mvtec(copy: LocalCopy, category: str) -> list[Sample]:
    """Read a category in the layout of MVTec AD."""
    return _read_category(copy, category)


def read_loco(copy: LocalCopy, category: str, *, validation: bool = False) -> list[Sample]:
    """Read a category of MVTec LOCO AD, which has validation images."""
    splits = {"train": "train", "validation": "train" if validation else "validation"}
    return _read_category(copy, category, splits=splits)


def read_btad(copy: LocalCopy, category: str) -> list[Sample]:
    """Read a category of BTAD, which calls good images "ok"."""
    return _read_category(copy, category, good="ok")


def _read_category(
    copy: LocalCopy,
    category: str,
    *,
    good: str = GOOD,
    splits: Mapping[str, str] = _TRAINING_ALONE,
) -> list[Sample]:
    root = _category_folders(copy)[category]
    samples = [
        Sample(file, GOOD, split)
        for folder, split in splits.items()
        for file in images(root / folder / good)
    ]
    samples += read_tested(root / "test", root / "ground_truth", good)
    for split, place in (("train", f"train/{good}"), ("test", "test")):
        if not any(sample.split == split for sample in samples):
            raise _no_images(copy, root, split, place, good)
    warn_of_unused(root, samples, good)
    return samples


def read_tested(folder: Path, masks: Path | None, good: str = GOOD) -> list[Sample]:
    """Read the test images of a category: a folder for each kind, and masks in folders of these names.

    Parameters
    ----------
    folder : Path
        Holds a folder of images for each kind.
    masks : Path or None
        Holds a folder of masks for each kind of defect; None: there are none.
    good : str, default="good"
        Name of the folder of good images.

    Returns
    -------
    list of Sample
        By kind, then by name.

    Raises
    ------
    ValueError
        If a mask fits two images.
    """
    samples = []
    for of_kind in subfolders(folder):
        kind = GOOD if of_kind.name == good else of_kind.name
        known = {} if masks is None else _masks_by_name(masks / of_kind.name)
        samples += _tested(of_kind, kind, known)
    return samples


def read_unsorted(folder: Path, masks: Path) -> list[Sample]:
    """Read images of a single folder with their masks, as :func:`read_tested` reads those of a kind.

    Parameters
    ----------
    folder, masks : Path

    Returns
    -------
    list of Sample
        Of the kind "", since nobody says what they are.
    """
    return _tested(folder, "", _masks_by_name(masks))


def _tested(folder: Path, kind: str, masks: Mapping[str, Path]) -> list[Sample]:
    """Return the test images of a folder with their masks, each of which may belong to one image."""
    samples = [
        Sample(file, kind, "test", masks.get(f"{file.stem}_mask", masks.get(file.stem)))
        for file in images(folder)
    ]
    claimed: dict[Path, Path] = {}
    for sample in samples:
        if sample.mask is None or kind == GOOD:
            continue
        other = claimed.setdefault(sample.mask, sample.image)
        if other != sample.image:
            raise ValueError(
                f"the mask {os.fspath(sample.mask)!r} fits two images, {other.name!r} and "
                f"{sample.image.name!r}: rename one of them, or remove it if it is itself a mask."
            )
    return samples


def _masks_by_name(folder: Path) -> dict[str, Path]:
    """Return the masks of a kind: files, and folders with the several masks of one image."""
    several = {mask.name: mask for mask in subfolders(folder) if images(mask)}
    return several | {mask.stem: mask for mask in images(folder)}


def _no_images(copy: LocalCopy, root: Path, split: str, place: str, good: str) -> FileNotFoundError:
    what = f"no images in {os.path.relpath(root / place, copy.path)}"
    near = [folder.name for folder in subfolders(root / split) if means_good(folder.name, good)]
    if near:
        what += f" (rename {split}/{near[0]} to {split}/{good} if it holds good images)"
    return copy.missing(what)


def _category_folders(copy: LocalCopy) -> dict[str, Path]:
    if _is_category(copy.root):
        return {Path(os.path.abspath(copy.root)).name: copy.root}
    found = {folder.name: folder for folder in subfolders(copy.root) if _is_category(folder)}
    if not found:
        raise copy.missing("no folder with train and test in it")
    return found


def _is_category(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


MVTEC = Layout(
    path="The folder of the categories, or of one of them.",
    tree="""\
{root}
  <category>/train/good/*.png                good training images
  <category>/test/good/*.png                 good test images
  <category>/test/<defect>/*.png             defective test images, one folder per kind of defect
  <category>/ground_truth/<defect>/<image>_mask.png""",
    read=read_mvtec,
    find=find_categories,
    errors="a mask fits two images",
    warnings="""\
One for all, with numbers, examples and remedies: if masks match no image, lie beside the images or
in a folder of another name, or are missing for a few images of a kind; if images have other
suffixes, lie elsewhere (in deeper folders, for example), or are found twice through a link; if a
folder beside the good test images seems to hold good images too ("ok", "normal").""",
)
FOLDER = replace(
    MVTEC,
    tree="""\
{root}
  train/good/*.png                           good training images
  test/good/*.png                            good test images
  test/<defect>/*.png                        defective test images, one folder per kind of defect
  ground_truth/<defect>/<image>_mask.png     masks, optional; also <image>.png, or a folder <image>
or a folder of such folders, one per category""",
)
LOCO = replace(
    MVTEC,
    tree="""\
{root}
  <category>/train/good/*.png                good training images
  <category>/validation/good/*.png           good images for choosing settings and thresholds
  <category>/test/good/*.png                 good test images
  <category>/test/logical_anomalies/*.png
  <category>/test/structural_anomalies/*.png
  <category>/ground_truth/<defect>/<image>/*.png""",
    read=read_loco,
)
BTAD = replace(
    MVTEC,
    tree="""\
{root}
  <category>/train/ok/*                      good training images
  <category>/test/ok/*                       good test images
  <category>/test/ko/*                       defective test images
  <category>/ground_truth/ko/<image>.png     or .bmp""",
    read=read_btad,
)


# ---- classes --------------------------------------------------------------------------------------


def read_classes(copy: LocalCopy, category: str) -> list[Sample]:
    """Read ``train`` and ``test`` with one folder per class, of which NORMAL is good."""
    return [
        Sample(file, GOOD if folder.name == "NORMAL" else folder.name, split)
        for split in ("train", "test")
        for folder in subfolders(copy.root / split)
        for file in images(folder)
    ]


def in_classes(copy: LocalCopy) -> bool:
    """Whether a folder is in the layout that :func:`read_classes` reads."""
    return (copy.root / "train" / "NORMAL").is_dir()


OCT2017 = Layout(
    path="The folder with ``train`` and ``test`` (``CellData/OCT`` in the archive).",
    tree="""\
{root}
  train/NORMAL/*.jpeg                        good training images
  test/NORMAL/*.jpeg                         good test images
  test/CNV/*.jpeg, test/DME/*.jpeg, test/DRUSEN/*.jpeg""",
    read=read_classes,
)
