r"""ReConPatch's tables on local data: what the paper leaves open, its ablations, its robustness.

Every table is a grid over parameters of the detector, run by scikit-learn's GridSearchCV: fitted on
the good training images of a folder in MVTec layout, measured on its test images. An image goes
through the backbone once, whatever the number of settings, and f is trained once a setting: seeds
redraw the coreset alone, by far the larger noise. Run, for instance::

    python benchmarks/reconpatch_tables.py parts/* --table sigma gamma batch g init b \
        --weights resnet18.safetensors --images 60 --epochs 20 --lr 1e-4
    python benchmarks/reconpatch_tables.py parts/* --table S1 S2 S3 --backbone wide_resnet50_2.tv_in1k
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit

import skad._reconpatch
from skad import PatchCoreDetector, ReConPatchDetector
from skad._learning import LearnedEmbedding, ReConPatchSettings, learn_embedding
from skad.datasets import load_folder
from skad.metrics import discriminability, pixel_auroc

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from inspect_folder import print_row, read_masks

# Name -> grid; a list of grids runs one after the other. Texts such as "0.1 auto" are shares of the
# bandwidth that sigma="auto" measures on the data.
TABLES: dict[str, Any] = {
    # What the paper does not say.
    "sigma": {"sigma": ["0.03 auto", "0.1 auto", "0.3 auto", "auto", 1.0]},
    "gamma": {"gamma": [0.9, 0.99, 0.999]},
    "batch": {"train_batch_size": [128, 512, 1024]},
    "g": {"projection_dim": [None, 64, 128, 512]},
    "init": {"init": ["orthogonal", "uniform"], "epochs": [0, "as given"]},
    "b": {"b": [None, 3, 9]},
    "training": [{"lr": [1e-5, 1e-4, 1e-3]}],
    "schedule": {"epochs": ["as given"]},  # with --epochs and --lr
    # The paper's own tables.
    "1": {"coreset_size": [0.01, 0.1, 0.25]},
    "2": {"embedding_dim": [64, 128, 256, 512, 1024]},
    "S1": {"k": [3, 5, 7, 10, 15, 20]},
    "S2": {"m": [0.5, 1.0, 1.5, 2.0]},
    "S3": {"alpha": [0.0, 0.25, 0.5, 0.75, 1.0]},
    "S4": {"projection_dim": [None, 128]},
}
_embeddings: dict[tuple, LearnedEmbedding] = {}


def learn_once(
    features: np.ndarray, settings: ReConPatchSettings, generator: torch.Generator, *rest: Any
) -> LearnedEmbedding:
    """Train f with seed 0, once a setting and data set; stands in for `learn_embedding`."""
    key = settings, hashlib.blake2b(np.ascontiguousarray(features[::97]).tobytes()).digest()
    if key not in _embeddings:
        fixed = torch.Generator().manual_seed(0)
        _embeddings[key] = learn_embedding(features, settings, fixed, *rest)
    return _embeddings[key]


def coarse_heatmaps(detector: PatchCoreDetector, X: list[str]) -> tuple[list, np.ndarray]:
    """Heat maps of every 16th pixel, which is all that ranks need, and scores."""
    maps, scores = [], []
    for batch, result in detector._iter_scores(X, maps=True):
        scores.append(-result.image)
        for (height, width), grid in zip(batch.shapes, result.grid, strict=True):
            canvas = detector._render(grid)
            maps.append(detector.geometry_.restore(canvas, -(-height // 4), -(-width // 4)))
    return maps, np.concatenate(scores)


def figures(detector: PatchCoreDetector, X: list[str], y: np.ndarray) -> dict[str, float]:
    """Image AUROC, pixel AUROC and d' on the test images; a scorer of GridSearchCV."""
    data = figures.data  # type: ignore[attr-defined]
    heatmaps, scores = coarse_heatmaps(detector, X)
    masks = read_masks(data, heatmaps)
    pixel = np.nan
    if masks is not None:
        coarse = [
            m if m.shape == h.shape else m[::4, ::4] for m, h in zip(masks, heatmaps, strict=True)
        ]
        pixel = pixel_auroc(coarse, heatmaps)
    return {
        "image": roc_auc_score(y, scores),
        "pixel": pixel,
        "d": discriminability(-scores[y == 1], -scores[y == -1]),
    }


def search(detector: PatchCoreDetector, grid: dict[str, list], data: Any) -> list[tuple]:
    """Run a grid on one data set: [(parameters, image, pixel, d')]."""
    figures.data = data  # type: ignore[attr-defined]
    folds = [-1] * len(data.X_train) + [0] * len(data.X_test)
    labels = np.concatenate([np.ones(len(data.X_train), dtype=int), data.y_test])
    if not all(file or y == 1 for file, y in zip(data.masks_test, data.y_test, strict=True)):
        warnings.filterwarnings("ignore", "One or more of the test scores are non-finite")
    found = GridSearchCV(
        detector, grid, scoring=figures, cv=PredefinedSplit(folds), refit=False, error_score="raise"
    ).fit(data.X_train + data.X_test, labels)
    results = found.cv_results_
    columns = [results[f"mean_test_{name}"] for name in ("image", "pixel", "d")]
    return list(zip(results["params"], *columns, strict=True))


def resolved(grid: dict[str, list], detector: ReConPatchDetector, data: Any) -> dict[str, list]:
    """Replace shares of the measured bandwidth, and "as given", by numbers."""
    grid = {name: list(values) for name, values in grid.items()}
    if "epochs" in grid:
        grid["epochs"] = [detector.epochs if e == "as given" else e for e in grid["epochs"]]
    if "sigma" in grid:
        untrained = ReConPatchDetector(**{**detector.get_params(), "epochs": 0})
        sigma = untrained.fit(data.X_train).sigma_
        grid["sigma"] = [
            float(value.split()[0]) * sigma if str(value).endswith(" auto") else value
            for value in grid["sigma"]
        ]
    return grid


def named(grid: dict[str, list]) -> list[str]:
    """Row names of a grid, in GridSearchCV's order."""
    from sklearn.model_selection import ParameterGrid

    return [", ".join(f"{k}={v}" for k, v in params.items()) for params in ParameterGrid(grid)]


def print_table(rows: dict[str, np.ndarray], names: list[str]) -> None:
    print_row(["setting", *names, "mean", "d'"], markdown=True)
    print_row(["---"] * (len(names) + 3), markdown=True)
    for name, values in rows.items():
        cells = [f"{i:.3f} / {p:.3f}".replace(" / nan", "") for i, p, _ in values]
        image, _, d = values.mean(axis=0)
        pixel = np.mean([p for _, p, _ in values if not np.isnan(p)] or [np.nan])
        print_row([name, *cells, f"{image:.3f} / {pixel:.3f}", f"{d:.2f}"], markdown=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders in MVTec layout")
    parser.add_argument("--table", nargs="+", choices=[*TABLES, "patchcore"], required=True)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a weights file")
    parser.add_argument("--images", type=int, help="training images a set, spread evenly; all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="figures are their mean")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the detector"
    )
    parser.add_argument("--memory", help="folder for features; a temporary one if not given")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--lr", type=float, default=1e-5)
    return parser.parse_args()


def parameters(args: argparse.Namespace) -> dict[str, Any]:
    from ast import literal_eval

    params: dict[str, Any] = {
        "backbone": args.backbone,
        "weights": args.weights,
        "memory": args.memory,
    }
    for text in args.set:
        name, value = text.split("=", 1)
        try:
            params[name] = literal_eval(value)
        except (ValueError, SyntaxError):
            params[name] = value
    return params


def load_part(folder: Path, n_images: int | None) -> Any:
    """Read a data set, with at most `n_images` training images, spread evenly."""
    data = load_folder(folder)
    if n_images is not None and n_images < len(data.X_train):
        chosen = np.linspace(0, len(data.X_train) - 1, n_images).round().astype(int)
        data.X_train = [data.X_train[i] for i in chosen]
    return data


def run_table(name: str, args: argparse.Namespace, sets: list[Any]) -> None:
    """Mean over seeds of every row of a table, on every set."""
    params = parameters(args)
    grids = [{"coreset_size": [0.01, 0.1, 0.25]}] if name == "patchcore" else TABLES[name]
    for grid in grids if isinstance(grids, list) else [grids]:
        per_seed = []
        for seed in args.seeds:
            columns = []
            for data in sets:
                if name == "patchcore":
                    used = grid
                    shared = params.keys() & PatchCoreDetector().get_params().keys()
                    detector: Any = PatchCoreDetector(**{key: params[key] for key in shared})
                else:
                    detector = ReConPatchDetector(**params, epochs=args.epochs, lr=args.lr)
                    used = resolved(grid, detector, data)
                detector.set_params(random_state=seed)
                columns.append([row[1:] for row in search(detector, used, data)])
            per_seed.append(np.array(columns).swapaxes(0, 1))
        rows = dict(zip(named(grid), np.mean(per_seed, axis=0), strict=True))
        print_table(rows, [data.category for data in sets])


def main() -> None:
    args = read_arguments()
    skad._reconpatch.learn_embedding = learn_once
    temporary = tempfile.TemporaryDirectory()
    args.memory = args.memory or temporary.name
    sets = [load_part(folder, args.images) for folder in args.folders]
    for name in args.table:
        start = time.perf_counter()
        print(f"\n{name}: {' '.join(sys.argv[1:])}")
        run_table(name, args, sets)
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
