"""
==================================
Search ReConPatch's k, alpha and m
==================================

Search ReConPatch's k, alpha and m as a table of the paper does, with features kept on disk.

Every candidate is fitted on folds of the good images and measured on the others and the defective
ones. The backbone runs once an image for the whole search (``memory=``); what a candidate costs is the
training of f and a coreset. Writes a picture of d' over k and alpha, the best m at each place.

Run ``python examples/grid_search_reconpatch.py [PATH] [--full] [--out FOLDER]``; PATH is a folder in
MVTec layout, else tiles of a photograph are used. ``--full`` takes the paper's 120 candidates instead
of 27.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from demo import cut_tiles, damage
from skimage import data
from sklearn.model_selection import GridSearchCV

from skad import ReConPatchDetector
from skad.datasets import load_folder
from skad.model_selection import OneClassKFold, discriminability_scorer, image_auroc_scorer

SMALL = {"k": [3, 5, 10], "alpha": [0.0, 0.5, 1.0], "m": [0.5, 1.0, 2.0]}
PAPER = {
    "k": [3, 5, 7, 10, 15, 20],
    "alpha": [0.0, 0.25, 0.5, 0.75, 1.0],
    "m": [0.5, 1.0, 1.5, 2.0],
}


def tiles_of_grass() -> tuple[list, np.ndarray]:
    rng = np.random.default_rng(0)
    good = rng.permutation(cut_tiles(data.grass()))
    damaged = [damage(tile, i % 3, rng)[0] for i, tile in enumerate(good[:20])]
    return [*good, *damaged], np.repeat([1, -1], [len(good), len(damaged)])


def part(path: Path) -> tuple[list, np.ndarray]:
    found = load_folder(path)
    labels = np.concatenate([np.ones(len(found.X_train), dtype=int), found.y_test])
    return [*found.X_train, *found.X_test], labels


def draw_surface(search: GridSearchCV, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = search.cv_results_
    ks, alphas = (sorted(set(results[f"param_{name}"])) for name in ("k", "alpha"))
    surface = np.full((len(alphas), len(ks)), -np.inf)
    for params, value in zip(results["params"], results["mean_test_d'"], strict=True):
        place = alphas.index(params["alpha"]), ks.index(params["k"])
        surface[place] = max(surface[place], value)
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    image = axes.imshow(surface, origin="lower", aspect="auto")
    axes.set(xlabel="k", ylabel="alpha", title="d' on images that were left out, best m")
    axes.set_xticks(range(len(ks)), ks)
    axes.set_yticks(range(len(alphas)), alphas)
    for (row, column), value in np.ndenumerate(surface):
        colour = "white" if value < surface.min() + 0.6 * np.ptp(surface) else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    figure.colorbar(image)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("folder", nargs="?", type=Path, help="folder in MVTec layout")
    parser.add_argument("--full", action="store_true", help="the paper's 120 candidates")
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a weights file")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="run the backbone every time")
    parser.add_argument("--jobs", type=int, help="worker processes")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="for the picture")
    args = parser.parse_args()
    X, y = tiles_of_grass() if args.folder is None else part(args.folder)

    with tempfile.TemporaryDirectory() as features:
        detector = ReConPatchDetector(
            args.backbone,
            weights=args.weights,
            image_size=args.image_size,
            epochs=args.epochs,
            lr=1e-3,
            memory=None if args.no_memory else features,
            random_state=0,
        )
        search = GridSearchCV(
            detector,
            PAPER if args.full else SMALL,
            scoring={"image AUROC": image_auroc_scorer, "d'": discriminability_scorer},
            refit="d'",
            cv=OneClassKFold(3, shuffle=True, random_state=0),
            n_jobs=args.jobs,
        )
        start = time.perf_counter()
        search.fit(X, y)
    n = len(search.cv_results_["params"])
    print(f"{n} candidates x 3 folds, {len(X)} images: {time.perf_counter() - start:.0f} s")
    best = search.best_index_
    auroc = search.cv_results_["mean_test_image AUROC"][best]
    print(f"best: {search.best_params_}, d' {search.best_score_:.2f}, image AUROC {auroc:.3f}")
    args.out.mkdir(parents=True, exist_ok=True)
    picture = args.out / "grid-search.png"
    draw_surface(search, picture)
    print(f"picture: {picture.resolve()}")


if __name__ == "__main__":
    main()
