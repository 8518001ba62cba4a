"""What a folder holds and its loader leaves out is told, with numbers and an example."""

import re
import warnings

import pytest
from dataset_trees import names, plant, plant_category

from skad.datasets import load_btad, load_folder, load_mvtec_ad


@pytest.fixture
def folder(tmp_path):
    return plant_category(tmp_path / "bottle")


def told(folder, load=load_folder):
    with pytest.warns(UserWarning, match="not used|count as defective") as caught:
        load(folder)
    (warning,) = caught
    assert warning.filename == __file__  # it points to the line that called
    text = str(warning.message)
    assert text.startswith(repr(str(folder)))
    return text


@pytest.mark.parametrize(
    "mask",
    [
        *(
            "scratch/000_gt.png",
            "scratch/mask_000.png",
            "scratch/001-mask.png",
            "scratch/1_mask.PNG",
        ),
        *("scratch/001_label.bmp", "scratch/001_MASK.png", "scratch/001.mask.png"),
        *("scratches/001_mask.png", "001_mask.png", "scratch/masks/001_mask.png"),
    ],
)
def test_masks_that_match_no_image(folder, mask):
    plant(folder, f"ground_truth/{mask}", "ground_truth/scratch/9_mask.tif")
    text = told(folder)
    assert "Masks not used: 2, such as 'ground_truth/" in text
    assert "'ground_truth/<defect>/<image>_mask.png'" in text
    (folder / "ground_truth/scratch/9_mask.tif").unlink()
    assert f"Masks not used: 1, such as 'ground_truth/{mask}'" in told(folder)


def test_masks_that_are_there_twice(folder):
    plant(folder, "ground_truth/scratch/000.png", "ground_truth/scratch/001_mask.bmp")
    assert "Masks not used: 1, such as 'ground_truth/scratch/000.png'" in told(folder)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["train/good/7.gif"], r"suffix \(\.gif\): 1, such as 'train/good/7\.gif'"),
        (
            ["train/good/7.ppm", "train/good/8.PPM", "test/scratch/9.GIF"],
            r"suffix \(\.gif, \.ppm\): 3, such as 'train/good/7\.ppm'; convert",
        ),
        (["test/scratch/0.jp2"], r"suffix \(\.jp2\): 1"),
    ],
)
def test_other_suffixes(folder, files, text):
    for file in files:
        (folder / file).write_bytes(b"some image")
    assert re.search(text, told(folder))


@pytest.mark.parametrize(
    "files",
    [
        ["train/good/monday/0.png", "train/good/monday/1.PNG"],
        ["test/scratch/deep/deeper/0.jpg", "test/scratch/deep/1.jpg"],
        ["train/0.png", "train/1.png"],
        ["test/0.png", "train/bad/0.png"],
        ["validation/good/0.png", "val/0.png"],
    ],
)
def test_other_places(folder, files):
    plant(folder, *files)
    assert f"for their place: 2, such as {min(files, key=place)!r}; images lie" in told(folder)


def place(file):
    """Parts are looked through in this order, and what is less deep first."""
    parts = ["train", "validation", "val", "test"]
    return parts.index(file.split("/")[0]), file.count("/"), file


@pytest.mark.parametrize(
    "name",
    ["ok", "OK", "Good", "GOOD", "normal", "gut", "i.O.", "no_defect", "Non-Defective", "bon"],
)
def test_good_in_other_words(folder, name):
    plant(folder, f"test/{name}/0.png", f"test/{name}/1.png")
    text = told(folder)
    assert f"Images in 'test/{name}' that count as defective: 2; good images lie in" in text


@pytest.mark.parametrize("name", ["nok", "not_ok", "ko", "not good", "no_good", "broken", "okra"])
def test_names_of_defects(folder, name):
    plant(folder, f"test/{name}/0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert name in load_folder(folder).defects


@pytest.mark.parametrize("name", ["ok", "Good", "normal"])
def test_training_images_in_other_words(tmp_path, name):
    root = plant(tmp_path / "a", f"train/{name}/0.png", "test/dent/0.png")
    with pytest.raises(FileNotFoundError, match=rf"rename train/{name} to train/good if it holds"):
        load_folder(root)


def test_all_at_once(folder):
    """One warning, that says everything."""
    plant(folder, "ground_truth/scratch/001_gt.png", "train/good/a/0.png", "test/OK/0.png")
    (folder / "test/good/0.gif").write_bytes(b"some image")
    text = told(folder, load_mvtec_ad)
    for part in ("Masks not used: 1", "suffix (.gif): 1", "place: 1", "'test/OK'"):
        assert part in text


def test_a_layout_with_another_word(tmp_path):
    root = plant(tmp_path / "01", "train/ok/0.png", "test/ok/1.png", "test/ko/2.png")
    load_btad(root)
    plant(root, "test/normal/0.png")
    assert "'test/normal' that count as defective: 1; good images lie in 'test/ok'" in told(
        root, load_btad
    )


def test_what_is_no_image_is_passed_over(folder):
    for file in ("train/good/notes.txt", "test/.DS_Store", "test/scratch/Thumbs.db"):
        (folder / file).write_text("no image")
    (folder / "train/good/empty").mkdir()
    plant(folder, "docs/page.png", "overview.png", "test/.cache/0.png", "ground_truth/._0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_folder(folder)
    assert len(data.X) == 5


def test_folders_of_masks_and_links(folder, tmp_path):
    """Neither the masks in a folder nor a link back to the whole are left out."""
    plant(folder, "ground_truth/scratch/001/0.png", "ground_truth/scratch/001/1.png")
    (folder / "train/good/loop").symlink_to(folder, target_is_directory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_folder(folder)
    assert names(data.masks_test) == [None, "000_mask.png", "001"]
