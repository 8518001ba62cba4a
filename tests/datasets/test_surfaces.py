"""Magnetic tiles, KolektorSDD and KolektorSDD2: masks beside images, parts that stay together."""

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import BLACK, SPOT, by_name, names, plant

from skad.datasets import (
    DATASETS,
    load_kolektor_sdd,
    load_kolektor_sdd2,
    load_magnetic_tile,
)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Ten good tiles under three exposures each, two names without a frame, two kinds of defects."""
    root = tmp_path_factory.mktemp("tiles") / "Magnetic"
    for tile in range(10):
        frames = (5000 * tile + 40 * exposure for exposure in (1, 2, 3))
        files = [f"exp{i}_num_{frame}" for i, frame in enumerate(frames, 1)]
        plant(
            root, *(f"MT_Free/Imgs/{file}.{suffix}" for file in files for suffix in ("jpg", "png"))
        )
    plant(root, "MT_Free/Imgs/a.jpg", "MT_Free/Imgs/b.JPG", "MT_Crack/Imgs/exp1_num_7.jpg")
    plant(root, "MT_Crack/Imgs/exp2_num_9.jpg", "MT_Blowhole/Imgs/exp1_num_1.jpg", "README/x.jpg")
    plant(root, "MT_Crack/Imgs/exp1_num_7.png", "MT_Blowhole/Imgs/exp1_num_1.png", pixels=SPOT)
    return root


def tile_of(path):
    frame = Path(path).stem.rpartition("_")[2]
    return int(frame) // 5000 if frame.isdigit() else frame


class TestMagneticTile:
    def test_images_and_masks(self, tiles):
        data = load_magnetic_tile(tiles)
        assert len(data.X) == 35
        assert sorted(by_name(data, "defects").values()) == [
            "blowhole",
            *["crack"] * 2,
            *["good"] * 32,
        ]
        assert by_name(data, "masks")["exp2_num_9.jpg"] is None
        assert by_name(data, "masks")["exp1_num_7.jpg"].endswith("exp1_num_7.png")
        assert not any(path.endswith(".png") for path in data.X)
        assert data.category == "magnetic_tile"

    def test_all_defective_images_are_tested_on(self, tiles):
        data = load_magnetic_tile(tiles, test_size=1)
        assert set(data.split[data.y == -1]) == {"test"}

    def test_exposures_of_a_tile_stay_together(self, tiles):
        for random_state in range(5):
            data = load_magnetic_tile(tiles, test_size=0.5, random_state=random_state)
            trained = {tile_of(path) for path in data.X_train}
            tested = {tile_of(x) for x, y in zip(data.X_test, data.y_test, strict=True) if y == 1}
            assert not trained & tested
            assert (len(trained), len(tested)) == (6, 6)

    def test_seeded(self, tiles):
        splits = [load_magnetic_tile(tiles, random_state=seed).X_train for seed in (0, 0, 1)]
        assert splits[0] == splits[1] != splits[2]

    def test_fraction_and_number(self, tiles):
        for test_size in (0.25, 3):
            data = load_magnetic_tile(tiles, test_size=test_size)
            tested = {tile_of(x) for x, y in zip(data.X_test, data.y_test, strict=True) if y == 1}
            assert len(tested) == 3
        for test_size in (1.5, 12, 0):
            with pytest.raises(ValueError, match="test_size"):
                load_magnetic_tile(tiles, test_size=test_size)

    def test_frames_far_apart_are_other_tiles(self, tmp_path):
        root = plant(tmp_path, *(f"MT_Free/Imgs/exp1_num_{i}.jpg" for i in (100, 400, 701)))
        for random_state in range(5):
            data = load_magnetic_tile(root, test_size=1, random_state=random_state)
            parts = sorted([names(data.X_train), names(data.X_test)], key=len)
            assert parts == [["exp1_num_701.jpg"], ["exp1_num_100.jpg", "exp1_num_400.jpg"]]

    def test_too_few(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no images in MT_Free/Imgs[\s\S]*MT_<defect>"):
            load_magnetic_tile(plant(tmp_path, "MT_Crack/Imgs/exp1_num_7.jpg"))
        with pytest.raises(ValueError, match="1 good tiles: at least two"):
            load_magnetic_tile(plant(tmp_path, "MT_Free/Imgs/exp1_num_7.jpg"))


@pytest.fixture(scope="module")
def kolektor(tmp_path_factory):
    return plant_kolektor(tmp_path_factory.mktemp("kolektor") / "KolektorSDD")


def plant_kolektor(root):
    """Six commutators of three surfaces; the middle one of each is cracked."""
    for i in range(1, 7):
        plant(root, *(f"kos{i:02d}/Part{k}.jpg" for k in range(3)))
        plant(root, *(f"kos{i:02d}/Part{k}_label.bmp" for k in (0, 2)))
        plant(root, f"kos{i:02d}/Part1_label.bmp", pixels=SPOT)
    return root


def commutators(paths):
    return {Path(path).parent.name for path in paths}


class TestKolektorSDD:
    def test_masks_decide(self, kolektor):
        data = load_kolektor_sdd(kolektor)
        assert len(data.X) == 18
        assert {Path(x).stem: kind for x, kind in zip(data.X, data.defects, strict=True)} == {
            "Part0": "good", "Part1": "defect", "Part2": "good"
        }  # fmt: skip
        for image, mask, y in zip(data.X, data.masks, data.y, strict=True):
            assert mask == (None if y == 1 else image.replace(".jpg", "_label.bmp"))

    def test_surfaces_of_a_commutator_stay_together(self, kolektor):
        for random_state in range(3):
            data = load_kolektor_sdd(kolektor, test_size=0.34, random_state=random_state)
            assert not commutators(data.X_train) & commutators(data.X_test)
            assert (len(data.X_train), len(data.X_test)) == (6, 9)
            assert commutators(np.array(data.X)[data.split == "train"]) == commutators(data.X_train)

    def test_defective_training_images_are_kept_apart(self, kolektor):
        data = load_kolektor_sdd(kolektor)
        spared = (data.split == "train") & (data.y == -1)
        assert spared.sum() == 3
        assert not set(np.array(data.X)[spared]) & {*data.X_train, *data.X_test}

    def test_seeded(self, kolektor):
        splits = [load_kolektor_sdd(kolektor, random_state=seed).X_train for seed in (0, 0, 1)]
        assert splits[0] == splits[1] != splits[2]

    def test_missing_masks(self, tmp_path):
        root = plant_kolektor(tmp_path / "KolektorSDD")
        for file in root.glob("kos0[1-4]/Part1_label.bmp"):
            file.unlink()
        with pytest.raises(
            FileNotFoundError,
            match=r"KolektorSDD': 4 of 18 files are missing: kos01/Part1_label, kos02/Part1_label, "
            r"kos03/Part1_label, \.\.\.",
        ):
            load_kolektor_sdd(root)

    def test_nothing_good(self, tmp_path):
        for folder in ("kos01", "kos02"):
            plant(tmp_path, f"{folder}/Part0.jpg")
            plant(tmp_path, f"{folder}/Part0_label.bmp", pixels=SPOT)
        with pytest.raises(FileNotFoundError, match="no good training images"):
            load_kolektor_sdd(tmp_path)

    def test_too_few(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no images in kos<NN>"):
            load_kolektor_sdd(plant(tmp_path / "flat", "Part0.jpg"))
        alone = plant(tmp_path / "alone", "kos01/Part0.jpg", "kos01/Part0_label.bmp")
        with pytest.raises(ValueError, match="1 commutators: at least two"):
            load_kolektor_sdd(alone)

    def test_second(self, tmp_path):
        root = tmp_path / "KolektorSDD2"
        for file, pixels in [
            ("train/10000", BLACK), ("train/10001", SPOT), ("test/20000", BLACK), ("test/20001", SPOT)
        ]:  # fmt: skip
            plant(root, f"{file}.png")
            plant(root, f"{file}_GT.png", pixels=pixels)
        data = load_kolektor_sdd2(root)
        assert names(data.X_train) == ["10000.png"]
        assert names(data.X_test) == ["20000.png", "20001.png"]
        assert names(data.masks) == [None, "10001_GT.png", None, "20001_GT.png"]
        assert data.category == "kolektor_sdd2"
        assert "kolektorsdd2" in data.DESCR
        assert DATASETS["kolektor_sdd2"].categories(root) == ["kolektor_sdd2"]
        with pytest.raises(FileNotFoundError, match="no images in kos<NN>"):
            load_kolektor_sdd(root)
        (root / "test/20001_GT.png").unlink()
        with pytest.raises(FileNotFoundError, match="1 of 4 files are missing: test/20001_GT"):
            load_kolektor_sdd2(root)
