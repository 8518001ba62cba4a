r"""ReConPatch beside PatchCore: time (Table S6), histograms (Figure 3), f without g (Figure S1).

Run, for instance::

    python benchmarks/reconpatch_figures.py time parts/bottle --backbone wide_resnet50_2.tv_in1k
    python benchmarks/reconpatch_figures.py histogram parts/bottle --out docs/images
    python benchmarks/reconpatch_figures.py umap parts/bottle --out pictures  # needs umap-learn
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skad import PatchCoreDetector, ReConPatchDetector
from skad.datasets import load_folder
from skad.features import PatchEmbedder
from skad.metrics import discriminability

METHODS: dict[str, Any] = {"PatchCore": PatchCoreDetector, "ReConPatch": ReConPatchDetector}


def load_part(args: argparse.Namespace) -> Any:
    """Read the folder, with at most ``--images`` training images, spread evenly."""
    data = load_folder(args.folder)
    n = min(args.images or len(data.X_train), len(data.X_train))
    chosen = np.linspace(0, len(data.X_train) - 1, n).round().astype(int)
    data.X_train = [data.X_train[i] for i in chosen]
    return data


def detectors(args: argparse.Namespace, **params: Any) -> dict[str, Any]:
    """Both methods with the same backbone and seed."""
    weights = None if args.weights == "random" else args.weights
    params |= {"backbone": args.backbone, "weights": weights, "random_state": args.seed}
    training = {"epochs": args.epochs, "lr": args.lr}
    return {
        name: method(**params, **(training if method is ReConPatchDetector else {}))
        for name, method in METHODS.items()
    }


# ---- Table S6 -------------------------------------------------------------------------------------


def inference_time(args: argparse.Namespace, warm_up: int = 10) -> None:
    """Milliseconds per image, batch 1; in turns, so that a busy machine slows both down."""
    data = load_part(args)
    image = [np.asarray(Image.open(data.X_test[0]).convert("RGB"))]
    print(f"| features | {' | '.join(METHODS)} | ratio |", "| --- " * 4 + "|", sep="\n")
    args.epochs = 0  # the values of f take no time
    for name, params in {
        "concat": {},
        "adaptive, 512": {"aggregation": "adaptive", "target_dim": 512},
    }.items():
        fitted = [d.fit(data.X_train) for d in detectors(args, **params).values()]
        times = np.empty((warm_up + args.repeats, 2))
        for i in range(len(times)):
            for j, detector in enumerate(fitted):
                start = time.perf_counter()
                detector.score_samples(image)
                times[i, j] = 1000 * (time.perf_counter() - start)
        patchcore, reconpatch = np.median(times[warm_up:], axis=0)
        ratio = np.median(times[warm_up:, 1] / times[warm_up:, 0])
        print(f"| {name} | {patchcore:.1f} | {reconpatch:.1f} | {ratio:.3f} |")


# ---- Figure 3 -------------------------------------------------------------------------------------


def histogram(args: argparse.Namespace) -> None:
    """Image scores of good and defective test images, with d' (Eq. 12)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    data = load_part(args)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for panel, (name, detector) in zip(panels, detectors(args).items(), strict=True):
        scores = -detector.fit(data.X_train).score_samples(data.X_test)
        good, defective = scores[data.y_test == 1], scores[data.y_test == -1]
        bins = np.linspace(scores.min(), scores.max(), 30).tolist()
        panel.hist(good, bins, alpha=0.7, color="tab:green", label="good")
        panel.hist(defective, bins, alpha=0.7, color="tab:red", label="defective")
        panel.axvline(-detector.offset_, color="black", linestyle="--", label="threshold")
        panel.set(title=f"{name}, d' = {discriminability(good, defective):.2f}")
        panel.set(xlabel="anomaly score", ylabel="images")
        panel.legend()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"reconpatch-histogram-{data.category}.png"
    figure.savefig(path, dpi=80)
    print(path)


# ---- Figure S1 ------------------------------------------------------------------------------------


def embedding(args: argparse.Namespace) -> None:
    """Patches behind f in two dimensions, trained with and without g; colours say where they are."""
    project = projection(args)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    data = load_part(args)
    weights = None if args.weights == "random" else args.weights
    network = {"backbone": args.backbone, "weights": weights}
    patches = PatchEmbedder(**network, pooling=None).fit_transform(data.X_train)
    n, height, width, dim = patches.shape
    rng = np.random.default_rng(args.seed)
    chosen = rng.permutation(n * height * width)[: args.patches]
    places = np.divmod(chosen % (height * width), width)
    colours = np.stack([places[0] / height, places[1] / width, np.full(len(chosen), 0.5)], axis=1)
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for panel, name, g in (
        (panels[0], "with g", {}),
        (panels[1], "without g", {"projection_dim": None}),
    ):
        detector = ReConPatchDetector(
            **network, **g, epochs=args.epochs, lr=args.lr, whitening=0.0, random_state=args.seed
        ).fit(data.X_train)
        learned = patches.reshape(-1, dim)[chosen] @ detector.components_.T
        panel.scatter(*project(learned).T, c=colours, s=3)
        panel.set(title=f"f, trained {name}", xticks=[], yticks=[])
    figure.supxlabel(
        "place in the image: red grows downwards, green to the right", fontsize="small"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"reconpatch-{args.projection}-{data.category}.png"
    figure.savefig(path, dpi=80)
    print(path)


def projection(args: argparse.Namespace) -> Any:
    """UMAP, which the paper takes, or principal components, which need no other package."""
    if args.projection == "pca":
        from sklearn.decomposition import PCA

        return PCA(2, random_state=args.seed).fit_transform
    try:
        from umap import UMAP
    except ImportError:
        sys.exit("this figure needs umap-learn: pip install umap-learn, or --projection pca.")
    # One thread: with a seed there are no more, and UMAP warns where they are asked for.
    return UMAP(n_components=2, random_state=args.seed, n_jobs=1).fit_transform


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    analyses = {"time": inference_time, "histogram": histogram, "umap": embedding}
    parser.add_argument("analysis", choices=analyses)
    parser.add_argument("folder", type=Path, help="folder in MVTec layout")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="pretrained", help="'pretrained', 'random' or a file")
    parser.add_argument("--images", type=int, help="training images, at most; all")
    parser.add_argument("--epochs", type=int, default=ReConPatchDetector().epochs)
    parser.add_argument("--lr", type=float, default=ReConPatchDetector().lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=30, help="scorings that are timed")
    parser.add_argument("--projection", choices=["umap", "pca"], default="umap", help="Figure S1")
    parser.add_argument("--patches", type=int, default=5000, help="Figure S1: points, at most")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for pictures")
    args = parser.parse_args()
    analyses[args.analysis](args)


if __name__ == "__main__":
    main()
