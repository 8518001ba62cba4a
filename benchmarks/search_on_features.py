"""A search over banks on images, whose features a store keeps, and on features in one array.

The set is a folder in MVTec's layout; good and defective images are drawn of it. The figures of
docs/user_guide.md:

    OMP_NUM_THREADS=1 python benchmarks/search_on_features.py PATH
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV

from skad import PatchCoreDetector
from skad.datasets import load_folder
from skad.features import PatchEmbedder
from skad.model_selection import OneClassKFold


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the set")
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained", help="a file, or 'pretrained'")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--good", type=int, default=40)
    parser.add_argument("--defective", type=int, default=20)
    parser.add_argument("--coreset-sizes", nargs="+", type=float, default=[0.01, 0.05, 0.1])
    parser.add_argument("--n-neighbors", nargs="+", type=int, default=[1, 3, 5])
    args = parser.parse_args()
    grid = {"coreset_size": args.coreset_sizes, "n_neighbors": args.n_neighbors}
    torch.set_num_threads(1)
    network = {
        "backbone": args.backbone,
        "weights": args.weights,
        "image_size": args.image_size,
        "n_jobs": 1,
    }
    data = load_folder(args.data)
    defects = [path for path, label in zip(data.X_test, data.y_test, strict=True) if label == -1]
    paths = [*data.X_train[: args.good], *defects[: args.defective]]
    y = np.repeat([1, -1], [args.good, args.defective])

    with tempfile.TemporaryDirectory() as folder:
        on_images = PatchCoreDetector(**network, memory=folder, random_state=0)
        searches = {
            "images, a new store": search(on_images, grid, paths, y),
            "images, the store filled": search(on_images, grid, paths, y),
        }
    begun = time.process_time()
    embedder = PatchEmbedder(**network, pooling=None)
    X = embedder.fit_transform(paths)
    embedding = time.process_time() - begun
    on_features = PatchCoreDetector(**embedder.detector_params(), random_state=0)
    searches["features"] = search(on_features, grid, X, y)

    n_candidates = len(args.coreset_sizes) * len(args.n_neighbors)
    print(f"{len(paths)} images of {args.data.name}, {n_candidates} candidates, 3 folds")
    print(f"embedding once: {embedding:.1f} s of CPU, {X.nbytes / 1e6:.0f} MB")
    scores = searches["features"][1]
    for name, (seconds, found) in searches.items():
        print(
            f"{name}: {seconds:.1f} s, AUROC differs by {np.abs(found - scores).max():.1g} at most"
        )


def search(detector: Any, grid: dict[str, list], X: Any, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Search, and return the CPU seconds that it took and the score of every candidate."""
    begun = time.process_time()
    cv = OneClassKFold(3, shuffle=True, random_state=0)
    found = GridSearchCV(detector, grid, cv=cv, refit=False).fit(X, y)
    return time.process_time() - begun, found.cv_results_["mean_test_score"]


if __name__ == "__main__":
    main()
