"""Folders in MVTec layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skad.datasets import load_folder


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "bottle"
    files = [
        "train/good/001.png",
        "train/good/000.PNG",
        "test/good/000.png",
        "test/scratch/000.jpg",
        "test/scratch/001.png",
        "ground_truth/scratch/000_mask.png",
    ]
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    (root / "test" / "scratch" / "notes.txt").write_text("not an image")
    return root


def names(paths):
    return [None if path is None else Path(path).name for path in paths]


def test_layout(folder):
    data = load_folder(folder)
    assert data.name == "bottle"
    assert names(data.X_train) == ["000.PNG", "001.png"]
    assert names(data.X_test) == ["000.png", "000.jpg", "001.png"]
    assert data.y_test.tolist() == [1, -1, -1]
    assert data.defects == ["good", "scratch", "scratch"]
    assert names(data.masks) == [None, "000_mask.png", None]


@pytest.mark.parametrize("missing", ["train", "test"])
def test_what_is_missing_is_named(folder, missing):
    for path in sorted((folder / missing).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(
        FileNotFoundError, match=rf"no images in {missing}[\s\S]*ground_truth/<defect>"
    ):
        load_folder(folder)


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_folder(tmp_path / "absent")
