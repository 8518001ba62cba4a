"""Files that a loader does not use are reported, with numbers and an example."""

import os
import re
import warnings

import pytest
from dataset_trees import names, plant, plant_category

from skad.datasets import load_btad, load_folder, load_mvtec_ad


@pytest.fixture
def folder(tmp_path):
    return plant_category(tmp_path / "bottle")


def warned(folder, load=load_folder):
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
    text = warned(folder)
    assert "Masks not used: 2, such as 'ground_truth/" in text
    assert "'ground_truth/<defect>/<image>_mask.png'" in text
    (folder / "ground_truth/scratch/9_mask.tif").unlink()
    assert f"Masks not used: 1, such as 'ground_truth/{mask}'" in warned(folder)


def test_masks_that_are_there_twice(folder):
    plant(folder, "ground_truth/scratch/000.png", "ground_truth/scratch/001_mask.bmp")
    assert "Masks not used: 1, such as 'ground_truth/scratch/000.png'" in warned(folder)


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
    assert re.search(text, warned(folder))


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
    said = f"because of their place: 2, such as {min(files, key=place)!r}; move them to"
    assert said in warned(folder)


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
    text = warned(folder)
    assert f"Images in 'test/{name}' that count as defective: 2; if they are good, rename" in text


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
    text = warned(folder, load_mvtec_ad)
    for part in ("Masks not used: 1", "suffix (.gif): 1", "place: 1", "'test/OK'"):
        assert part in text


def test_a_layout_with_another_word(tmp_path):
    root = plant(tmp_path / "01", "train/ok/0.png", "test/ok/1.png", "test/ko/2.png")
    load_btad(root)
    plant(root, "test/normal/0.png")
    assert (
        "'test/normal' that count as defective: 1; if they are good, rename the folder to 'test/ok'"
        in warned(root, load_btad)
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


def remarks(folder):
    with pytest.warns(UserWarning, match=re.escape(str(folder))) as caught:
        load_folder(folder)
    (warning,) = caught
    return str(warning.message)


@pytest.mark.parametrize("name", ["groundtruth", "Ground Truth", "gt", "GT", "masks", "labels"])
def test_masks_in_a_folder_of_another_name(folder, name):
    (folder / "ground_truth").rename(folder / name)
    said = f"name of their folder: 1, such as '{name}/scratch/000_mask.png'; rename the folder to"
    assert said in remarks(folder)


@pytest.mark.parametrize("ending", ["_mask", "-mask", "_GT", ".label", "_ground_truth"])
def test_masks_beside_the_images(folder, ending):
    (folder / "ground_truth/scratch/000_mask.png").unlink()
    plant(folder, f"test/scratch/000{ending}.png", f"test/scratch/001{ending}.png")
    said = f"masks of the images beside them: 2, such as 'test/scratch/000{ending}.png'; move"
    assert said in remarks(folder)


def test_a_name_that_ends_like_a_mask_but_stands_alone(folder):
    plant(folder, "test/scratch/face_mask.png", "test/scratch/label.png", "train/good/gas_mask.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_folder(folder)


@pytest.mark.parametrize("other", ["000.png", "000_mask.png", "000.bmp"])
def test_a_mask_that_fits_two_images_is_an_error(folder, other):
    plant(folder, "ground_truth/scratch/000_mask.png", f"test/scratch/{other}")
    with pytest.raises(ValueError, match=r"000_mask\.png' fits two images, '000\.\w+'|'000_mask"):
        load_folder(folder)


def test_good_images_may_share_a_name(folder):
    plant(folder, "test/good/000.jpg", "ground_truth/good/000_mask.png", "train/good/001.jpg")
    load_folder(folder)


def test_masks_that_few_images_lack(folder):
    plant(folder, *(f"test/dent/{i}.png" for i in range(5)))
    plant(folder, *(f"ground_truth/dent/{i}.png" for i in range(3)))
    said = "Images without a mask though most of 'dent' have one: 2, such as 'test/dent/3.png'."
    assert said in remarks(folder)


def test_an_empty_folder_is_no_mask(folder):
    (folder / "ground_truth/scratch/001").mkdir()
    (folder / "ground_truth/scratch/001/notes.txt").write_text("to do")
    assert names(load_folder(folder).masks_test) == [None, "000_mask.png", None]


def test_a_kind_that_is_a_link_to_another(folder):
    (folder / "test/zlink").symlink_to("scratch", target_is_directory=True)
    said = (
        "found twice: 2, since 'test/zlink' and 'test/scratch' are the same folder; remove the link"
    )
    assert said in remarks(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_are_left_out(folder):
    os.mkfifo(folder / "train/good/9.png")
    (folder / "test/scratch/null.png").symlink_to(os.devnull)
    said = "Pipes, devices or broken links not used: 2, such as 'train/good/9.png'."
    assert said in remarks(folder)
