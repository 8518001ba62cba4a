"""The images of a folder, as cameras and phones name them."""

from pathlib import Path

import pytest
from dataset_trees import names, plant, plant_text

from skad.datasets import list_images


def test_images_of_a_phone(tmp_path, recwarn):
    plant(tmp_path, "IMG_3.jpg", "IMG_1.JPG", "IMG_2.jpeg", "IMG_4.PNG", ".IMG_5.jpg", "more/6.jpg")
    plant_text(tmp_path, "notes.txt", "of the shift")
    plant_text(tmp_path, "Thumbs.db", "of the system")
    found = list_images(tmp_path)
    assert names(found) == ["IMG_1.JPG", "IMG_2.jpeg", "IMG_3.jpg", "IMG_4.PNG"]
    assert all(isinstance(path, str) and Path(path).is_file() for path in found)
    assert not recwarn.list


def test_a_relative_folder_stays_relative(tmp_path, monkeypatch):
    plant(tmp_path, "parts/good/1.JPG")
    monkeypatch.chdir(tmp_path)
    assert list_images("parts/good") == [str(Path("parts/good/1.JPG"))]


def test_other_formats_are_said(tmp_path):
    plant(tmp_path, "1.jpg")
    plant_text(tmp_path, "IMG_2.HEIC", "of a phone")
    with pytest.warns(UserWarning, match=r"suffix \(\.heic\): 1, such as 'IMG_2\.HEIC'") as caught:
        assert names(list_images(tmp_path)) == ["1.jpg"]
    assert caught[0].filename == __file__
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"^no images in .*IMG_2\.HEIC'; convert"):
        list_images(tmp_path)


def test_no_images(tmp_path):
    plant(tmp_path, "good/1.jpg", "new/1.jpg")
    with pytest.raises(FileNotFoundError, match=r"no images in .*subfolders \(good, new\)"):
        list_images(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in '.*empty'\.$"):
        list_images(tmp_path / "empty")


@pytest.mark.parametrize("folder", ["", "gone", "file.jpg"])
def test_no_folder(tmp_path, monkeypatch, folder):
    plant(tmp_path, "file.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        list_images(folder)
