"""The medical data sets of the ReContrast paper, divided as its code divides them."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

from sklearn.utils import Bunch

from skad.datasets._bunch import GOOD, Sample, make_bunch
from skad.datasets._files import check_none_absent, images, read_table, subfolders
from skad.datasets._source import Source

_PREPARED = """\
or, as the code of ReContrast prepares it,
  train/NORMAL/*
  test/NORMAL/*
  test/ABNORMAL/*"""
APTOS = Source(
    "aptos",
    "APTOS 2019",
    """\
{root}
  train.csv                                  columns id_code,diagnosis; 0: good
  train_images/<id_code>.png
"""
    + _PREPARED,
    "the Asia Pacific Tele-Ophthalmology Society",
    "the rules of the competition",
    "https://www.kaggle.com/competitions/aptos2019-blindness-detection/data",
)
OCT2017 = Source(
    "oct2017",
    "OCT2017",
    """\
{root}
  train/NORMAL/*.jpeg                        good images to learn from
  test/NORMAL/*.jpeg                         good images to test on
  test/CNV/*.jpeg, test/DME/*.jpeg, test/DRUSEN/*.jpeg""",
    "D. Kermany et al.",
    "CC BY 4.0",
    "https://data.mendeley.com/datasets/rscbjbr9sj/3",
)
ISIC2018 = Source(
    "isic2018",
    "ISIC 2018, task 3",
    """\
{root}
  ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
  ISIC2018_Task3_Training_Input/*.jpg
  ISIC2018_Task3_Validation_GroundTruth/ISIC2018_Task3_Validation_GroundTruth.csv
  ISIC2018_Task3_Validation_Input/*.jpg
"""
    + _PREPARED,
    "the International Skin Imaging Collaboration",
    "CC BY-NC, not for commercial use",
    "https://challenge.isic-archive.com/data/#2018",
)
_GRADES = {"0": GOOD, "1": "mild", "2": "moderate", "3": "severe", "4": "proliferative"}
_LESIONS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def load_aptos(
    path: str | os.PathLike[str], *, n_train: int = 1000, random_state: int = 1
) -> Bunch:
    """Read APTOS 2019 (photographs of the retina), divided as in the ReContrast paper.

    ``train.csv`` (columns id_code, diagnosis) and ``train_images`` of the competition, whose test images
    have no labels. Grade 0 is good; 1 to 4 are "mild", "moderate", "severe" and "proliferative".
    Licence: the rules of the competition, which are shown there after signing in. Owner's page:
    https://www.kaggle.com/competitions/aptos2019-blindness-detection/data

    The good images are shuffled as the code of ReContrast does it: Python's generator, seeded with 1, in
    the order of the table. The first 1,000 are learnt from, all others are tested on: for the complete
    table 2,662 images, the very ones of the paper. Its images, however, were prepared: cropped to the
    disc of the eye and shrunk to 512 pixels. That is not done here. To have it, run the paper's
    ``prepare_aptos.py`` and name the folder that it writes (``train/NORMAL``, ``test/NORMAL``,
    ``test/ABNORMAL``), which is read as it is.

    Parameters
    ----------
    path : path-like
        The folder with ``train.csv``, or a prepared one.
    n_train : int, default=1000
        Good images to learn from. Prepared folders are divided already.
    random_state : int, default=1
        Seed of the shuffle.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`, images in the order of the table; ``masks`` are all None.

    Raises
    ------
    FileNotFoundError
        If the folder, the table or images that it lists are missing.
    ValueError
        If `path` is a file, the table has other columns or grades, or `n_train` leaves no good image to
        test on.

    References
    ----------
    Asia Pacific Tele-Ophthalmology Society, "APTOS 2019 Blindness Detection", 2019; J. Guo et al.,
    "ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction", NeurIPS 2023,
    appendix B.

    Examples
    --------
    >>> from skad.datasets import load_aptos
    >>> data = load_aptos("APTOS/original")  # doctest: +SKIP
    >>> len(data.X_train), len(data.X_test)  # doctest: +SKIP
    (1000, 2662)
    """
    root = APTOS.folder(path)
    if _is_prepared(root):
        return make_bunch(_class_folders(root), APTOS.name, APTOS, path)
    table = root / "train.csv"
    if not table.is_file():
        raise APTOS.missing(path, "no train.csv")
    grades = {
        row["id_code"]: row["diagnosis"] for row in read_table(table, ("id_code", "diagnosis"))
    }
    for name, grade in grades.items():
        if grade not in _GRADES:
            raise ValueError(
                f"{os.fspath(table)!r}: diagnosis {grade!r} of {name} is none of 0 to 4."
            )
    files = _files_of(grades, root / "train_images", table)
    good = [name for name, grade in grades.items() if _GRADES[grade] == GOOD]
    if not 0 < n_train < len(good):
        raise ValueError(
            f"n_train={n_train!r} must lie between 1 and {len(good) - 1}: there are {len(good)} good "
            "images, to learn from and to test on."
        )
    random.Random(random_state).shuffle(good)
    learnt = set(good[:n_train])
    samples = [
        Sample(files[name], _GRADES[grade], "train" if name in learnt else "test")
        for name, grade in grades.items()
    ]
    return make_bunch(samples, APTOS.name, APTOS, path)


def load_oct2017(path: str | os.PathLike[str]) -> Bunch:
    """Read OCT2017 (optical coherence tomography of the retina), in the official split.

    ``train`` and ``test`` with a folder a class: NORMAL is good; CNV, DME and DRUSEN are kinds of
    defects. Defective training images, where they are there, have the split "train" and are not in
    ``X_train``. Other folders are not read. The paper of ReContrast learnt from 26,315 images and tested
    on 1,000; other versions have other numbers. Licence: CC BY 4.0, as others report it; the owner's
    page decides, https://data.mendeley.com/datasets/rscbjbr9sj/3

    Parameters
    ----------
    path : path-like
        The folder with ``train`` and ``test`` (``CellData/OCT`` in the archive).

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`; ``masks`` are all None.

    Raises
    ------
    FileNotFoundError
        If the folder or its images are missing.
    ValueError
        If `path` is a file.

    References
    ----------
    D. Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep
    Learning", Cell 172, 2018.

    Examples
    --------
    >>> from skad.datasets import load_oct2017
    >>> data = load_oct2017("OCT2017")  # doctest: +SKIP
    """
    root = OCT2017.folder(path)
    return make_bunch(_class_folders(root), OCT2017.name, OCT2017, path)


def load_isic2018(path: str | os.PathLike[str]) -> Bunch:
    """Read ISIC 2018, task 3 (skin lesions), divided as in the ReContrast paper.

    Nevi (NV) are good, which makes this a one-class problem rather than a search for defects; MEL, BCC,
    AKIEC, BKL, DF and VASC are the other kinds. The official training images are learnt from (6,705
    nevi; the others have the split "train" and are not in ``X_train``), the official validation images
    (193) are tested on. The layout is that of the four archives "Training Data", "Training Ground
    Truth", "Validation Data" and "Validation Ground Truth", unpacked side by side; folders that the
    paper's ``prepare_isic2018.py`` writes are read as well. Licence: CC BY-NC, not for commercial use,
    as others report it; the owner's page decides, https://challenge.isic-archive.com/data/#2018

    Parameters
    ----------
    path : path-like
        The folder with ``ISIC2018_Task3_Training_Input`` and the others, or a prepared one.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`, images in the order of the tables; ``masks`` are all None.

    Raises
    ------
    FileNotFoundError
        If the folder, a table or images that it lists are missing.
    ValueError
        If `path` is a file, a table has other columns, or a row names no class or several.

    References
    ----------
    N. Codella et al., "Skin Lesion Analysis Toward Melanoma Detection 2018", arXiv:1902.03368, 2019;
    P. Tschandl, C. Rosendahl, H. Kittler, "The HAM10000 dataset", Scientific Data 5, 2018.

    Examples
    --------
    >>> from skad.datasets import load_isic2018
    >>> data = load_isic2018("ISIC2018/original")  # doctest: +SKIP
    >>> len(data.X_train), len(data.X_test)  # doctest: +SKIP
    (6705, 193)
    """
    root = ISIC2018.folder(path)
    if _is_prepared(root):
        return make_bunch(_class_folders(root), ISIC2018.name, ISIC2018, path)
    samples = []
    for part, split in (("Training", "train"), ("Validation", "test")):
        truth = f"ISIC2018_Task3_{part}_GroundTruth"
        table = root / truth / f"{truth}.csv"
        if not table.is_file():
            raise ISIC2018.missing(path, f"no {truth}/{truth}.csv")
        rows = read_table(table, ("image", *_LESIONS))
        kinds = {row["image"]: _lesion(row, table) for row in rows}
        files = _files_of(kinds, root / f"ISIC2018_Task3_{part}_Input", table)
        samples += [Sample(files[name], kind, split) for name, kind in kinds.items()]
    return make_bunch(samples, ISIC2018.name, ISIC2018, path)


def _lesion(row: Mapping[str, str], table: Path) -> str:
    marked = [name for name in _LESIONS if float(row[name] or 0) > 0]
    if len(marked) != 1:
        raise ValueError(
            f"{os.fspath(table)!r}: {row['image']} has {' and '.join(marked) or 'no class'}, but a "
            "lesion has one class."
        )
    return GOOD if marked[0] == "NV" else marked[0]


def _files_of(names: Mapping[str, str], folder: Path, table: Path) -> dict[str, Path]:
    """Images of a folder by the names without suffix that a table lists; all must be there."""
    files = {file.stem: file for file in images(folder)}
    absent = [name for name in names if name not in files]
    where = f"{os.fspath(table)!r} lists images of {folder.name}"
    check_none_absent(absent, len(names), where)
    return files


def _is_prepared(root: Path) -> bool:
    return (root / "train" / "NORMAL").is_dir()


def _class_folders(root: Path) -> list[Sample]:
    return [
        Sample(file, GOOD if folder.name == "NORMAL" else folder.name, split)
        for split in ("train", "test")
        for folder in subfolders(root / split)
        for file in images(folder)
    ]
