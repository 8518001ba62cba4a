"""Layouts in which CSV files list the images: VisA, APTOS 2019 and ISIC 2018."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from skad._common.image_files import images
from skad.datasets._files import check_none_missing
from skad.datasets._folders import find_categories, in_classes, read_classes, read_mvtec
from skad.datasets._layout import GOOD, Layout, LocalCopy, Sample

_GRADES = {"0": GOOD, "1": "mild", "2": "moderate", "3": "severe", "4": "proliferative"}
_LESIONS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


# ---- VisA -----------------------------------------------------------------------------------------


def find_visa(copy: LocalCopy) -> list[str]:
    """List the categories of VisA that have a folder: the archive may be unpacked in part."""
    table = _visa_table(copy)
    if not table.is_file():
        return find_categories(_prepared_visa(copy))
    listed = dict.fromkeys(row["object"] for row in _visa_rows(table))
    found = [name for name in listed if name and (copy.root / name).is_dir()]
    if not found:
        raise copy.missing(f"{os.fspath(table)!r} is there, but none of its categories")
    return found


def read_visa(copy: LocalCopy, category: str) -> list[Sample]:
    """Read a category of VisA, from the archive or from what the owner's script makes of it."""
    table, root = _visa_table(copy), copy.root
    if not table.is_file():
        return read_mvtec(_prepared_visa(copy), category)
    rows = [row for row in _visa_rows(table) if row["object"] == category]
    names = [row["image"] for row in rows] + [row["mask"] for row in rows if row["mask"]]
    missing = [name for name in names if not (root / name).is_file()]
    check_none_missing(missing, len(names), repr(os.fspath(table)))
    return [
        Sample(
            root / row["image"],
            GOOD if row["label"] == "normal" else row["label"],
            row["split"],
            root / row["mask"] if row["mask"] else None,
        )
        for row in rows
    ]


def _visa_table(copy: LocalCopy) -> Path:
    return copy.root / "split_csv" / "1cls.csv"


def _visa_rows(table: Path) -> list[dict[str, str]]:
    return _read_csv(table, ("object", "split", "label", "image", "mask"))


def _prepared_visa(copy: LocalCopy) -> LocalCopy:
    inner = copy.root / "1cls"
    return replace(copy, root=inner) if inner.is_dir() else copy


# ---- APTOS 2019 -----------------------------------------------------------------------------------


def read_aptos(
    copy: LocalCopy, category: str, *, n_train: int = 1000, random_state: int = 1
) -> list[Sample]:
    """Read APTOS 2019 and draw the training images as the code of ReContrast does."""
    if in_classes(copy):
        return read_classes(copy, category)
    table = copy.root / "train.csv"
    if not table.is_file():
        raise copy.missing("no train.csv")
    rows = _read_csv(table, ("id_code", "diagnosis"))
    kinds = {row["id_code"]: _grade(row, table) for row in rows}
    files = _listed_images(kinds, copy.root / "train_images", table)
    good = [name for name, kind in kinds.items() if kind == GOOD]
    if not 0 < n_train < len(good):
        raise ValueError(
            f"n_train={n_train!r} must be between 1 and {len(good) - 1}: there are {len(good)} good "
            "images, and at least one is for the test."
        )
    random.Random(random_state).shuffle(good)
    train = set(good[:n_train])
    return [
        Sample(files[name], kind, "train" if name in train else "test")
        for name, kind in kinds.items()
    ]


def _grade(row: Mapping[str, str], table: Path) -> str:
    grade = row["diagnosis"]
    if grade not in _GRADES:
        raise ValueError(
            f"{os.fspath(table)!r}: diagnosis {grade!r} of {row['id_code']} is none of 0 to 4."
        )
    return _GRADES[grade]


# ---- ISIC 2018 ------------------------------------------------------------------------------------


def read_isic(copy: LocalCopy, category: str) -> list[Sample]:
    """Read ISIC 2018, task 3, with its validation images as test images."""
    if in_classes(copy):
        return read_classes(copy, category)
    samples = []
    for part, split in (("Training", "train"), ("Validation", "test")):
        truth = f"ISIC2018_Task3_{part}_GroundTruth"
        table = copy.root / truth / f"{truth}.csv"
        if not table.is_file():
            raise copy.missing(f"no {truth}/{truth}.csv")
        kinds = {
            row["image"]: _lesion(row, table) for row in _read_csv(table, ("image", *_LESIONS))
        }
        files = _listed_images(kinds, copy.root / f"ISIC2018_Task3_{part}_Input", table)
        samples += [Sample(files[name], kind, split) for name, kind in kinds.items()]
    return samples


def _lesion(row: Mapping[str, str], table: Path) -> str:
    marked = [name for name in _LESIONS if float(row[name] or 0) > 0]
    if len(marked) != 1:
        raise ValueError(
            f"{os.fspath(table)!r}: {row['image']} has {' and '.join(marked) or 'no class'}, but a "
            "lesion has one class."
        )
    return GOOD if marked[0] == "NV" else marked[0]


# ---- tables ---------------------------------------------------------------------------------------


def _read_csv(file: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header; cells are stripped of white space, and `columns` are needed."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise ValueError(
                f"{os.fspath(file)!r} has no column {', '.join(lacking)}; it has "
                f"{', '.join(header) or 'none'}."
            )
        rows = []
        for row in reader:
            if any(row[name] is None for name in columns):
                raise ValueError(f"{os.fspath(file)!r}, line {reader.line_num}: a cell is missing.")
            rows.append({name: (row[name] or "").strip() for name in header})
    return rows


def _listed_images(names: Mapping[str, str], folder: Path, table: Path) -> dict[str, Path]:
    """Return the images of a folder by the names without suffix that a table lists; all must exist."""
    files = {file.stem: file for file in images(folder)}
    missing = [name for name in names if name not in files]
    where = f"{os.fspath(table)!r} lists images of {folder.name}"
    check_none_missing(missing, len(names), where)
    return files


_CLASSES = """\
or, as the code of ReContrast prepares it,
  train/NORMAL/*
  test/NORMAL/*
  test/ABNORMAL/*"""
_COLUMNS = "a table lacks columns or cells"
VISA = Layout(
    path="The folder with ``split_csv``, or with ``1cls``, or of the prepared categories.",
    tree="""\
{root}
  split_csv/1cls.csv                         columns object,split,label,image,mask
  <category>/Data/Images/Normal/*.JPG
  <category>/Data/Images/Anomaly/*.JPG
  <category>/Data/Masks/Anomaly/*.png
or, as the owner's prepare_data.py writes it,
  1cls/<category>/train/good/*.JPG
  1cls/<category>/test/good/*.JPG
  1cls/<category>/test/bad/*.JPG
  1cls/<category>/ground_truth/bad/*.png""",
    read=read_visa,
    find=find_visa,
    errors=_COLUMNS,
    warnings="For prepared folders, as :func:`load_mvtec_ad`.",
)
APTOS = Layout(
    path="The folder with ``train.csv``, or a prepared one.",
    tree=f"""\
{{root}}
  train.csv                                  columns id_code,diagnosis; 0: good
  train_images/<id_code>.png
{_CLASSES}""",
    read=read_aptos,
    errors=f"{_COLUMNS} or has other grades; if `n_train` leaves no good test image",
)
ISIC2018 = Layout(
    path="The folder with ``ISIC2018_Task3_Training_Input`` and the others, or a prepared one.",
    tree=f"""\
{{root}}
  ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
  ISIC2018_Task3_Training_Input/*.jpg
  ISIC2018_Task3_Validation_GroundTruth/ISIC2018_Task3_Validation_GroundTruth.csv
  ISIC2018_Task3_Validation_Input/*.jpg
{_CLASSES}""",
    read=read_isic,
    errors=f"{_COLUMNS}, or gives an image no class or several",
)
