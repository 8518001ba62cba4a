"""The scripts of examples/ and benchmarks/ run as they are."""

import importlib.util
import re
import shutil

import numpy as np
import pytest
import torch
from exported_files import LIBRARIES
from PIL import Image
from scripts import ROOT, run, run_apart

pytestmark = pytest.mark.scripts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small folder in MVTec layout, with pixel masks."""
    root = tmp_path_factory.mktemp("parts") / "plate"
    rng = np.random.default_rng(0)
    for place, n, defect in (
        ("train/good", 9, False),
        ("test/good", 3, False),
        ("test/spot", 3, True),
    ):
        (root / place).mkdir(parents=True)
        for i in range(n):
            image = rng.integers(90, 120, (48, 48)).astype(np.uint8)
            if defect:
                image[10:22, 20:32] = 240
                mask = np.zeros((48, 48), np.uint8)
                mask[10:22, 20:32] = 255
                truth = root / "ground_truth" / "spot"
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / f"{i:03d}_mask.png")
            Image.fromarray(image).save(root / place / f"{i:03d}.png")
    return root


def test_demo_finds_the_damage_and_draws_it(tmp_path, opened):
    result = run("examples/demo.py", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()[1:4]]
    assert [row[0] for row in rows] == ["brick", "gravel", "grass"]
    assert min(float(row[1]) for row in rows) > 0.9
    assert opened(tmp_path / "demo.png").size[0] > 500
    if all(importlib.util.find_spec(name) for name in LIBRARIES):
        assert "40 of 40 tiles the same verdict" in result.stdout
    else:
        assert 'pip install "skad[onnx]"' in result.stdout


def test_inspect_folder(folder, tmp_path):
    """The backbone that comes with skad needs no weights; masks are optional."""
    unmasked = shutil.copytree(folder, tmp_path / "unmasked")
    shutil.rmtree(unmasked / "ground_truth")
    result = run(
        "examples/inspect_folder.py", folder, unmasked, "--image-size", 64, "--coreset-size", 0.2,
        "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = [re.split("  +", line.strip()) for line in result.stdout.splitlines()]
    (masked,) = [row for row in rows if row[0] == "plate"]
    (without,) = [row for row in rows if row[0] == "unmasked"]
    assert masked[1] == without[1] == "1.000"
    assert float(masked[2]) > 0.9
    assert without[2] == "-"
    assert {path.name for path in tmp_path.glob("*.png")} == {"plate.png", "unmasked.png"}


def test_inspect_folder_says_what_is_wrong(tmp_path):
    result = run("examples/inspect_folder.py", tmp_path / "absent")
    assert result.returncode != 0
    assert "absent': no such folder. Expected layout" in result.stderr
    assert "train/good" in result.stderr


def test_benchmarks_run(tmp_path):
    result = run("benchmarks/bench_coreset.py", "--n", 2000, "--d", 16, "--repeats", 1)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("times faster") == 2
    result = run(
        "benchmarks/bench_patchcore.py", "--backbone", "skad_nano", "--images", 9, "--repeats", 1,
        "--batches", 2, "--limits", "100MB",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for line in ("extraction, batch 2", "5000 vectors, batch 2", "memory of a fit", "times faster"):
        assert line in result.stdout


def test_training_is_timed():
    result = run(
        "benchmarks/bench_training.py", "--image-size", 32, "--batch-size", 2, "--steps", 1
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("| plain") == 3
    assert result.stdout.count("| floor |") == 4


def test_bounds_are_counted(folder):
    result = run("benchmarks/bench_bounds.py", folder, "--coreset-size", 0.5, "--images", 4)
    assert result.returncode == 0, result.stderr
    cells = result.stdout.splitlines()[-1].strip("| ").split(" | ")
    median, most = (float(cell) for cell in cells[2].split(", "))
    assert 0 < median <= most < int(cells[3]) == 40 * 40


def test_devices_are_compared(folder):
    """Without a GPU, the CPU with itself."""
    result = run(
        "benchmarks/compare_devices.py", folder, "--backbone", "skad_nano", "--device", "cpu",
        "--images", 4,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("scores 0.0e+00  maps 0.0e+00") == 3


def test_scale_is_measured():
    result = run("benchmarks/bench_scale.py", "fit", "--images", 20, "--ways", "whole")
    assert result.returncode == 0, result.stderr
    assert "| whole | 20 |" in result.stdout


def test_a_network_of_ones_own_in_a_table(folder, tmp_path):
    result = run(
        "benchmarks/gabor_filters.py", folder, "--image-size", 64, "--out", tmp_path, "--seeds", 0
    )
    assert result.returncode == 0, result.stderr
    assert "| plate | 100.0 [" in result.stdout
    assert "## PatchCore, Gabor filters (gabor-filters) on folder" in result.stdout


@pytest.mark.parametrize("analysis", ["time", "histogram"])
def test_reconpatch_beside_patchcore(folder, tmp_path, analysis):
    result = run(
        "benchmarks/reconpatch_figures.py", analysis, folder, "--backbone", "skad_nano",
        "--images", 3, "--epochs", 0, "--repeats", 1, "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    if analysis == "time":
        assert result.stdout.splitlines()[0] == "| features | PatchCore | ReConPatch | ratio |"
        assert len(result.stdout.splitlines()) == 4
    else:
        assert (tmp_path / "reconpatch-histogram-plate.png").stat().st_size > 5000


def test_recontrast_goes_on_to_further_steps(folder, tmp_path):
    command = (
        "benchmarks/recontrast_recipe.py", folder.parent, "--sets", folder.name,
        "--backbone", "skad_nano", "--recipe", "image_size=32,batch_size=4,bn=train",
        "--store", tmp_path, "--out", tmp_path / "rows",
    )  # fmt: skip
    first = run(*command, "--steps", 1)
    assert first.returncode == 0, first.stderr
    second = run(*command, "--steps", 1, 3)
    assert second.returncode == 0, second.stderr
    rows = [line.split(" | ")[3] for line in second.stdout.splitlines() if "| image_size" in line]
    assert rows == ["1", "3"]
    assert second.stdout.count("'steps'") == 1  # what is there is not repeated


def test_gabor_filters_answer_to_their_own_wave(monkeypatch):
    """Blind to brightness; the strongest filter is the one of the image's wavelength and direction."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bank = importlib.import_module("gabor_filters").GaborBank()
    wave = torch.sin(2 * torch.pi / 8 * torch.arange(64.0)).expand(3, 64, 64)
    (plain,), (striped,) = bank(torch.ones(1, 3, 64, 64)), bank(wave[None])
    assert plain.shape == (1, 96, 8, 8)
    assert plain.abs().max() < 1e-4
    # Channels: three colours x four wavelengths x eight directions; 8 pixels, first direction.
    assert striped[0, :32].mean((1, 2)).argmax() == 8


def test_one_detector_for_many_categories(folder):
    result = run(
        "examples/many_categories.py", folder, folder, "--image-size", 64, "--iterations", 6
    )
    assert result.returncode == 0, result.stderr
    assert "one detector for 2 categories, 18 images, 6 steps" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("plate")]
    assert len(rows) == 2
    assert all(float(row[1]) > 0.9 for row in rows)


def test_bench_displays():
    result = run("benchmarks/bench_displays.py", "--height", 60, "--width", 90, "--repeats", 1)
    assert result.returncode == 0, result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()[4:]]
    assert len(rows) == 5
    assert all(float(seconds) > 0 for _, seconds in rows)


def test_grid_search_draws_the_surface(folder, tmp_path):
    result = run(
        "examples/grid_search_reconpatch.py", folder, "--image-size", 32, "--epochs", 1,
        "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "27 candidates x 3 folds, 15 images" in result.stdout
    assert (tmp_path / "grid-search.png").stat().st_size > 5000


def test_search_on_a_cluster(folder):
    pytest.importorskip("distributed")
    result = run_apart("examples/grid_search_dask.py", folder, "--image-size", 32, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "8 candidates x 3 folds on 1 workers" in result.stdout
    assert "best: {" in result.stdout


def test_a_foreign_cluster_needs_a_common_folder():
    pytest.importorskip("distributed")
    result = run("examples/grid_search_dask.py", "--scheduler", "tcp://absent:8786")
    assert result.returncode == 2
    assert "--scheduler needs --memory" in result.stderr


def test_patches_are_compared_with_those_of_their_place(folder):
    result = run("benchmarks/position_study.py", folder, "--images", 4, "--image-size", 64)
    assert result.returncode == 0, result.stderr
    assert "| plate | skad_nano |" in result.stdout


def test_rotated_copies_are_learned_from(folder):
    result = run("benchmarks/rotation_study.py", folder, "--images", 20, "--image-size", 64)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("| plate | skad_nano |") == 2


def test_searches_on_images_and_on_features(folder):
    few = ("--good", 9, "--defective", 3, "--image-size", 64)
    one = ("--coreset-sizes", 0.2, "--n-neighbors", 1)
    result = run("benchmarks/search_on_features.py", folder, *few, *one)
    assert result.returncode == 0, result.stderr
    assert "12 images of plate, 1 candidates, 3 folds" in result.stdout
    assert result.stdout.count("AUROC differs by 0 at most") == 3


def test_tiles_are_timed():
    rows = ["224 px", "2 x 2 tiles of 320 px (512 px)"]
    result = run("benchmarks/bench_tiles.py", "--side", 128, "--rounds", 1, "--settings", *rows)
    assert result.returncode == 0, result.stderr
    assert all(f"| {row} | " in result.stdout for row in rows)
