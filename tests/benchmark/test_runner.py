"""Runs: what is written, what is not run twice, and what is refused before the first fit."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from skad.benchmark import Preset, evaluate, run, write_tables
from skad.benchmark import _runner as module
from skad.benchmark.__main__ import main
from skad.benchmark._augmentation import augmented
from skad.datasets import DATASETS

SMALL = {"backbone": "skad_nano", "image_size": 32, "coreset_size": 0.25, "contamination": 0.2}
PLAIN = {"patchcore-1": Preset("small", "patchcore", SMALL)}


def results(out):
    return {
        str(f.relative_to(out)): json.loads(f.read_text()) for f in sorted(out.glob("*/*.json"))
    }


def test_a_result_for_every_category(parts, tmp_path):
    run(parts, PLAIN, tmp_path)
    found = results(tmp_path)
    assert list(found) == ["patchcore-1/bottle-0.json", "patchcore-1/cable-0.json"]
    figures = found["patchcore-1/bottle-0.json"]["figures"]
    assert figures["image_auroc"] == figures["average_precision"] == figures["recall"] == 1.0
    assert 0.5 < figures["aupro"] <= 1
    assert figures["n_train"] == 8
    assert found["patchcore-1/cable-0.json"]["settings"]["params"]["image_size"] == "32"
    assert found["patchcore-1/cable-0.json"]["environment"]["torch"]


def test_finished_results_are_not_run_again(parts, tmp_path, monkeypatch, capsys):
    run(parts, PLAIN, tmp_path, categories=["cable"])
    before = (tmp_path / "patchcore-1/cable-0.json").stat().st_mtime_ns
    fits = []
    original = module.run_task
    monkeypatch.setattr(module, "run_task", lambda t, *a: fits.append(t.label) or original(t, *a))
    run(parts, PLAIN, tmp_path, verbose=1)
    assert fits == ["patchcore-1, bottle"]
    assert "1 of 2 fits are finished already" in capsys.readouterr().out
    assert (tmp_path / "patchcore-1/cable-0.json").stat().st_mtime_ns == before


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
    assert list(results(tmp_path)) == ["patchcore-defaults/bottle-0.json"]
    main(arguments)
    assert len(results(tmp_path)) == 2
    assert sorted(f.name for f in tmp_path.iterdir() if f.is_file()) == [
        "results.csv", "results.json", "results.md",
    ]  # fmt: skip


def test_results_of_other_settings_are_not_mixed(parts, tmp_path):
    run(parts, PLAIN, tmp_path, categories=["cable"])
    for changes, seed in (({"n_neighbors": 3}, 0), ({}, 1)):
        with pytest.raises(ValueError, match=r"cable-0\.json' holds a result of other settings"):
            run(parts, PLAIN, tmp_path, changes=changes, seed=seed)
    # What changes no figure is no other setting.
    run(parts, PLAIN, tmp_path, changes={"batch_size": 3}, categories=["cable"])


def test_workers_give_the_same(parts, tmp_path):
    run(parts, PLAIN, tmp_path / "one")
    run(parts, PLAIN, tmp_path / "two", n_jobs=2, backend="threading")
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert len(one) == len(two) == 2
    for name in one:
        assert one[name]["figures"]["image_auroc"] == two[name]["figures"]["image_auroc"]
        assert one[name]["figures"]["aupro"] == two[name]["figures"]["aupro"]


def test_low_shot_draws_differ(parts, tmp_path):
    preset = {"shots": Preset("two", "patchcore", SMALL, shots=2, draws=3)}
    run(parts, preset, tmp_path, categories=["bottle"])
    found = results(tmp_path)
    assert list(found) == [f"shots/bottle-{i}.json" for i in range(3)]
    assert {r["figures"]["n_train"] for r in found.values()} == {2}
    task = module.Task("shots", preset["shots"], "folder", "", ("bottle",), 0, 0, {}, None)
    images = [str(i) for i in range(50)]
    drawn = module._chosen(task, "bottle", images)
    assert len(drawn) == 2
    assert drawn == module._chosen(task, "bottle", images)
    assert drawn != module._chosen(task, "cable", images)


def test_one_model_for_all_categories(parts, tmp_path):
    preset = {"all": Preset("all", "patchcore", SMALL, one_model=True)}
    run(parts, preset, tmp_path)
    found = results(tmp_path)
    assert [r["figures"]["n_train"] for r in found.values()] == [16, 16]
    assert found["all/bottle-0.json"]["settings"]["categories"] == ["bottle", "cable"]


def test_augmented_images(parts, tmp_path, opened):
    preset = {"changed": Preset("changed", "patchcore", SMALL, augmented=True)}
    run(parts, preset, tmp_path, categories=["cable"])
    figures = results(tmp_path)["changed/cable-0.json"]["figures"]
    assert 0 <= figures["image_auroc"] <= 1
    assert "aupro" not in figures  # masks lie elsewhere now
    file = parts / "cable/test/good/0.png"
    changed = np.asarray(augmented(file, 0))
    assert changed.shape == np.asarray(opened(file)).shape
    np.testing.assert_array_equal(changed, augmented(file, 0))
    assert not np.array_equal(changed, augmented(file, 1))


def test_what_is_wrong_is_said_before_the_first_fit(parts, tmp_path):
    for arguments, message in (
        ({"dataset": "mvtec"}, "dataset='mvtec' is unknown; there are mvtec_ad"),
        ({"categories": ["cabel"]}, "no category cabel in .*; there are bottle, cable"),
        ({"changes": {"sise": 3}}, "no parameter 'sise'"),
        ({"changes": {"coreset_size": -1}}, "'coreset_size' parameter"),
        ({"seed": -1}, "'random_state' parameter"),
        ({"categories": []}, "categories is empty"),
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
        with pytest.raises(ValueError, match="'cable' has 7 training images; 8 are asked for"):
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
    assert r"patchcore-defaults, caf\xe9: image AUROC 1.0000" in printed
    assert r"| caf\xe9 | 100.0" in (out / "results.md").read_text(encoding="utf-8")
    assert json.loads((out / "results.json").read_text())[0]["category"] == name


def test_foreign_files_are_refused(parts, tmp_path):
    (tmp_path / "patchcore-1").mkdir()
    (tmp_path / "patchcore-1" / "bottle-0.json").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"bottle-0\.json' is no result"):
        run(parts, PLAIN, tmp_path)
    with pytest.raises(ValueError, match=r"bottle-0\.json' is no result"):
        write_tables(tmp_path)


class TestEvaluate:
    def test_thinned_maps_measure_about_the_same(self, parts):
        part = DATASETS["folder"].load(parts, "bottle")
        detector = module.build_detector(PLAIN["patchcore-1"], "bottle", 0, {}).fit(part.X_train)
        args = (detector, part.X_test, part.y_test, part.masks_test)
        full, thin = evaluate(*args, map_size=None), evaluate(*args, map_size=16)
        assert full["pixel_auroc"] == pytest.approx(thin["pixel_auroc"], abs=0.02)
        assert full["pixel_auroc"] != thin["pixel_auroc"]
        assert full["image_auroc"] == thin["image_auroc"]
        assert "aupro" not in evaluate(*args[:3])
        # A column of a table, with NaN for images without a mask.
        column = pd.Series([m or np.nan for m in part.masks_test], index=range(9, 15))
        assert evaluate(*args[:3], column, map_size=16)["aupro"] == thin["aupro"]

    def test_masks_of_another_size(self, parts, tmp_path):
        part = DATASETS["folder"].load(parts, "bottle")
        detector = module.build_detector(PLAIN["patchcore-1"], "bottle", 0, {}).fit(part.X_train)
        masks = [None if mask is None else np.ones((9, 9)) for mask in part.masks_test]
        with pytest.raises(ValueError, match=r"has shape \(9, 9\), its image \(40, 48\)"):
            evaluate(detector, part.X_test, part.y_test, masks)


class TestCommandLine:
    def test_help_and_list(self, capsys):
        main(["--list"])
        assert "patchcore-table-s1" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--preset", "patchcor-25"], "Did you mean patchcore-25"),
            ([], "say what to run"),
            (["--method", "patchcore", "--set", "image_size"], "write NAME=VALUE"),
            (["--method", "patchcore", "--set", "sise=3"], "no parameter 'sise'"),
        ],
    )
    def test_errors_are_one_line(self, parts, tmp_path, arguments, message):
        with pytest.raises(SystemExit, match=message):
            main([str(parts), "--out", str(tmp_path), *arguments])

    def test_needs_data_and_out(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["--method", "patchcore"])
        assert "DATA and --out are needed" in capsys.readouterr().err

    def test_as_a_module(self, parts, tmp_path):
        settings = [f"{name}={value}" for name, value in SMALL.items()]
        result = subprocess.run(
            [sys.executable, "-m", "skad.benchmark", parts, "--preset", "patchcore-1",
             "--dataset", "mvtec_ad", "--out", tmp_path, "--set", *settings],
            capture_output=True, text=True, check=False, timeout=100,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "[2/2] patchcore-1, cable: image AUROC 1.0000" in result.stdout
        assert "| bottle | 100.0 (100.0, +0.0) |" in result.stdout
