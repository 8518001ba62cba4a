r"""
======================================
Fit and score a folder in MVTec layout
======================================

Fit on the good images of a folder in MVTec layout, score its test images, draw the worst.

Run, for instance::

    python examples/inspect_folder.py parts/bottle
    python examples/inspect_folder.py parts/* --backbone resnet18 --weights resnet18.safetensors \
        --geometry squash pad crop --seeds 0 1 2 --markdown

See ``skad.datasets.load_folder`` for the layout. Pixel AUROC needs ``ground_truth``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from skad import PatchCoreDetector
from skad.datasets import load_folder, read_mask
from skad.inspection import HeatmapDisplay
from skad.metrics import pixel_auroc

COLUMNS = (
    "set",
    "geometry",
    "image AUROC",
    "pixel AUROC",
    "false alarms",
    "found",
    "fit s",
    "ms/image",
)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[2], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders in MVTec layout")
    parser.add_argument(
        "--backbone", default="skad_nano", help="timm model name; skad_nano comes with skad"
    )
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a weights file")
    parser.add_argument(
        "--geometry", nargs="+", default=["squash"], choices=["squash", "pad", "crop"]
    )
    parser.add_argument("--image-size", type=int, default=224, help="side of the network's input")
    parser.add_argument("--aggregation", default="concat", choices=["concat", "adaptive"])
    parser.add_argument("--coreset-size", type=float, default=0.01, help="share of all patches")
    parser.add_argument("--coreset-method", default="greedy")
    parser.add_argument("--distance", default="euclidean", choices=["euclidean", "squared"])
    parser.add_argument("--b", type=int, default=None, help="neighbours of the re-weighting")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="figures are their mean")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--out", type=Path, default=None, help="folder for pictures")
    parser.add_argument("--verbose", type=int, default=0)
    return parser.parse_args()


def make_detector(args: argparse.Namespace, geometry: str, seed: int) -> PatchCoreDetector:
    return PatchCoreDetector(
        args.backbone,
        weights=args.weights,
        geometry=geometry,
        image_size=args.image_size,
        aggregation=args.aggregation,
        coreset_size=args.coreset_size,
        coreset_method=args.coreset_method,
        distance=args.distance,
        b=args.b,
        random_state=seed,
        verbose=args.verbose,
    )


def read_masks(data, heatmaps) -> list[np.ndarray] | None:
    """Ground truth at the size of the images; None unless every defective image has a mask."""
    if any(file is None and y == -1 for file, y in zip(data.masks_test, data.y_test, strict=True)):
        return None
    return [
        np.zeros(heatmap.shape) if file is None else read_mask(file)
        for file, heatmap in zip(data.masks_test, heatmaps, strict=True)
    ]


def fit_and_score(detector: PatchCoreDetector, data) -> tuple[np.ndarray, list[float]]:
    """Fit, score, measure; figures in the order of COLUMNS."""
    from sklearn.metrics import roc_auc_score

    start = time.perf_counter()
    detector.fit(data.X_train)
    fitted = time.perf_counter()
    heatmaps, scores = detector.predict_heatmap(data.X_test, return_scores=True)
    scored = time.perf_counter()
    masks = read_masks(data, heatmaps)
    below, good = scores < detector.offset_, data.y_test == 1
    return scores, [
        roc_auc_score(data.y_test, scores),
        np.nan if masks is None else pixel_auroc(masks, heatmaps),
        below[good].mean(),
        below[~good].mean(),
        fitted - start,
        1000 * (scored - fitted) / len(scores),
    ]


def draw_worst(
    detector: PatchCoreDetector, data, scores: np.ndarray, path: Path, n: int = 4
) -> None:
    """Write the most anomalous test images of each kind of defect, and of the good ones."""
    chosen: list[int] = []
    for kind in dict.fromkeys(data.defects_test):
        of_kind = [i for i, defect in enumerate(data.defects_test) if defect == kind]
        chosen += sorted(of_kind, key=lambda i: scores[i])[
            : max(1, n // len(set(data.defects_test)))
        ]
    masks = [data.masks_test[i] for i in chosen]
    display = HeatmapDisplay.from_estimator(detector, [data.X_test[i] for i in chosen], masks=masks)
    path.parent.mkdir(parents=True, exist_ok=True)
    display.figure_.savefig(path, dpi=80)
    print(f"picture: {path.resolve()}")


def print_row(cells: list[str], markdown: bool) -> None:
    print(
        "| " + " | ".join(cells) + " |" if markdown else "  ".join(f"{c:>14}" for c in cells),
        flush=True,
    )


def print_figures(name: str, geometry: str, figures: np.ndarray, markdown: bool) -> None:
    image, pixel, alarms, found, fit, score = figures
    shown = "-" if np.isnan(pixel) else f"{pixel:.3f}"
    cells = [name, geometry, f"{image:.3f}", shown, f"{alarms:.1%}", f"{found:.1%}"]
    print_row([*cells, f"{fit:.1f}", f"{score:.1f}"], markdown)


def main() -> None:
    args = read_arguments()
    print_row(list(COLUMNS), args.markdown)
    if args.markdown:
        print_row(["---"] * len(COLUMNS), markdown=True)
    for geometry in args.geometry:
        means = []
        for folder in args.folders:
            data = load_folder(folder)
            results = []
            for seed in args.seeds:
                detector = make_detector(args, geometry, seed)
                scores, figures = fit_and_score(detector, data)
                results.append(figures)
            means.append(np.mean(results, axis=0))
            print_figures(data.category, geometry, means[-1], args.markdown)
            if args.out is not None:
                draw_worst(detector, data, scores, args.out / f"{data.category}-{geometry}.png")
        if len(args.folders) > 1:
            print_figures("mean", geometry, np.nanmean(means, axis=0), args.markdown)


if __name__ == "__main__":
    main()
