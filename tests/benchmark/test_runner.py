"""Runs: what is written, what is not run twice, and what is refused before the first fit."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from skad.benchmark import Preset, run
from skad.benchmark import _runner as module
from skad.benchmark.__main__ import main
from skad.metrics import image_auroc

SMALL = {"backbone": "skad_nano", "image_size": 64, "coreset_size": 0.25, "contamination": 0.2}
PLAIN = {"patchcore-1": Preset("small", "patchcore", SMALL)}


def results(out):
    return {
        str(f.relative_to(out)): json.loads(f.read_text()) for f in sorted(out.glob("*/*.json"))
    }


def test_a_result_for_every_category(parts, tmp_path):
    run(parts, PLAIN, tmp_path)
    found = results(tmp_path)
    assert list(found) == ["patchcore-1/folder-bottle-0.json", "patchcore-1/folder-cable-0.json"]
    bottle, cable = found.values()
    figures = bottle["figures"]
    assert figures["image_auroc"] == figures["average_precision"] == figures["recall"] == 1.0
    assert 0.9 < figures["aupro"] <= 1
    assert figures["n_train"] == 8
    assert cable["settings"]["params"]["image_size"] == "64"
    assert cable["environment"]["torch"]
    images = bottle["images"]
    assert images["names"][0] == "bottle/test/good/0.png"
    assert images["labels"] == [1] * 3 + [-1] * 3
    assert image_auroc(images["labels"], images["scores"]) == 1.0


def test_both_kinds_of_defects_of_loco(parts, tmp_path):
    """Structural and logical anomalies on their own, with masks in folders (ReContrast, Table A7)."""
    root = tmp_path / "loco" / "pushpins"
    kinds = {"structural_anomalies": "spot", "logical_anomalies": "spot"}
    shutil.copytree(parts / "bottle/train", root / "train")
    shutil.copytree(parts / "bottle/train/good", root / "validation/good")
    shutil.copytree(parts / "bottle/test/good", root / "test/good")
    for kind, source in kinds.items():
        shutil.copytree(parts / "bottle/test" / source, root / "test" / kind)
        for i in range(3):
            (root / "ground_truth" / kind / str(i)).mkdir(parents=True)
            mask = parts / f"bottle/ground_truth/spot/{i}_mask.png"
            shutil.copy(mask, root / "ground_truth" / kind / str(i) / "000.png")
    run(root.parent, PLAIN, tmp_path / "out", dataset="mvtec_loco")
    (found,) = results(tmp_path / "out").values()
    names = ("image_auroc", "image_auroc_structural", "image_auroc_logical", "image_auroc_mean")
    assert {found["figures"][name] for name in names} == {1.0}
    assert found["figures"]["aupro"] > 0.9


def test_finished_results_are_not_run_again(parts, tmp_path, monkeypatch, capsys):
    run(parts, PLAIN, tmp_path, categories=["cable"])
    before = (tmp_path / "patchcore-1/folder-cable-0.json").stat().st_mtime_ns
    fits = []
    original = module.run_task
    monkeypatch.setattr(
        module, "run_task", lambda t, *a: fits.append(t.categories) or original(t, *a)
    )
    run(parts, PLAIN, tmp_path, verbose=1)
    assert fits == [("bottle",)]
    assert "1 of 2 fits are done already" in capsys.readouterr().out
    assert (tmp_path / "patchcore-1/folder-cable-0.json").stat().st_mtime_ns == before


def test_a_killed_run_goes_on(parts, tmp_path):
    """Killed hard while it fits the second category, and started again."""
    arguments = [str(parts), "--method", "patchcore", "--out", str(tmp_path), "--set"]
    arguments += [f"{name}={value}" for name, value in SMALL.items()]
    code = f"""
import os, signal
from skad import PatchCoreDetector
from skad.benchmark.__main__ import main
fit, fits = PatchCoreDetector.fit, []
def dying(self, X, y=None):
    fits.append(1)
    if len(fits) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(self, X, y)
PatchCoreDetector.fit = dying
main({arguments!r})
"""
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=100)
    assert [r["category"] for r in results(tmp_path).values()] == ["bottle"]
    main(arguments)
    assert len(results(tmp_path)) == 2
    assert sorted(f.name for f in tmp_path.iterdir() if f.is_file()) == [
        "results.csv", "results.json", "results.md",
    ]  # fmt: skip


def test_results_of_other_settings_are_not_mixed(parts, tmp_path):
    run(parts, PLAIN, tmp_path, categories=["cable"])
    changed = {"patchcore-1": Preset("small", "patchcore", {**SMALL, "n_neighbors": 3})}
    for presets, map_size in ((changed, 256), (PLAIN, None)):
        with pytest.raises(ValueError, match=r"cable-0\.json' holds a result of other settings"):
            run(parts, presets, tmp_path, map_size=map_size)
    # What changes no figure makes no other row.
    run(parts, PLAIN, tmp_path, grid={"batch_size": [3]}, categories=["cable"])
    assert len(results(tmp_path)) == 1


def test_rows_for_every_combination_and_seed(parts, tmp_path, capsys):
    """They are added to what is in the folder, whatever the order in which parameters are named."""
    options = {"categories": ["cable"], "n_images": 5}
    grid = {"n_neighbors": [1, 3], "coreset_size": [0.25, 0.5]}
    run(parts, PLAIN, tmp_path, grid=grid, seeds=[0, 4], verbose=1, **options)
    found = list(results(tmp_path).values())
    assert len(found) == 8
    assert {r["figures"]["n_train"] for r in found} == {5}
    assert {(r["settings"]["params"]["random_state"], r["seed"]) for r in found} == {
        ("0", 0),
        ("4", 4),
    }
    assert found[0]["changes"]["training images"] == "5"
    printed = capsys.readouterr().out
    assert "[2/8] patchcore-1, n_neighbors=1, coreset_size=0.25, cable, seed 4: image" in printed
    run(parts, PLAIN, tmp_path, grid=dict(reversed(grid.items())), seeds=[4], verbose=1, **options)
    assert "4 of 4 fits are done already" in capsys.readouterr().out
    assert len({str(r["changes"]) for r in found}) == len(list(tmp_path.iterdir())) == 4


def test_rotated_copies_are_learned_as_well(parts, tmp_path):
    options = {"categories": ["cable"], "n_images": 3}
    turned = {"turned": Preset("turned", "patchcore", SMALL, rotations=4)}
    run(parts, PLAIN, tmp_path, **options)
    run(parts, PLAIN, tmp_path, rotations=4, **options)
    run(parts, turned, tmp_path, **options)
    found = sorted(results(tmp_path).values(), key=lambda r: (r["preset"], len(r["changes"])))
    assert [r["figures"]["n_train"] for r in found] == [3, 12, 12]
    assert [r["figures"]["n_test"] for r in found] == [6, 6, 6]
    assert [r["settings"].get("rotations") for r in found] == [None, 4, 4]
    assert [r["changes"].get("rotations") for r in found] == [None, "4", None]
    assert found[1]["images"]["scores"] == found[2]["images"]["scores"]
    assert found[0]["images"]["scores"] != found[1]["images"]["scores"]


def test_several_data_sets(parts, tmp_path):
    datasets = ["folder", "mvtec_ad"]
    run([parts / "bottle", parts], PLAIN, tmp_path, dataset=datasets, categories=["bottle"])
    assert [r["dataset"] for r in results(tmp_path).values()] == datasets
    run([parts / "bottle", parts], PLAIN, tmp_path, categories=["cable"])
    with pytest.raises(ValueError, match=r"category 'bottle' is in '.*bottle' and in"):
        run([parts / "bottle", parts], PLAIN, tmp_path)
    with pytest.raises(
        ValueError, match="1 folders and 2 names of data sets: give one name for all"
    ):
        run(parts, PLAIN, tmp_path, dataset=datasets)


def test_workers_give_the_same(parts, tmp_path):
    run(parts, PLAIN, tmp_path / "one")
    run(parts, PLAIN, tmp_path / "two", n_jobs=2, backend="threading")
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert len(one) == len(two) == 2
    for name in one:
        assert one[name]["figures"]["image_auroc"] == two[name]["figures"]["image_auroc"]
        assert one[name]["figures"]["aupro"] == two[name]["figures"]["aupro"]


def test_low_shot_draws_differ(parts, tmp_path):
    preset = {"shots": Preset("two", "patchcore", SMALL, shots=2, n_seeds=3)}
    run(parts, preset, tmp_path, categories=["bottle"])
    found = results(tmp_path)
    assert list(found) == [f"shots/folder-bottle-{i}.json" for i in range(3)]
    assert {r["figures"]["n_train"] for r in found.values()} == {2}


def test_one_model_for_all_categories(parts, tmp_path):
    preset = {"all": Preset("all", "patchcore", SMALL, one_model=True)}
    run(parts, preset, tmp_path)
    found = results(tmp_path)
    assert [r["figures"]["n_train"] for r in found.values()] == [16, 16]
    assert found["all/folder-bottle-0.json"]["settings"]["categories"] == ["bottle", "cable"]


def test_augmented_images(parts, tmp_path):
    preset = {"changed": Preset("changed", "patchcore", SMALL, augmented=True)}
    run(parts, preset, tmp_path, categories=["cable"])
    figures = results(tmp_path)["changed/folder-cable-0.json"]["figures"]
    assert 0 <= figures["image_auroc"] <= 1
    assert "aupro" not in figures  # masks lie elsewhere now


def test_what_is_wrong_is_said_before_the_first_fit(parts, tmp_path):
    for arguments, message in (
        ({"dataset": "mvtec"}, "dataset='mvtec' is unknown; there are mvtec_ad"),
        ({"categories": ["cabel"]}, "no category cabel in .*; there are bottle, cable"),
        ({"grid": {"sise": [3]}}, "no parameter 'sise'"),
        ({"grid": {"coreset_size": [0.5, -1]}}, "'coreset_size' parameter"),
        ({"seeds": [0, -1]}, "'random_state' parameter"),
        ({"categories": []}, "categories is empty"),
        ({"seeds": []}, "seeds is empty"),
        ({"n_images": 0}, "n_images=0 must be"),
        ({"rotations": 0}, "rotations=0 must be"),
        ({"map_size": -1}, "map_size=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            run(parts, PLAIN, tmp_path / "out", **arguments)
    with pytest.raises(FileNotFoundError, match="absent"):
        run(parts / "absent", PLAIN, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def no_fit(monkeypatch):
    monkeypatch.setattr(module, "run_task", lambda *args: pytest.fail("a fit has begun"))


class TestLastCategory:
    """What is wrong with the last of them is said before the first is fitted."""

    @pytest.fixture
    def parts(self, parts, tmp_path):
        return shutil.copytree(parts, tmp_path / "parts")

    @pytest.mark.parametrize(
        ("absent", "error", "message"),
        [
            ("train/good", FileNotFoundError, "no images in cable/train/good"),
            ("test", FileNotFoundError, "no images in cable/test"),
            ("test/good", ValueError, "'cable' has no good test images"),
            ("test/spot", ValueError, "'cable' has no defective test images"),
        ],
    )
    def test_lacks_images(self, parts, tmp_path, no_fit, absent, error, message):
        shutil.rmtree(parts / "cable" / absent)
        if absent == "test/spot":
            shutil.rmtree(parts / "cable/ground_truth")
        with pytest.raises(error, match=message):
            run(parts, PLAIN, tmp_path / "out", categories=["bottle", "cable"])
        assert not (tmp_path / "out").exists()

    def test_has_fewer_images_than_shots(self, parts, tmp_path, no_fit):
        (parts / "cable/train/good/0.png").unlink()
        presets = {**PLAIN, "shots": Preset("eight", "patchcore", SMALL, shots=8)}
        with pytest.raises(
            ValueError, match="'cable' has 7 training images and the preset needs 8"
        ):
            run(parts, presets, tmp_path / "out")

    def test_has_settings_of_its_own_that_do_not_do(self, parts, tmp_path, no_fit):
        preset = Preset("own", "patchcore", SMALL, by_category={"cable": {"n_neighbors": 0}})
        with pytest.raises(ValueError, match="'n_neighbors' parameter"):
            run(parts, {"own": preset}, tmp_path / "out")

    def test_member_of_an_ensemble(self, parts, tmp_path, no_fit):
        members = [("a", "patchcore", SMALL), ("b", "patchcore", {**SMALL, "b": 1})]
        preset = Preset("fused", "fusion", {"estimators": members})
        with pytest.raises(ValueError, match="'b' parameter"):
            run(parts, {"fused": preset}, tmp_path / "out")


def test_folders_that_do_not_do(parts, tmp_path, no_fit):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        run(parts, PLAIN, tmp_path / "file")
    with pytest.raises(SystemExit, match=r"error: out=.* is a file: name a folder"):
        main([str(parts), "--method", "patchcore", "--out", str(tmp_path / "file")])


def test_categories_that_are_no_utf8(parts, tmp_path, capsys):
    """Tables and lines of progress name them readably, in the end too."""
    name = os.fsdecode(b"caf\xe9")
    try:
        shutil.copytree(parts / "cable", tmp_path / "parts" / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    out = tmp_path / os.fsdecode(b"r\xe9sum\xe9")
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    arguments = ["--method", "patchcore", "--out", str(out), "--set", *settings]
    main([str(tmp_path / "parts"), *arguments])
    printed = capsys.readouterr().out
    assert printed.encode("utf-8")
    assert r"patchcore-defaults, caf\xe9, seed 0: image AUROC 1.0000" in printed
    assert r"| caf\xe9 | 100.0" in (out / "results.md").read_text(encoding="utf-8")
    assert json.loads((out / "results.json").read_text())[0]["category"] == name
