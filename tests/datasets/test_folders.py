"""Data sets in the layout of MVTec AD, and the parts that all loaders return."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import SPOT, by_name, names, plant, plant_category, plant_text

from skad.datasets import (
    DATASETS,
    load_btad,
    load_folder,
    load_mpdd,
    load_mvtec_ad,
    load_mvtec_loco,
    read_mask,
)


@pytest.fixture
def folder(tmp_path):
    return plant_category(tmp_path / "bottle")


@pytest.fixture
def parts(tmp_path):
    """Two categories, and things that are none."""
    for name in ("bottle", "cable"):
        plant_category(tmp_path / "parts" / name)
    plant(tmp_path / "parts", "docs/page.png", ".trash/train/good/0.png", "overview.png")
    return tmp_path / "parts"


class TestBunch:
    def test_all_images(self, folder):
        data = load_folder(folder)
        assert names(data.X) == ["000.PNG", "001.png", "000.png", "000.jpg", "001.png"]
        assert all(isinstance(path, str) and Path(path).is_file() for path in data.X)
        assert data.y.tolist() == [1, 1, 1, -1, -1]
        assert data.y.dtype.kind == "i"
        assert data.split.tolist() == ["train"] * 2 + ["test"] * 3
        assert data.defects == ["good"] * 3 + ["scratch"] * 2
        assert names(data.masks) == [None] * 3 + ["000_mask.png", None]

    def test_parts(self, folder):
        data = load_folder(folder)
        assert names(data.X_train) == ["000.PNG", "001.png"]
        assert names(data.X_test) == ["000.png", "000.jpg", "001.png"]
        assert data.y_test.tolist() == [1, -1, -1]
        assert data.defects_test == ["good", "scratch", "scratch"]
        assert names(data.masks_test) == [None, "000_mask.png", None]
        assert data.category == "bottle"
        assert "MVTec layout" in data.DESCR

    def test_parts_can_be_added_and_changed(self, folder):
        data = load_folder(folder)
        data.X_train = data["X_train"] + data.X_test[:1]
        assert len(data.X_train) == 3

    def test_order_does_not_depend_on_the_disk(self, tmp_path):
        files = [f"train/good/{i}.png" for i in (3, 10, 1)] + ["test/b/0.png", "test/a/9.png"]
        one = load_folder(plant(tmp_path / "one", *files))
        other = load_folder(plant(tmp_path / "other", *reversed(files)))
        assert names(one.X) == names(other.X) == ["1.png", "10.png", "3.png", "9.png", "0.png"]
        assert one.defects_test == ["a", "b"]


class TestFiles:
    def test_others_are_left_out(self, folder):
        (folder / "test/scratch/notes.txt").write_text("not an image")
        (folder / "train/good/._000.png").write_bytes(b"resource fork")
        (folder / "train/good/thumbs.png").mkdir()
        plant(folder, "test/.cache/000.png")
        data = load_folder(folder)
        assert len(data.X) == 5
        assert set(data.defects) == {"good", "scratch"}

    def test_spaces_and_other_alphabets(self, tmp_path):
        root = plant(
            tmp_path / "Förderband 1",
            "train/good/gutes Teil.png", "test/Schlüssel fehlt/写真 1.JPEG",
            "ground_truth/Schlüssel fehlt/写真 1_mask.png",
        )  # fmt: skip
        data = load_folder(root)
        assert data.category == "Förderband 1"
        assert data.defects_test == ["Schlüssel fehlt"]
        assert names(data.masks_test) == ["写真 1_mask.png"]

    def test_links(self, folder, tmp_path):
        linked = tmp_path / "linked" / "line 3"
        linked.parent.mkdir()
        linked.symlink_to(folder, target_is_directory=True)
        image = folder / "train/good/002.png"
        image.symlink_to(folder / "test/good/000.png")
        data = load_folder(linked)
        assert data.category == "line 3"
        assert names(data.X_train) == ["000.PNG", "001.png", "002.png"]
        assert DATASETS["folder"].categories(linked.parent) == ["line 3"]

    def test_links_that_lead_nowhere_are_not_passed_over(self, folder):
        (folder / "train/good/002.png").symlink_to(folder / "gone.png")
        assert names(load_folder(folder).X_train)[-1] == "002.png"

    @pytest.mark.parametrize("as_path", [str, Path, lambda path: Path(os.path.relpath(path))])
    def test_forms_of_a_path(self, folder, as_path):
        assert load_folder(as_path(folder)).category == "bottle"

    def test_the_folder_one_is_in(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        assert load_folder(".").category == "bottle"

    @pytest.mark.parametrize(
        ("mask", "found"),
        [
            ("000_mask.png", "000_mask.png"),
            ("000.png", "000.png"),
            ("000_mask.BMP", "000_mask.BMP"),
            ("000/000.png", "000"),
        ],
    )
    def test_names_of_masks(self, tmp_path, mask, found):
        root = plant(tmp_path / "a", "train/good/0.png", "test/dent/000.jpg")
        plant(root, f"ground_truth/dent/{mask}")
        assert names(load_folder(root).masks_test) == [found]

    def test_good_images_have_no_mask(self, folder):
        plant(folder, "ground_truth/good/000_mask.png")
        assert load_folder(folder).masks_test[0] is None


class TestCategories:
    def test_one_of_several(self, parts):
        data = load_folder(parts, "cable")
        assert data.category == "cable"
        assert all("cable" in Path(path).parts for path in data.X)

    def test_the_only_one(self, parts, tmp_path):
        alone = tmp_path / "alone"
        plant_category(alone / "bottle")
        assert load_folder(alone).category == "bottle"
        assert load_folder(alone / "bottle", "bottle").category == "bottle"

    def test_not_said(self, parts):
        with pytest.raises(
            ValueError, match=r"2 categories \(bottle, cable\): pass one of them, as in"
        ):
            load_folder(parts)

    def test_misspelt(self, parts):
        with pytest.raises(
            ValueError,
            match=r"no category 'bottel'.*Did you mean 'bottle'\? The categories are bottle, cable",
        ):
            load_folder(parts, "bottel")
        with pytest.raises(
            ValueError, match=r"no category 'x' in '[^']*'\. The categories are bottle"
        ):
            load_folder(parts, "x")

    def test_a_path_is_no_category(self, parts):
        with pytest.raises(ValueError, match="no category"):
            load_folder(parts, "../parts/bottle")


class TestWhatIsMissing:
    @pytest.mark.parametrize("missing", ["train", "test"])
    def test_is_named(self, folder, missing):
        for path in sorted((folder / missing).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        with pytest.raises(
            FileNotFoundError, match=rf"no images in {missing}[\s\S]*ground_truth/<defect>"
        ):
            load_folder(folder)

    @pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train/good")])
    def test_half_a_category(self, tmp_path, there, missing):
        with pytest.raises(FileNotFoundError, match=f"no images in {missing}. Expected"):
            load_folder(plant(tmp_path, f"{there}/good/0.png"))

    def test_in_a_category(self, parts):
        for file in (parts / "cable/train/good").iterdir():
            file.unlink()
        with pytest.raises(FileNotFoundError, match="no images in cable/train/good"):
            load_mvtec_ad(parts, "cable")

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"absent': no such folder[\s\S]*train/good"):
            load_folder(tmp_path / "absent")

    def test_no_category(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder with train and test in it"):
            load_folder(tmp_path)

    def test_braces_in_a_path(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"{root}"):
            load_folder(tmp_path / "{root}")


class TestLoadersOfThisLayout:
    @pytest.mark.parametrize("load", [load_mvtec_ad, load_mpdd])
    def test_as_in_mvtec_ad(self, parts, load):
        data = load(parts, "bottle")
        assert (len(data.X_train), len(data.X_test), data.category) == (2, 3, "bottle")
        assert load(parts / "cable").category == "cable"

    def test_btad(self, tmp_path):
        root = tmp_path / "BTech_Dataset_transformed"
        plant(root, "03/train/ok/0000.bmp", "03/test/ok/0001.bmp", "03/test/ko/0002.bmp")
        plant(
            root,
            "03/test/ko/0003.bmp",
            "03/ground_truth/ko/0002.png",
            "03/ground_truth/ko/0003.bmp",
        )
        data = load_btad(root, "03")
        assert data.split.tolist() == ["train", "test", "test", "test"]
        assert by_name(data, "defects") == {
            "0000.bmp": "good", "0001.bmp": "good", "0002.bmp": "ko", "0003.bmp": "ko"
        }  # fmt: skip
        assert data.y_test.tolist() == [-1, -1, 1]
        assert names(data.masks_test) == ["0002.png", "0003.bmp", None]
        with pytest.raises(FileNotFoundError, match="no images in 01/train/ok"):
            load_btad(plant(root, "01/test/ok/0.png"), "01")

    @pytest.fixture
    def loco(self, tmp_path):
        root = plant(tmp_path / "loco", "pushpins/train/good/000.png", "pushpins/test/good/005.png")
        plant(root, "pushpins/validation/good/001.png", "pushpins/test/logical_anomalies/002.png")
        plant(root, "pushpins/test/structural_anomalies/003.png")
        truth = "pushpins/ground_truth/logical_anomalies/002"
        plant(root, f"{truth}/000.png", pixels=SPOT)
        plant(root, f"{truth}/001.png", pixels=SPOT[::-1, ::-1])
        return root

    def test_loco(self, loco):
        data = load_mvtec_loco(loco, "pushpins")
        assert by_name(data, "split") == {
            "000.png": "train", "001.png": "validation", "002.png": "test", "003.png": "test",
            "005.png": "test",
        }  # fmt: skip
        assert by_name(data, "defects")["002.png"] == "logical_anomalies"
        assert names(data.X_train) == ["000.png"]
        assert names(data.X_test) == ["005.png", "002.png", "003.png"]
        assert names(data.masks_test) == [None, "002", None]
        assert read_mask(data.masks_test[1]).sum() == np.sum((SPOT > 0) | (SPOT[::-1, ::-1] > 0))

    def test_loco_with_saturation(self, loco, recwarn):
        """A mask for each defect, numbered downwards from 255 by its kind; a table says how much of it
        must be found, which counts for the owner's own metric alone."""
        truth = "pushpins/ground_truth/structural_anomalies/003"
        for i, (rows, value) in enumerate(
            ((slice(0, 2), 255), (slice(2, 3), 254), (slice(3, 4), 1))
        ):
            part = np.zeros((4, 6), np.uint8)
            part[rows, 1:5] = value
            plant(loco, f"{truth}/{i:03d}.png", pixels=part)
        table = [
            {"defect_name": "front_bent", "pixel_value": 254, "saturation_threshold": 0.5,
             "relative_saturation": True},
        ]  # fmt: skip
        plant_text(loco, "pushpins/defects_config.json", json.dumps(table))
        data = load_mvtec_loco(loco, "pushpins")
        union = read_mask(by_name(data, "masks")["003.png"])
        expected = np.zeros((4, 6), bool)
        expected[:, 1:5] = True
        np.testing.assert_array_equal(union, expected)
        assert not [w for w in recwarn if "defects_config" in str(w.message)]

    def test_loco_with_validation_images(self, loco):
        data = load_mvtec_loco(loco, "pushpins", validation=True)
        assert names(data.X_train) == ["000.png", "001.png"]
        assert "validation" not in data.split

    def test_validation_images_do_not_replace_training_images(self, loco):
        (loco / "pushpins/train/good/000.png").unlink()
        with pytest.raises(FileNotFoundError, match="no images in pushpins/train/good"):
            load_mvtec_loco(loco)


@pytest.mark.real
class TestRealImages:
    @pytest.mark.parametrize(
        ("name", "n_train", "n_good", "n_defective", "n_masks"),
        [
            ("kolektor_sdd", 300, 150, 62, 62),
            ("magnetic_tile", 490, 150, 244, 244),
            ("mvtec_bottle", 189, 25, 63, 0),
            ("aws_aliens", 38, 20, 60, 0),
        ],
    )
    def test_counts(self, shared, name, n_train, n_good, n_defective, n_masks):
        data = load_folder(shared / "data", name)
        assert len(data.X_train) == n_train
        assert (np.sum(data.y_test == 1), np.sum(data.y_test == -1)) == (n_good, n_defective)
        assert sum(mask is not None for mask in data.masks_test) == n_masks
        assert data.category == name
        assert DATASETS["folder"].categories(shared / "data" / name) == [name]

    @pytest.mark.parametrize("name", ["kolektor_sdd", "magnetic_tile"])
    def test_masks_have_the_shapes_of_their_images(self, shared, name):
        from PIL import Image

        data = load_folder(shared / "data" / name)
        pairs = [(x, m) for x, m in zip(data.X_test, data.masks_test, strict=True) if m]
        assert len(pairs) > 50
        for image, mask in pairs:
            truth = read_mask(mask)
            with Image.open(image) as opened:
                assert truth.shape == opened.size[::-1]
            assert truth.any()
            assert not truth.all()

    def test_all_sets(self, shared):
        found = DATASETS["folder"].categories(shared / "data")
        assert {"kolektor_sdd", "magnetic_tile", "mvtec_bottle", "aws_aliens"} <= set(found)
