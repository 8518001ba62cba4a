"""The scripts that draw the papers' figures, on a tiny network and small images."""

import importlib
import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import ROOT, run

from skad.benchmark import Preset
from skad.benchmark import run as run_benchmark

pytestmark = pytest.mark.scripts

NANO = ("--backbone", "skad_nano")
SMALL = {"backbone": "skad_nano", "image_size": 32, "contamination": 0.2, "coreset_size": 0.1}
TINY = ("backbone=skad_nano", "image_size=32", "batch_size=4", "contamination=0.2")


def imported(monkeypatch, name):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def results(parts, tmp_path_factory):
    """Two rows on two categories."""
    out = tmp_path_factory.mktemp("results")
    preset = {"patchcore-1": Preset("PatchCore, small", "patchcore", SMALL)}
    return run_benchmark(parts, preset, out, grid={"patch_size": [1, 3]})


def test_curves_with_both_working_points(results, tmp_path):
    result = run("benchmarks/table_figures.py", "curves", results, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "PatchCore, small, patch_size=1" in result.stdout
    assert result.stdout.count("| bottle | 0 | 100.0 | 0.0 % | 0.0 % |") == 2
    assert len(list(tmp_path.glob("curves-patchcore-1-*.png"))) == 2


def test_values_along_a_parameter(results, tmp_path):
    result = run(
        "benchmarks/table_figures.py", "values", results, "--x", "embedding_dim", "patch_size",
        "--by", "detector", "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    said = "image_auroc, detector = PatchCoreDetector: {1: 100.0, 3: 100.0}"
    assert result.stdout.splitlines()[0] == said
    assert "aupro, detector" in result.stdout
    assert len(list(tmp_path.glob("values-*.png"))) == 1


def test_folders_without_results_are_named(tmp_path):
    result = run("benchmarks/table_figures.py", "curves", tmp_path)
    assert result.returncode == 1
    assert "holds no results: pass the --out" in result.stderr


def test_maps_with_the_best_outline_of_all_pixels(parts, tmp_path, opened):
    result = run(
        "benchmarks/score_maps.py", parts, "--category", "cable", "--method", "patchcore",
        "--set", *TINY[:2], "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert ", pixel F1 0." in result.stdout
    assert opened(tmp_path / "maps-patchcore-cable.png").size[0] > 400


def test_maps_of_btad(tmp_path):
    """Figure S4 of ReConPatch's supplement: the layout of BTAD, masks in two formats."""
    rng = np.random.default_rng(0)
    root = tmp_path / "BTech_Dataset_transformed" / "01"
    mask = np.zeros((40, 40), np.uint8)
    mask[10:26, 12:28] = 255
    for place, n in (("train/ok", 6), ("test/ok", 2), ("test/ko", 2)):
        (root / place).mkdir(parents=True)
        for i in range(n):
            image = rng.integers(90, 110, (40, 40, 3)).astype(np.uint8)
            image[mask > 0] += 130 if place == "test/ko" else 0
            Image.fromarray(image).save(root / place / f"{i}.bmp")
    (root / "ground_truth/ko").mkdir(parents=True)
    for i, suffix in enumerate(("png", "bmp")):
        Image.fromarray(mask).save(root / f"ground_truth/ko/{i}.{suffix}")
    result = run(
        "benchmarks/score_maps.py", root.parent, "--dataset", "btad", "--category", "01",
        "--set", *TINY[:2], "epochs=1", "k=3", "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert ", pixel F1 0." in result.stdout
    assert (tmp_path / "maps-reconpatch-01.png").exists()


def test_mistakes_at_the_best_threshold(monkeypatch):
    """The worst first: a good image below the threshold, a defective one above it."""
    module = imported(monkeypatch, "score_maps")

    class Detector:
        def score_samples(self, X):
            return np.array([5.0, 0.5, 6.0, 8.0, 0.7, 0.6, 0.4])

    data = types.SimpleNamespace(X_test=list("abcdefg"), y_test=np.array([1, 1, 1, -1, -1, -1, -1]))
    monkeypatch.setattr(module, "display", lambda d, data, chosen, t, own_scale: chosen.tolist())
    found = module.draw_mistakes(Detector(), data, 3)
    assert found == [("false-alarms", [1]), ("missed", [3])]


def test_subsamplers_side_by_side(parts, tmp_path):
    result = run(
        "benchmarks/subsamplers.py", parts, "--category", "bottle", *NANO, "--image-size", 32,
        "--fractions", 1, 0.1, "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()]
    rows = [line for line in lines if line[1:2] == ["0.1"]]
    assert [row[0] for row in rows] == ["random", "greedy", "k-means"]
    assert len({row[2] for row in rows}) == 1
    assert len({tuple(row[5:7]) for row in rows}) == 3  # other banks, other maps
    assert "| all | 1 |" in result.stdout
    assert (tmp_path / "subsamplers-bottle.png").stat().st_size > 5000


def test_f_with_and_without_g(parts, tmp_path, monkeypatch):
    command = ("benchmarks/reconpatch_figures.py", "umap", parts / "bottle", *NANO, "--images", 3)
    command += ("--epochs", 1, "--patches", 200, "--out", tmp_path)
    monkeypatch.setitem(sys.modules, "umap", None)
    result = run(*command)
    assert result.returncode == 1
    assert "pip install umap-learn" in result.stderr
    seen = []

    class UMAP:
        def __init__(self, n_components, random_state, n_jobs):
            assert (n_components, random_state, n_jobs) == (2, 0, 1)

        def fit_transform(self, X):
            seen.append(X)
            return X[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    result = run(*command)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "reconpatch-umap-bottle.png").stat().st_size > 5000
    with_g, without = seen
    assert with_g.shape == without.shape == (200, 512)
    assert not np.allclose(with_g, without)
    result = run(*command, "--projection", "pca")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "reconpatch-pca-bottle.png").stat().st_size > 5000


# --------------------------------------------------------------------------- ReContrast


def test_curves_of_a_training(parts, tmp_path):
    result = run(
        "benchmarks/recontrast_figures.py", "curves", parts / "bottle", "--rows", "B", "E",
        "--steps", 3, 1, "--set", *TINY, "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "training-bottle.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    assert [(p["row"], p["steps"]) for p in points] == [("B", 1), ("B", 3), ("E", 1), ("E", 3)]
    for name in ("loss", "diversity"):
        assert all(point[name] > 0 for point in points)
        assert len({point[name] for point in points}) > 2
    assert (tmp_path / "training-bottle.png").stat().st_size > 5000


def test_landscape_around_what_was_trained(parts, tmp_path):
    result = run(
        "benchmarks/recontrast_figures.py", "landscape", parts / "bottle", "--rows", "A", "--grid", 3,
        "--images", 2, "--set", *TINY, "max_iter=2", "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    heights = np.load(tmp_path / "landscape-A.npy")
    assert heights.shape == (3, 3)
    assert len(np.unique(heights)) == 9
    assert (tmp_path / "landscape-bottle.png").stat().st_size > 5000


def test_a_plane_is_measured_and_left(monkeypatch):
    """Directions are as long as all parameters together; the network is as before afterwards."""
    module = imported(monkeypatch, "recontrast_figures")
    network = torch.nn.Conv2d(2, 3, 3)
    before = [p.detach().clone() for p in network.parameters()]
    step = module.direction(before, torch.Generator().manual_seed(0))
    assert module.norm(step) == pytest.approx(module.norm(before), rel=1e-5)
    lengths = [x.flatten(1).norm(dim=1) for x in (step[0], before[0])]
    torch.testing.assert_close(lengths[0], lengths[1], rtol=1e-4, atol=0)

    def moved(net):
        return module.norm([p - b for p, b in zip(net.parameters(), before, strict=True)])

    heights = module.plane(network, np.array([-0.5, 0.0, 0.5]), moved, seed=0)
    assert heights[1, 1] == 0
    assert heights[0, 1] == pytest.approx(0.5 * module.norm(before), rel=1e-4)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


# --------------------------------------------------------------------------- the authors' code


def test_against_the_authors_code_needs_a_clone(tmp_path, parts):
    result = run("benchmarks/against_official.py", tmp_path, parts / "bottle")
    assert result.returncode == 1
    assert "holds no src/patchcore: pass a clone of https://github.com/amazon" in result.stderr
