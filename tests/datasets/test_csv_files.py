"""VisA, and the medical data sets of the ReContrast paper."""

import random
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import SPOT, by_name, names, plant, plant_text

from skad.datasets import (
    DATASETS,
    load_aptos,
    load_isic2018,
    load_oct2017,
    load_visa,
    read_mask,
)

HEADER = "object,split,label,image,mask"


@pytest.fixture
def visa(tmp_path):
    """The archive of VisA, with one category that is not unpacked."""
    root = tmp_path / "VisA"
    images = "candle/Data/Images"
    plant(
        root, f"{images}/Normal/0007.JPG", f"{images}/Normal/0002.JPG", f"{images}/Normal/0001.JPG"
    )
    plant(root, f"{images}/Anomaly/000.JPG", "pcb1/Data/Images/Normal/0.JPG")
    plant(root, "candle/Data/Masks/Anomaly/000.png", pixels=SPOT // 255)
    plant_text(
        root, "split_csv/1cls.csv", HEADER,
        f"candle,train,normal,{images}/Normal/0007.JPG,",
        f"candle,test,anomaly,{images}/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
        f"candle,train,normal,{images}/Normal/0002.JPG,",
        f"candle,test,normal,{images}/Normal/0001.JPG,",
        "pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,",
        *(f"cashew,train,normal,cashew/Data/Images/Normal/{i}.JPG," for i in range(5)),
    )  # fmt: skip
    return root


class TestVisA:
    def test_as_the_table_says(self, visa):
        data = load_visa(visa, "candle")
        assert names(data.X) == ["0007.JPG", "0002.JPG", "000.JPG", "0001.JPG"]
        assert names(data.X_train) == ["0007.JPG", "0002.JPG"]
        assert names(data.X_test) == ["000.JPG", "0001.JPG"]
        assert data.y_test.tolist() == [-1, 1]
        assert data.defects_test == ["anomaly", "good"]
        assert data.category == "candle"
        assert "CC BY 4.0" in data.DESCR
        mask, good = data.masks_test
        assert good is None
        np.testing.assert_array_equal(read_mask(mask), SPOT > 0)

    def test_categories_that_are_there(self, visa):
        assert DATASETS["visa"].categories(visa) == ["candle", "pcb1"]
        with pytest.raises(
            ValueError, match=r"no category 'cashew'.* The categories are candle, pcb1"
        ):
            load_visa(visa, "cashew")
        with pytest.raises(ValueError, match=r"2 categories \(candle, pcb1\): pass one"):
            load_visa(visa)

    def test_no_category_unpacked(self, visa):
        table = (visa / "split_csv/1cls.csv").read_text()
        plant_text(visa.parent / "empty", "split_csv/1cls.csv", table)
        with pytest.raises(FileNotFoundError, match="none of its categories"):
            load_visa(visa.parent / "empty")

    def test_absent_files(self, visa):
        for file in visa.glob("candle/Data/*/*/*"):
            if file.name != "0007.JPG":
                file.unlink()
        with pytest.raises(
            FileNotFoundError,
            match=r"1cls\.csv': 4 of 5 files are missing: candle\S+000\.JPG, \S+0002\.JPG, "
            r"\S+0001\.JPG, \.\.\.\.",
        ):
            load_visa(visa, "candle")

    def test_absent_mask(self, visa):
        (visa / "candle/Data/Masks/Anomaly/000.png").unlink()
        with pytest.raises(FileNotFoundError, match=r"1 of 5 files are missing: \S+/000\.png\. "):
            load_visa(visa, "candle")

    def test_no_images_to_test_on(self, visa):
        with pytest.raises(FileNotFoundError, match=r"no test images \(pcb1\)"):
            load_visa(visa, "pcb1")

    def test_other_columns(self, visa):
        plant_text(visa, "split_csv/1cls.csv", "object,split,image", "candle,train,a.JPG")
        with pytest.raises(ValueError, match=r"no column label, mask; it has object, split, image"):
            load_visa(visa, "candle")

    def test_a_row_that_breaks_off(self, visa):
        plant_text(visa, "split_csv/1cls.csv", HEADER, "candle,train,normal")
        with pytest.raises(ValueError, match=r"1cls\.csv', line 2: a cell is missing"):
            load_visa(visa, "candle")

    def test_byte_order_mark_and_blanks(self, visa):
        table = (visa / "split_csv/1cls.csv").read_text()
        plant_text(visa, "split_csv/1cls.csv", "\ufeff" + table.replace(",", " , "))
        assert len(load_visa(visa, "candle").X) == 4

    @pytest.mark.parametrize("inside", ["1cls/", ""])
    def test_prepared(self, tmp_path, inside):
        root = tmp_path / "VisA_pytorch"
        plant(root, f"{inside}candle/train/good/0.JPG", f"{inside}candle/test/good/1.JPG")
        plant(root, f"{inside}candle/test/bad/000.JPG", f"{inside}candle/ground_truth/bad/000.png")
        data = load_visa(root, "candle")
        assert data.defects == ["good", "bad", "good"]
        assert names(data.masks_test) == ["000.png", None]
        assert DATASETS["visa"].categories(root) == ["candle"]


# random.Random(1) puts 0 to 9 in the order 6, 8, 9, 7, 5, 3, 0, 4, 1, 2.
FIRST_OF_TEN = (6, 7, 8, 9)


@pytest.fixture
def prepared(tmp_path):
    root = tmp_path / "prepared"
    return plant(root, "train/NORMAL/a.png", "test/NORMAL/b.png", "test/ABNORMAL/c.png")


def aptos_tree(root, grades):
    lines = [f"image{i:02d},{grade}" for i, grade in enumerate(grades)]
    plant_text(root, "train.csv", "id_code,diagnosis", *lines)
    plant_text(root, "test.csv", "id_code", "unlabelled")
    return plant(root, *(f"train_images/image{i:02d}.png" for i in range(len(grades))))


class TestAPTOS:
    def test_the_shuffle_of_the_paper(self, tmp_path):
        """What its prepare_aptos.py does to the good images of the table, whatever lies between."""
        root = aptos_tree(tmp_path, "0203104000100020000")
        paths = [f"image{i:02d}.png" for i, g in enumerate("0203104000100020000") if g == "0"]
        random.seed(1)
        random.shuffle(paths)
        data = load_aptos(root, n_train=5)
        assert set(names(data.X_train)) == set(paths[:5])
        assert {x for x, y in zip(names(data.X_test), data.y_test, strict=True) if y == 1} == set(
            paths[5:]
        )

    def test_the_shuffle_is_that_of_all_pythons(self, tmp_path):
        data = load_aptos(aptos_tree(tmp_path, "0" * 10), n_train=4)
        assert names(data.X_train) == [f"image{i:02d}.png" for i in FIRST_OF_TEN]

    def test_grades(self, tmp_path):
        data = load_aptos(aptos_tree(tmp_path, "0012340"), n_train=2)
        assert sorted(data.defects) == ["good"] * 3 + [
            "mild",
            "moderate",
            "proliferative",
            "severe",
        ]
        assert by_name(data, "defects")["image05.png"] == "proliferative"
        assert set(data.split[data.y == -1]) == {"test"}
        assert data.masks == [None] * 7
        assert data.category == "aptos"

    def test_other_draws(self, tmp_path):
        root = aptos_tree(tmp_path, "0" * 20)
        draws = [load_aptos(root, n_train=10, random_state=seed).X_train for seed in (1, 1, 2)]
        assert draws[0] == draws[1] != draws[2]
        assert draws[0] == load_aptos(root, n_train=10).X_train

    @pytest.mark.parametrize("n_train", [0, 3, 1000])
    def test_too_many_or_none(self, tmp_path, n_train):
        root = aptos_tree(tmp_path, "0001")
        with pytest.raises(
            ValueError, match=rf"n_train={n_train} must be between 1 and 2: .* 3 good"
        ):
            load_aptos(root, n_train=n_train)

    def test_suffixes(self, tmp_path):
        root = aptos_tree(tmp_path, "000")
        (root / "train_images/image01.png").rename(root / "train_images/image01.JPEG")
        assert "image01.JPEG" in names(load_aptos(root, n_train=1).X)

    def test_absent_images(self, tmp_path):
        root = aptos_tree(tmp_path, "000112")
        for i in (0, 2, 3, 5):
            (root / f"train_images/image{i:02d}.png").unlink()
        with pytest.raises(
            FileNotFoundError,
            match=r"train\.csv' lists images of train_images: 4 of 6 files are missing: image00, "
            r"image02, image03, \.\.\.",
        ):
            load_aptos(root, n_train=1)

    def test_no_table(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no train\.csv[\s\S]*train_images/<id_code>"):
            load_aptos(plant(tmp_path, "train_images/a.png"))

    def test_other_grades(self, tmp_path):
        with pytest.raises(ValueError, match=r"diagnosis '7' of image01 is none of 0 to 4"):
            load_aptos(aptos_tree(tmp_path, "070"), n_train=1)

    def test_other_columns(self, tmp_path):
        plant_text(tmp_path, "train.csv", "image,level", "a,0")
        with pytest.raises(ValueError, match="no column id_code, diagnosis; it has image, level"):
            load_aptos(tmp_path)

    def test_prepared(self, prepared):
        data = load_aptos(prepared)
        assert names(data.X_train) == ["a.png"]
        assert data.defects == ["good", "ABNORMAL", "good"]
        assert data.y_test.tolist() == [-1, 1]


class TestOCT2017:
    @pytest.fixture
    def root(self, tmp_path):
        plant(tmp_path, "train/NORMAL/N-1.jpeg", "train/CNV/C-1.jpeg", "val/NORMAL/N-9.jpeg")
        plant(tmp_path, "test/NORMAL/N-2.jpeg", "test/CNV/C-2.jpeg", "test/DME/D-2.jpeg")
        return plant(tmp_path, "test/DRUSEN/U-2.jpeg")

    def test_classes(self, root):
        data = load_oct2017(root)
        assert by_name(data, "defects") == {
            "N-1.jpeg": "good", "C-1.jpeg": "CNV", "N-2.jpeg": "good", "C-2.jpeg": "CNV",
            "D-2.jpeg": "DME", "U-2.jpeg": "DRUSEN",
        }  # fmt: skip
        assert names(data.X_train) == ["N-1.jpeg"]
        assert names(data.X_test) == ["C-2.jpeg", "D-2.jpeg", "U-2.jpeg", "N-2.jpeg"]
        assert by_name(data, "split")["C-1.jpeg"] == "train"
        assert data.masks_test == [None] * 4

    def test_nothing_to_learn_from(self, root):
        (root / "train/NORMAL/N-1.jpeg").unlink()
        with pytest.raises(FileNotFoundError, match=r"no good training images[\s\S]*DRUSEN"):
            load_oct2017(root)


def isic_part(root, part, rows):
    truth = f"ISIC2018_Task3_{part}_GroundTruth"
    plant_text(root, f"{truth}/{truth}.csv", "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", *rows)
    plant(root, *(f"ISIC2018_Task3_{part}_Input/{row.split(',')[0]}.jpg" for row in rows))
    return root / truth / f"{truth}.csv"


class TestISIC2018:
    @pytest.fixture
    def root(self, tmp_path):
        isic_part(
            tmp_path,
            "Training",
            ["ISIC_3,0.0,1.0,0.0,0.0,0.0,0.0,0.0", "ISIC_1,1.0,0.0,0.0,0.0,0.0,0.0,0.0"],
        )
        isic_part(
            tmp_path,
            "Validation",
            ["ISIC_9,0.0,0.0,0.0,0.0,0.0,0.0,1.0", "ISIC_7,0,1,0,0,0,0,0"],
        )
        return tmp_path

    def test_nevi_are_good(self, root):
        data = load_isic2018(root)
        assert by_name(data, "defects") == {
            "ISIC_3.jpg": "good", "ISIC_1.jpg": "MEL", "ISIC_9.jpg": "VASC", "ISIC_7.jpg": "good"
        }  # fmt: skip
        assert data.split.tolist() == ["train", "train", "test", "test"]
        assert names(data.X_train) == ["ISIC_3.jpg"]
        assert data.y_test.tolist() == [-1, 1]
        assert data.category == "isic2018"

    @pytest.mark.parametrize("part", ["Training", "Validation"])
    def test_no_table(self, root, part):
        truth = f"ISIC2018_Task3_{part}_GroundTruth"
        (root / truth / f"{truth}.csv").unlink()
        with pytest.raises(FileNotFoundError, match=rf"no {truth}/{truth}\.csv"):
            load_isic2018(root)

    def test_absent_images(self, root):
        (root / "ISIC2018_Task3_Validation_Input/ISIC_9.jpg").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"Validation_Input: 1 of 2 files are missing: ISIC_9\. "
        ):
            load_isic2018(root)

    @pytest.mark.parametrize(
        ("cells", "said"),
        [("0,0,0,0,0,0,0", "has no class"), ("1,1,0,0,0,0,0", "has MEL and NV")],
    )
    def test_classes_that_are_not_one(self, root, cells, said):
        isic_part(root, "Training", [f"ISIC_5,{cells}"])
        with pytest.raises(ValueError, match=rf"Training_GroundTruth\.csv': ISIC_5 {said}"):
            load_isic2018(root)

    def test_prepared(self, prepared):
        assert load_isic2018(prepared).defects_test == ["ABNORMAL", "good"]
        assert Path(load_isic2018(str(prepared)).X[0]).is_file()
