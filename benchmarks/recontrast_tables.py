r"""ReContrast on local data: its ablations (Table 6), maps (Table A6), batch norms and precisions.

A row is a setting of the detector, fitted on the good training images of folders in MVTec layout and
measured on their test images; figures are means over seeds. Run, for instance::

    python benchmarks/recontrast_tables.py parts/* --rows untrained B full \
        --backbone resnet18 --weights resnet18.safetensors --image-size 128 --iterations 200

Training and scoring are timed; ``--threads`` sets the threads of torch.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from skad import ReContrastDetector
from skad.metrics import pixel_auroc

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from inspect_folder import print_row, read_masks
from reconpatch_tables import coarse_heatmaps, load_part

OWN = {"pairs": "own"}
FROZEN = {"pairs": "own", "train_encoder": False}
PLAIN = {"hard_mining": False}
ROWS: dict[str, dict[str, Any]] = {
    # Table 6.
    "A": {**FROZEN, **PLAIN, "loss": "regional"},
    "B": {**FROZEN, **PLAIN},
    "B+hm": FROZEN,
    "C": {**OWN, **PLAIN, "stop_gradient": False},
    "C+cp": {**PLAIN, "stop_gradient": False},
    "D": {**OWN, **PLAIN},
    "E-gl": {**PLAIN, "loss": "regional"},
    "E": PLAIN,
    "full": {},
    # Before the training.
    "untrained": {"max_iter": 0},
    # Batch norms of the adapting encoder.
    "bn=eval": {"bn": "eval"},
    "bn=stable": {"bn": "stable"},
    # Precision of the training.
    "float32": {"train_precision": "float32"},
    "bfloat16": {"train_precision": "bfloat16"},
}


def measure(detector: ReContrastDetector, data: Any) -> dict[str, float]:
    """Fit on a data set: AUROCs from all maps and from either half, seconds a training step."""
    start = time.perf_counter()
    detector.fit(data.X_train)
    figures = {"fit": time.perf_counter() - start, "diversity": diversity(detector)}
    for maps in ("both", "frozen", "trained") if detector.pairs == "cross" else ("both",):
        # A view of the same network; its threshold is not asked for.
        detector._params_at_fit["maps"] = detector.maps = maps
        heatmaps, scores = coarse_heatmaps(detector, data.X_test)
        figures[maps] = float(roc_auc_score(data.y_test, scores))
        masks = read_masks(data, heatmaps)
        if maps == "both" and masks is not None:
            coarse = [
                m if m.shape == h.shape else m[::4, ::4]
                for m, h in zip(masks, heatmaps, strict=True)
            ]
            figures["pixel"] = pixel_auroc(coarse, heatmaps)
    return figures


def diversity(detector: ReContrastDetector) -> float:
    """Last feature diversity of the encoder, as a share of the first."""
    curve = detector.feature_diversity_
    return float(curve[-1] / curve[0]) if len(curve) else float("nan")


def cell(figures: list[dict[str, float]]) -> str:
    image = np.mean([f["both"] for f in figures])
    pixel = np.mean([f.get("pixel", np.nan) for f in figures])
    return f"{image:.3f}" + ("" if np.isnan(pixel) else f" / {pixel:.3f}")


def mean_of(name: str, figures: list[dict[str, float]]) -> str:
    values = [f[name] for f in figures if not np.isnan(f.get(name, np.nan))]
    return f"{np.mean(values):.3f}" if values else ""


def run_row(name: str, args: argparse.Namespace, sets: list[Any]) -> None:
    """Print a row: image / pixel AUROC a set, means, and what the training cost."""
    per_set: list[list[dict[str, float]]] = []
    for data in sets:
        per_set.append([])
        for seed in args.seeds:
            params = {"max_iter": args.iterations, "bn": args.bn, **ROWS[name]}
            detector = ReContrastDetector(
                args.backbone,
                weights=args.weights,
                image_size=args.image_size,
                # All good images are trained on, as in the published tables.
                validation_fraction=0.0,
                contamination=0.05,
                random_state=seed,
                device=args.device,
                **params,
            )
            per_set[-1].append(measure(detector, data))
            if args.verbose:
                print(name, data.category, seed, per_set[-1][-1], file=sys.stderr, flush=True)
    everything = [figures for column in per_set for figures in column]
    means = [mean_of(n, everything) for n in ("both", "pixel", "frozen", "trained", "diversity")]
    seconds = np.mean([f["fit"] for f in everything])
    print_row([name, *map(cell, per_set), *means, f"{seconds:.0f}"], markdown=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders in MVTec layout")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["untrained", "B", "full"])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a weights file")
    parser.add_argument("--images", type=int, help="training images a set, spread evenly; all")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--bn", default="train", help="for rows that do not say it")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--verbose", action="store_true", help="every single fit")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", "target_false_alarm_rate", UserWarning)
    sets = [load_part(folder, args.images) for folder in args.folders]
    names = [data.category for data in sets]
    columns = [*names, "image", "pixel", "frozen maps", "trained maps", "diversity", "fit, s"]
    print_row(["row", *columns], markdown=True)
    print_row(["---"] * (1 + len(columns)), markdown=True)
    for name in args.rows:
        run_row(name, args, sets)


if __name__ == "__main__":
    main()
