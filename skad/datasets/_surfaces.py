"""Layouts of surfaces with masks beside their images: magnetic tiles, KolektorSDD and KolektorSDD2."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Sequence
from pathlib import Path

from skad._common.forks import LOADING
from skad._common.image_files import images, subfolders
from skad.datasets._files import check_none_missing
from skad.datasets._layout import GOOD, Layout, LocalCopy, Sample

_JPEG = frozenset({".jpg", ".jpeg"})
_FRAME = re.compile(r"_num_(\d+)$")
# The exposures of one magnetic tile are within some 200 frames. Taking two tiles for one does no
# harm; taking one for two would put it on both sides of the split.
_SAME_TILE = 300


# ---- magnetic tile --------------------------------------------------------------------------------


def read_tiles(
    copy: LocalCopy, category: str, *, test_size: float = 0.2, random_state: int = 0
) -> list[Sample]:
    """Read magnetic tiles, and draw the good ones to test on; defective ones are all tested on."""
    good = images(copy.root / "MT_Free" / "Imgs", _JPEG)
    if not good:
        raise copy.missing("no images in MT_Free/Imgs")
    splits = _draw(_tiles(good), test_size, random_state, "good tiles")
    samples = [Sample(file, GOOD, split) for file, split in zip(good, splits, strict=True)]
    for folder in subfolders(copy.root):
        if folder.name.startswith("MT_") and folder.name != "MT_Free":
            masks = {mask.stem: mask for mask in images(folder / "Imgs", {".png"})}
            kind = folder.name.removeprefix("MT_").lower()
            samples += [
                Sample(file, kind, "test", masks.get(file.stem))
                for file in images(folder / "Imgs", _JPEG)
            ]
    return samples


def _tiles(files: Sequence[Path]) -> list[str]:
    """Name the tile that each file shows; a file name without a frame is a tile of its own."""
    frames = {file: int(found[1]) for file in files if (found := _FRAME.search(file.stem))}
    tiles = {file: file.name for file in files}
    last, first = None, ""
    for file in sorted(frames, key=frames.__getitem__):
        if last is None or frames[file] - last > _SAME_TILE:
            first = file.name
        tiles[file], last = first, frames[file]
    return [tiles[file] for file in files]


# ---- KolektorSDD ----------------------------------------------------------------------------------


def read_kolektor(
    copy: LocalCopy, category: str, *, test_size: float = 0.5, random_state: int = 0
) -> list[Sample]:
    """Read KolektorSDD, and draw the commutators to test on."""
    folders = [folder for folder in subfolders(copy.root) if folder.name.lower().startswith("kos")]
    found = _with_masks(folders, "_label")
    if not found:
        raise copy.missing("no images in kos<NN>")
    groups = [image.parent.name for image, _ in found]
    splits = _draw(groups, test_size, random_state, "commutators")
    return _judged(found, splits)


def read_kolektor2(copy: LocalCopy, category: str) -> list[Sample]:
    """Read KolektorSDD2 in its official split."""
    found = _with_masks([copy.root / "train", copy.root / "test"], "_GT")
    return _judged(found, [image.parent.name for image, _ in found])


def _with_masks(folders: Sequence[Path], ending: str) -> list[tuple[Path, Path]]:
    """Find the images and their masks, which lie beside them and have an ending to their names."""
    found, missing = [], []
    for folder in folders:
        files = {file.stem: file for file in images(folder)}
        for stem, file in files.items():
            if stem.endswith(ending):
                continue
            if f"{stem}{ending}" in files:
                found.append((file, files[f"{stem}{ending}"]))
            else:
                missing.append(f"{folder.name}/{stem}{ending}")
    where = f"masks in {os.fspath(folders[0].parent)!r}" if folders else ""
    check_none_missing(missing, len(found) + len(missing), where)
    return found


def _judged(found: Sequence[tuple[Path, Path]], splits: Sequence[str]) -> list[Sample]:
    """Make samples; images whose mask marks nothing are good."""
    with LOADING:
        from skad.datasets._masks import read_mask

    return [
        Sample(image, "defect" if read_mask(mask).any() else GOOD, split, mask)
        for (image, mask), split in zip(found, splits, strict=True)
    ]


# ---- splits ---------------------------------------------------------------------------------------


def _draw(groups: Sequence[Hashable], test_size: float, random_state: int, what: str) -> list[str]:
    """Draw whole groups for the test; return the split of every member."""
    with LOADING:
        import numpy as np
        from sklearn.model_selection import GroupShuffleSplit

    n = len(set(groups))
    if n < 2:
        raise ValueError(
            f"{n} {what}: at least two are needed, one for training and one to test on."
        )
    splitter = GroupShuffleSplit(1, test_size=test_size, random_state=random_state)
    _, tested = next(splitter.split(groups, groups=groups))
    splits = np.full(len(groups), "train")
    splits[tested] = "test"
    return splits.tolist()


_TEST_SIZE = "`test_size` leaves nothing to train or to test on"
MAGNETIC_TILE = Layout(
    path="The folder with ``MT_Free``.",
    tree="""\
{root}
  MT_Free/Imgs/*.jpg                         good images
  MT_<defect>/Imgs/*.jpg                     defective images, one folder per kind of defect
  MT_<defect>/Imgs/*.png                     masks of the same names""",
    read=read_tiles,
    errors=_TEST_SIZE,
)
KOLEKTOR_SDD = Layout(
    path="The folder with ``kos01``.",
    tree="""\
{root}
  kos<NN>/Part<K>.jpg                        surface K of commutator NN
  kos<NN>/Part<K>_label.bmp                  its mask, all zero for good ones""",
    read=read_kolektor,
    errors=f"{_TEST_SIZE}; if a mask cannot be read",
)
KOLEKTOR_SDD2 = Layout(
    path="The folder with ``train`` and ``test``.",
    tree="""\
{root}
  train/<image>.png                          training images
  train/<image>_GT.png                       their masks, all zero for good ones
  test/<image>.png, test/<image>_GT.png""",
    read=read_kolektor2,
    errors="a mask cannot be read",
)
