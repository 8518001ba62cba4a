"""Local image folders as scikit-learn data sets. Nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
_LAYOUT = """\
{root}
  train/good/*.png                           good images to learn from
  test/good/*.png                            good images to test on
  test/<defect>/*.png                        defective images, one folder a kind of defect
  ground_truth/<defect>/<image>_mask.png     optional pixel masks"""


def load_folder(path: str | os.PathLike[str]) -> Bunch:
    """Read a local folder in the layout of MVTec AD.

    Parameters
    ----------
    path : path-like
        Folder with ``train/good``, ``test/good``, ``test/<defect>`` and, optionally,
        ``ground_truth/<defect>/<image>_mask.png``.

    Returns
    -------
    sklearn.utils.Bunch
        ``X_train`` : list of str, paths of good images;
        ``X_test`` : list of str, sorted by kind and name;
        ``y_test`` : ndarray of shape (n_test,), +1 good, -1 defective;
        ``defects`` : list of str, the folder of each test image ("good" for good ones);
        ``masks`` : list of str or None, the mask file of each test image (None: good, or no mask);
        ``name`` : str, the folder's name.

    Raises
    ------
    FileNotFoundError
        If the folder, ``train/good`` or ``test`` is missing or empty; the message shows the layout.

    Examples
    --------
    >>> from skad.datasets import load_folder
    >>> data = load_folder("parts/bottle")  # doctest: +SKIP
    >>> det.fit(data.X_train).score(data.X_test, data.y_test)  # doctest: +SKIP
    """
    root = Path(path)
    train = _images(root / "train" / "good")
    kinds = (
        sorted(p for p in (root / "test").iterdir() if p.is_dir()) if _has(root / "test") else []
    )
    test = [(kind.name, file) for kind in kinds for file in _images(kind)]
    if not train or not test:
        missing = "train/good" if not train else "test"
        raise FileNotFoundError(
            f"{os.fspath(path)!r}: no images in {missing}. Expected the layout\n"
            + _LAYOUT.format(root=os.fspath(path))
        )
    return Bunch(
        X_train=[str(file) for file in train],
        X_test=[str(file) for _, file in test],
        y_test=np.array([1 if kind == "good" else -1 for kind, _ in test]),
        defects=[kind for kind, _ in test],
        masks=[_mask(root, kind, file) for kind, file in test],
        name=root.resolve().name,
    )


def _has(folder: Path) -> bool:
    return folder.is_dir()


def _images(folder: Path) -> list[Path]:
    if not _has(folder):
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)


def _mask(root: Path, kind: str, file: Path) -> str | None:
    if kind == "good":
        return None
    folder = root / "ground_truth" / kind
    for candidate in (folder / f"{file.stem}_mask.png", folder / f"{file.stem}.png"):
        if candidate.is_file():
            return str(candidate)
    return None
