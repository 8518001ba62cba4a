"""
=================================================
One ReContrast detector for several kinds of part
=================================================

One ReContrast detector for several kinds of part at once.

A line that makes many products need not keep a detector for each: the network learns from the good
images of all of them and is asked about a new image without being told what it shows. Here the three
textures of ``demo.py`` are the products; ``PATH`` arguments take folders in MVTec layout instead.

Run ``python examples/many_categories.py [PATH ...] [--iterations 150]``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from demo import N_TRAIN, cut_tiles, damage
from skimage import data
from sklearn.metrics import roc_auc_score

from skad import ReContrastDetector
from skad.datasets import load_folder


class Category(NamedTuple):
    """Images to learn from and images to test on; y is +1 (good) or -1 (defective)."""

    name: str
    X_train: list
    X_test: list
    y_test: np.ndarray


def texture(name: str) -> Category:
    """Good tiles of a photograph, and tiles that were not seen, whole and damaged."""
    rng = np.random.default_rng(0)
    tiles = rng.permutation(cut_tiles(getattr(data, name)()))
    good = tiles[N_TRAIN:]
    damaged = [damage(tile, i % 3, rng)[0] for i, tile in enumerate(good)]
    y = np.repeat([1, -1], [len(good), len(damaged)])
    return Category(name, list(tiles[:N_TRAIN]), [*good, *damaged], y)


def folder(path: Path) -> Category:
    part = load_folder(path)
    return Category(part.category, part.X_train, part.X_test, part.y_test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("folders", nargs="*", type=Path, help="folders in MVTec layout")
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a weights file")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=150)
    args = parser.parse_args()

    names = ("brick", "gravel", "grass")
    categories = [folder(p) for p in args.folders] or [texture(name) for name in names]
    detector = ReContrastDetector(
        args.backbone,
        weights=args.weights,
        image_size=args.image_size,
        max_iter=args.iterations,
        image_score=0.01,
        random_state=0,
        verbose=1,
    )
    start = time.perf_counter()
    detector.fit([image for category in categories for image in category.X_train])
    n = sum(len(category.X_train) for category in categories)
    print(f"one detector for {len(categories)} categories, {n} images", end=", ")
    print(f"{detector.n_iter_} steps in {time.perf_counter() - start:.0f} s")
    print(f"{'category':<16}{'image AUROC':>12}{'false alarms':>14}{'found':>8}")
    for category in categories:
        scores = detector.score_samples(category.X_test)
        below, y = scores < detector.offset_, category.y_test
        alarms, found = below[y == 1].mean(), below[y == -1].mean()
        auroc = roc_auc_score(y, scores)
        print(f"{category.name:<16}{auroc:>12.3f}{alarms:>14.1%}{found:>8.1%}")


if __name__ == "__main__":
    main()
