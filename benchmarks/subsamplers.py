r"""How much a bank keeps of PatchCore's figures, by the way it is chosen (PatchCore, Figure S6).

Patches of the training images are thinned to each of the fractions: at random, greedily (the coreset),
and to the centers of k-means, by scikit-learn's MiniBatchKMeans. The paper's third way learns vectors
that reconstruct all patches; k-means is the same idea, and not the same objective. "Retention" is the
image AUROC relative to the first line: all patches, or the largest fraction if that is below 1::

    python benchmarks/subsamplers.py parts/bottle --fractions 1 0.1 0.01 0.001 --backbone resnet18 \
        --weights resnet18.safetensors --out pictures
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from skad import PatchCoreDetector
from skad._bank import MemoryBank
from skad.benchmark import evaluate
from skad.datasets import DATASETS
from skad.features import PatchEmbedder

METHODS = ("random", "greedy", "k-means")
METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--dataset", choices=DATASETS, default="folder", help="layout of the folder"
    )
    parser.add_argument("--category")
    parser.add_argument("--backbone", default="wide_resnet50_2.tv_in1k")
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a file")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, help="training images, at most; all")
    parser.add_argument("--fractions", nargs="+", type=float, default=[1.0, 0.1, 0.01, 0.001])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a picture")
    args = parser.parse_args()
    data = DATASETS[args.dataset].load(args.folder, args.category)
    n = min(args.images or len(data.X_train), len(data.X_train))
    chosen = np.linspace(0, len(data.X_train) - 1, n).round().astype(int)
    data.X_train = [data.X_train[i] for i in chosen]
    with tempfile.TemporaryDirectory() as memory:
        rows = measure(data, args, memory)
    if args.out:
        print(draw(rows, args.out / f"subsamplers-{data.category}.png"))


def measure(data: Any, args: argparse.Namespace, memory: str) -> list[dict[str, Any]]:
    """Print and return a row for each method and fraction; features are computed once."""
    rows: list[dict[str, Any]] = []
    head = ["method", "fraction", "vectors", "seconds", *METRICS.values(), "retention"]
    print(f"| {' | '.join(head)} |", "| --- " * len(head) + "|", sep="\n")
    for fraction in sorted(args.fractions, reverse=True):
        # All patches are the same set whatever chooses them.
        for method in args.methods if fraction < 1 else args.methods[:1]:
            start = time.perf_counter()
            detector = fitted(method, fraction, data, args, memory)
            seconds = time.perf_counter() - start
            figures = evaluate(detector, data.X_test, data.y_test, data.masks_test)
            row = {"method": method if fraction < 1 else "all", "fraction": fraction, **figures}
            rows.append(row)
            cells = [
                row["method"],
                f"{fraction:g}",
                str(len(detector.bank_.vectors)),
                f"{seconds:.1f}",
            ]
            cells += [f"{100 * row[name]:.2f}" if name in row else "" for name in METRICS]
            cells.append(f"{100 * row['image_auroc'] / rows[0]['image_auroc']:.2f} %")
            print(f"| {' | '.join(cells)} |", flush=True)
    return rows


def fitted(
    method: str, fraction: float, data: Any, args: argparse.Namespace, memory: str
) -> PatchCoreDetector:
    """Fit a detector as the paper has it, with the bank of a method."""
    shared = {"backbone": args.backbone, "weights": args.weights, "image_size": args.image_size}
    shared |= {"memory": memory}
    detector = PatchCoreDetector(
        **shared,
        coreset_method="random" if method == "k-means" else method,
        coreset_size=fraction,
        image_score="patch",
        whitening=0.0,
        contamination=0.1,
        random_state=args.seed,
    ).fit(data.X_train)
    if method == "k-means" and fraction < 1:
        patches = PatchEmbedder(**shared, pooling=None).fit_transform(data.X_train)
        patches = patches.reshape(-1, patches.shape[-1])
        means = MiniBatchKMeans(
            len(detector.bank_.vectors), random_state=args.seed, n_init=1, batch_size=4096
        ).fit(patches)
        vectors = means.cluster_centers_.astype(np.float32)
        detector.bank_ = MemoryBank(vectors, np.zeros(len(vectors), dtype=int))
    return detector


def draw(rows: list[dict[str, Any]], path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [name for name in METRICS if name in rows[0]]
    figure, panels = plt.subplots(
        1, len(shown), figsize=(4.5 * len(shown), 4), layout="constrained", squeeze=False
    )
    for name, panel in zip(shown, panels[0], strict=True):
        for method in METHODS:
            points = [
                (r["fraction"], 100 * r[name]) for r in rows if r["method"] in (method, "all")
            ]
            panel.plot(*zip(*points, strict=True), "o-", label=method)
        panel.set(xscale="log", xlabel="fraction of the patches", title=f"{METRICS[name]}, %")
    panels[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
