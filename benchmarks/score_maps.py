r"""Draw anomaly maps as the papers show them: ground truth, F1-optimal outline, highest value.

Orange: ground truth. Green: where the map is above the threshold that gives the pixels of all test
images the best F1 (without masks: above the detector's own). Star: the highest value. This is what
ReConPatch's Figures 4, S3 and S4 (BTAD) and ReContrast's 5 (c), A1 to A3 show. ``--mistakes`` shows
the images that are judged wrongly at the F1-optimal threshold of the image scores, on a scale that ends
at that threshold (PatchCore's Figures S1 and S2)::

    python benchmarks/score_maps.py BTech_Dataset_transformed --dataset btad --category 01 \
        --method reconpatch --set backbone=skad_nano --out pictures
    python benchmarks/score_maps.py mvtec_ad --dataset mvtec_ad --category screw --preset patchcore-25 \
        --mistakes --out pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from skad.benchmark import PRESETS, build_detector
from skad.benchmark._grid import parse_grid
from skad.benchmark._preset import METHODS
from skad.benchmark._rows import with_defaults
from skad.datasets import DATASETS, read_mask
from skad.inspection import HeatmapDisplay
from skad.metrics import PixelCounts, f1_optimal_threshold

# Images whose maps are in memory at a time.
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    methods = [name for name in METHODS if name != "fusion"]
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--dataset", choices=DATASETS, default="folder", help="layout of the folder"
    )
    parser.add_argument("--category")
    parser.add_argument("--method", choices=methods, default="reconpatch", help="skad's defaults")
    parser.add_argument(
        "--preset", choices=PRESETS, metavar="NAME", help="a row of a paper instead"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="changed parameters"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=6, help="images at most")
    parser.add_argument("--mistakes", action="store_true", help="those judged wrongly")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for pictures")
    args = parser.parse_args()
    data = DATASETS[args.dataset].load(args.folder, args.category)
    preset = PRESETS[args.preset] if args.preset else with_defaults(args.method)
    changes = {name: values[0] for name, values in parse_grid(args.set).items()}
    detector = build_detector(preset, data.category, args.seed, changes).fit(data.X_train)
    args.out.mkdir(parents=True, exist_ok=True)
    draw = draw_mistakes if args.mistakes else draw_defects
    for name, display in draw(detector, data, args.show):
        path = args.out / f"{name}-{args.preset or args.method}-{data.category}.png"
        display.figure_.savefig(path, dpi=80)
        print(path)


def draw_defects(detector: Any, data: Any, n: int) -> list[tuple[str, HeatmapDisplay]]:
    """Defective images, evenly over the kinds of defects, with the threshold of all pixels."""
    bad = np.flatnonzero(np.asarray(data.y_test) == -1)
    chosen = bad[np.linspace(0, len(bad) - 1, min(n, len(bad))).round().astype(int)]
    threshold, said = pixel_threshold(detector, data)
    print(f"threshold of the outlines: {threshold:.4g}, {said}")
    return [("maps", display(detector, data, chosen, threshold))]


def pixel_threshold(detector: Any, data: Any) -> tuple[float, str]:
    """Choose the threshold with the best F1 of the pixels; the detector's own without masks."""
    good = np.asarray(data.y_test) == 1
    if any(mask is None and not ok for mask, ok in zip(data.masks_test, good, strict=True)):
        return float(detector.heatmap_threshold_), "the detector's own, for want of masks"
    counts = PixelCounts()
    for i in range(0, len(good), BATCH):
        maps = detector.predict_heatmap(data.X_test[i : i + BATCH])
        masks = data.masks_test[i : i + BATCH]
        counts.update([None if m is None else read_mask(m) for m in masks], maps)
    curves = counts.curves()
    total = curves.precision + curves.recall
    f1 = 2 * curves.precision * curves.recall / np.where(total > 0, total, 1)
    best = int(np.argmax(f1))
    return float(curves.thresholds[best]), f"pixel F1 {f1[best]:.3f}"


def draw_mistakes(detector: Any, data: Any, n: int) -> list[tuple[str, HeatmapDisplay]]:
    """Draw false alarms and missed defects, the worst first."""
    scores = detector.score_samples(data.X_test)
    report = f1_optimal_threshold(data.y_test, scores)
    is_called, is_bad = scores < report.threshold, np.asarray(data.y_test) == -1
    print(f"{report.false_positives} false alarms, {report.false_negatives} missed defects")
    order = {
        "false-alarms": [i for i in np.argsort(scores) if is_called[i] and not is_bad[i]],
        "missed": [i for i in np.argsort(-scores) if is_bad[i] and not is_called[i]],
    }
    return [
        (name, display(detector, data, np.asarray(found[:n]), -report.threshold, own_scale=True))
        for name, found in order.items()
        if found
    ]


def display(
    detector: Any, data: Any, chosen: np.ndarray, threshold: float, own_scale: bool = False
) -> HeatmapDisplay:
    """Images of the test part with outlines; on a scale that ends at the threshold if so asked."""
    files = [data.X_test[i] for i in chosen]
    return HeatmapDisplay.from_predictions(
        files,
        list(detector.predict_heatmap(files)),
        threshold=threshold,
        titles=[f"{data.defects_test[i]}, {Path(data.X_test[i]).name}" for i in chosen],
        masks=[
            None if data.masks_test[i] is None else read_mask(data.masks_test[i]) for i in chosen
        ],
        vmax=threshold if own_scale else None,
    )


if __name__ == "__main__":
    main()
