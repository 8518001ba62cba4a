"""What it brings to compare patches with those of the same place alone, where parts lie alike.

PaDiM and RAD look for the like of a patch around its own place. Here every patch of the good images is
kept, and a patch is scored by the nearest of those that lie at most `r` positions away; beside it, by
the nearest of all, and by PatchCore's bank. Image AUROC of the highest value of the smoothed map.

    python benchmarks/position_study.py PATH/mvtec_bottle PATH/casting --images 60
    python benchmarks/position_study.py PATH/casting --backbone resnet18 --weights resnet18.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from skad import PatchCoreDetector
from skad._images import as_image_source
from skad._scoring.heatmaps import render
from skad.datasets import load_folder

RADII = (0, 1, 2, 4, 8)


def embedded(detector: PatchCoreDetector, files: list) -> torch.Tensor:
    """Embed the patches of images, (n, h, w, d)."""
    now = detector._as_fitted()
    extractor, images = now._embedder(), as_image_source(files)
    patches = [extractor.embed(batch.pixels) for batch in now._iter_batches(images)]
    return torch.cat(patches).unflatten(1, extractor.grid)


def by_place(queries: torch.Tensor, known: torch.Tensor, radius: int | None) -> np.ndarray:
    """Distance of every patch to the nearest that lies within a radius; None: anywhere. (n, h, w)."""
    _, height, width, dim = queries.shape
    found = torch.empty(queries.shape[:3])
    for row in range(height):
        for column in range(width):
            near = known
            if radius is not None:
                rows = slice(max(0, row - radius), row + radius + 1)
                near = known[:, rows, max(0, column - radius) : column + radius + 1]
            distances = torch.cdist(queries[:, row, column], near.reshape(-1, dim))
            found[:, row, column] = distances.amin(dim=1)
    return found.double().numpy()


def auroc(grids: np.ndarray, y: np.ndarray, size: int) -> float:
    peaks = [render(grid, size, 4.0).max() for grid in grids]
    return float(roc_auc_score(y == -1, peaks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=60, help="good images to learn, at most")
    args = parser.parse_args()
    print("| set | backbone | bank | " + " | ".join(f"r = {r}" for r in RADII) + " | all patches |")
    print("| --- " * (len(RADII) + 4) + "|")
    for folder in args.folders:
        data = load_folder(folder)
        chosen = np.random.default_rng(0).permutation(len(data.X_train))[: args.images]
        train, y = [data.X_train[i] for i in sorted(chosen)], np.array(data.y_test)
        detector = PatchCoreDetector(
            args.backbone, weights=args.weights, image_size=args.image_size, random_state=0
        ).fit(train)
        figures = [roc_auc_score(y == -1, -detector.score_samples(data.X_test))]
        known, queries = embedded(detector, train), embedded(detector, data.X_test)
        for radius in (*RADII, None):
            figures.append(auroc(by_place(queries, known, radius), y, args.image_size))
        cells = [folder.name, args.backbone, *(f"{figure:.3f}" for figure in figures)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
