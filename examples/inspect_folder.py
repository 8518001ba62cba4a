r"""
======================================
Fit and score a folder in MVTec layout
======================================

Fit on the good images of a folder in MVTec layout, measure on its test images, draw the worst.

Run, for instance::

    python examples/inspect_folder.py parts/bottle
    python examples/inspect_folder.py parts/* --backbone resnet18 --weights resnet18.safetensors \
        --out pictures

See ``skad.datasets.load_folder`` for the layout. Pixel AUROC needs ``ground_truth``. To compare
settings, seeds or detectors, use ``python -m skad.benchmark``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from skad import PatchCoreDetector
from skad.benchmark import evaluate
from skad.datasets import load_folder
from skad.inspection import HeatmapDisplay

COLUMNS = ["set", "image AUROC", "pixel AUROC", "false alarms", "recall", "fit s", "ms per image"]


def bank_size(text: str) -> str | float:
    return text if text == "auto" else float(text)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[5], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders in MVTec layout")
    parser.add_argument(
        "--backbone", default="skad_nano", help="timm model name; skad_nano comes with skad"
    )
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a weights file")
    parser.add_argument("--image-size", type=int, default=224, help="side of the network's input")
    parser.add_argument(
        "--coreset-size", type=bank_size, default="auto", help="'auto' or a fraction of all patches"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder for pictures")
    return parser.parse_args()


def draw_worst(detector: PatchCoreDetector, data, path: Path, n: int = 4) -> None:
    """Draw the most anomalous test images of each kind of defect, and of the good ones."""
    scores = detector.score_samples(data.X_test)
    kinds = dict.fromkeys(data.defects_test)
    chosen: list[int] = []
    for kind in kinds:
        of_kind = [i for i, defect in enumerate(data.defects_test) if defect == kind]
        chosen += sorted(of_kind, key=lambda i: scores[i])[: max(1, n // len(kinds))]
    display = HeatmapDisplay.from_estimator(
        detector, [data.X_test[i] for i in chosen], masks=[data.masks_test[i] for i in chosen]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    display.figure_.savefig(path, dpi=80)
    print(f"picture: {path.resolve()}")


def print_row(cells: list[str]) -> None:
    print("  ".join(f"{cell:>14}" for cell in cells), flush=True)


def main() -> None:
    args = read_arguments()
    print_row(COLUMNS)
    for folder in args.folders:
        data = load_folder(folder)
        detector = PatchCoreDetector(
            args.backbone,
            weights=args.weights,
            image_size=args.image_size,
            coreset_size=args.coreset_size,
            random_state=0,
        )
        start = time.perf_counter()
        detector.fit(data.X_train)
        seconds = time.perf_counter() - start
        found = evaluate(detector, data.X_test, data.y_test, data.masks_test)
        pixel = f"{found['pixel_auroc']:.3f}" if "pixel_auroc" in found else "-"
        rates = [f"{found[name]:.1%}" for name in ("false_alarm_rate", "recall")]
        times = [f"{seconds:.1f}", f"{found['score_ms']:.1f}"]
        print_row([data.category, f"{found['image_auroc']:.3f}", pixel, *rates, *times])
        if args.out is not None:
            draw_worst(detector, data, args.out / f"{data.category}.png")


if __name__ == "__main__":
    main()
