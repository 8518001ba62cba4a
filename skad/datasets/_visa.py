"""VisA, which a table divides."""

from __future__ import annotations

import os
from pathlib import Path

from sklearn.utils import Bunch

from skad.datasets._bunch import GOOD, Sample, make_bunch
from skad.datasets._files import check_none_absent, choose, read_table
from skad.datasets._folders import layout_categories, load_layout
from skad.datasets._source import Source

VISA = Source(
    "visa",
    "VisA",
    """\
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
    "Amazon",
    "CC BY 4.0",
    "https://github.com/amazon-science/spot-diff",
)


def load_visa(path: str | os.PathLike[str], category: str | None = None) -> Bunch:
    """Read a category of VisA, in the official one-class split.

    Twelve categories (candle, capsules, cashew, chewinggum, fryum, macaroni1, macaroni2, pcb1, pcb2,
    pcb3, pcb4, pipe_fryum): the archive as it is, divided as ``split_csv/1cls.csv`` says, or the folders
    that the owner's ``prepare_data.py`` makes of it. The kind of the defective images is "anomaly" in
    the first, "bad" in the second. Masks of the first number the kinds of defects, so that they look
    black: :func:`read_mask` takes every value but 0 for a defect. Licence: CC BY 4.0. Owner's
    page: https://github.com/amazon-science/spot-diff

    Parameters
    ----------
    path : path-like
        The folder with ``split_csv``, or with ``1cls``, or of the prepared categories.
    category : str, default=None
        None: the only one.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`; images in the order of the table.

    Raises
    ------
    FileNotFoundError
        If the folder, or files that the table names, are missing.
    ValueError
        If `path` is a file, for a category that does not exist or is not said, or if the table lacks
        columns.

    References
    ----------
    Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer, "SPot-the-Difference Self-Supervised Pre-training
    for Anomaly Detection and Segmentation", ECCV 2022.

    Examples
    --------
    >>> from skad.datasets import load_visa
    >>> data = load_visa("VisA", "candle")  # doctest: +SKIP
    >>> len(data.X_train), len(data.X_test)  # doctest: +SKIP
    (900, 200)
    """
    root = VISA.folder(path)
    table = root / "split_csv" / "1cls.csv"
    if not table.is_file():
        return load_layout(VISA, _prepared(root), category)
    category = choose(category, _visa_objects(root, table), path)
    rows = [row for row in _visa_rows(table) if row["object"] == category]
    names = [row["image"] for row in rows] + [row["mask"] for row in rows if row["mask"]]
    absent = [name for name in names if not (root / name).is_file()]
    check_none_absent(absent, len(names), repr(os.fspath(table)))
    samples = [
        Sample(
            root / row["image"],
            GOOD if row["label"] == "normal" else row["label"],
            row["split"],
            root / row["mask"] if row["mask"] else None,
        )
        for row in rows
    ]
    return make_bunch(samples, category, VISA, path)


def visa_categories(path: str | os.PathLike[str]) -> list[str]:
    """List the categories of VisA that are there.

    Parameters
    ----------
    path : path-like
        As for :func:`load_visa`.

    Returns
    -------
    list of str

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_visa`.
    """
    root = VISA.folder(path)
    table = root / "split_csv" / "1cls.csv"
    if table.is_file():
        return _visa_objects(root, table)
    return layout_categories(VISA, _prepared(root))


def _prepared(root: Path) -> Path:
    return root / "1cls" if (root / "1cls").is_dir() else root


def _visa_rows(table: Path) -> list[dict[str, str]]:
    return read_table(table, ("object", "split", "label", "image", "mask"))


def _visa_objects(root: Path, table: Path) -> list[str]:
    """Categories of the table that have a folder: the archive may be unpacked in part."""
    objects = dict.fromkeys(row["object"] for row in _visa_rows(table))
    found = [name for name in objects if name and (root / name).is_dir()]
    if not found:
        raise VISA.missing(root, f"{os.fspath(table)!r} is there, but none of its categories")
    return found
