r"""ReContrast in training: landscape of its map (Figure 4); AUROC, loss, diversity (Figure 5 a, b).

``landscape`` moves the parameters along two random directions, in proportion to the length of every
filter, and draws the mean of the map over the test images. The paper's grid has 50 steps a side over a
distance of 1 (in norms of the parameters). ``curves`` scores after each of the ``--steps``: one training
goes on by ``warm_start``, so that the level of hard mining rises over a tenth of the first of them.
Loss and diversity (``feature_diversity_``) are means over the steps since the point before::

    python benchmarks/recontrast_figures.py landscape APTOS --dataset aptos --rows A B --out pictures
    python benchmarks/recontrast_figures.py curves APTOS --dataset aptos --rows A B C D E \
        --steps 50 100 200 400 600 800 1000 --out pictures
    python benchmarks/recontrast_figures.py curves parts/bottle --rows B --steps 10 20 40 \
        --set backbone=skad_nano image_size=64 batch_size=8 --out pictures
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from skad._images import as_image_source, iter_batches
from skad._learning.recontrast_network import ReContrastNetwork, anomaly_map
from skad.benchmark import PRESETS, build_detector
from skad.benchmark._grid import parse_grid
from skad.datasets import DATASETS
from skad.metrics import image_auroc

ROWS = [name.removeprefix("recontrast-") for name in PRESETS if name.startswith("recontrast-")]
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    analyses = {"landscape": landscape, "curves": curves}
    parser.add_argument("analysis", choices=analyses)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--dataset", choices=DATASETS, default="folder", help="layout of the folder"
    )
    parser.add_argument("--category")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["A", "B"], metavar="NAME")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="changed parameters"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=16, help="landscape: test images")
    parser.add_argument("--grid", type=int, default=50, help="landscape: steps a side")
    parser.add_argument("--distance", type=float, default=1.0, help="landscape: length of a side")
    parser.add_argument(
        "--steps", nargs="+", type=int, default=[100, 500, 1000, 2000], help="curves"
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder for pictures")
    args = parser.parse_args()
    data = DATASETS[args.dataset].load(args.folder, args.category)
    args.out.mkdir(parents=True, exist_ok=True)
    print(analyses[args.analysis](data, args))


def detector_of(row: str, data: Any, args: argparse.Namespace) -> Any:
    changes = {name: values[0] for name, values in parse_grid(args.set).items()}
    return build_detector(PRESETS[f"recontrast-{row}"], data.category, args.seed, changes)


def some_pixels(detector: Any, data: Any, n: int) -> list[torch.Tensor]:
    """Batches of test images on the detector's canvas, evenly over the list."""
    chosen = np.linspace(0, len(data.X_test) - 1, min(n, len(data.X_test))).round().astype(int)
    files = as_image_source([data.X_test[i] for i in chosen])
    batches = iter_batches(files, detector.geometry_, BATCH)
    return [torch.from_numpy(batch.pixels.copy()) for batch in batches]


# ---- landscape ------------------------------------------------------------------------------------


def landscape(data: Any, args: argparse.Namespace) -> Path:
    offsets = np.linspace(-args.distance / 2, args.distance / 2, args.grid)
    figure = plt.figure(figsize=(5 * len(args.rows), 4.5), layout="constrained")
    for i, row in enumerate(args.rows):
        detector = detector_of(row, data, args).fit(data.X_train)
        network = detector._as_fitted()._trained_network().eval()
        batches = some_pixels(detector, data, args.images)
        heights = plane(network, offsets, lambda net, b=batches: mean_map(net, b), args.seed)
        np.save(args.out / f"landscape-{row}.npy", heights)
        middle = heights[len(offsets) // 2, len(offsets) // 2]
        print(
            f"{row}: mean map {middle:.4f} in the middle, {heights.min():.4f} to {heights.max():.4f}"
        )
        panel = figure.add_subplot(1, len(args.rows), i + 1, projection="3d")
        panel.plot_surface(*np.meshgrid(offsets, offsets), heights, cmap="viridis")
        panel.set(title=row)
    return saved(figure, args.out / f"landscape-{data.category}.png")


def plane(
    network: torch.nn.Module,
    offsets: np.ndarray,
    measure: Callable[[Any], float],
    seed: int,
) -> np.ndarray:
    """Measure a network at every point of a plane through its parameters; they are put back."""
    parameters = list(network.parameters())
    middle = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(seed)
    first, second = (direction(middle, generator) for _ in range(2))
    heights = np.empty((len(offsets), len(offsets)))
    with torch.no_grad():
        for i, a in enumerate(offsets):
            for j, b in enumerate(offsets):
                for p, start, d, e in zip(parameters, middle, first, second, strict=True):
                    p.copy_(start + float(a) * d + float(b) * e)
                heights[i, j] = measure(network)
        for p, start in zip(parameters, middle, strict=True):
            p.copy_(start)
    return heights


def direction(parameters: list[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Draw a direction, in proportion to the length of each filter, as long as all parameters."""
    parts = []
    for p in parameters:
        drawn = torch.randn(p.shape, generator=generator)
        axes = tuple(range(1, p.ndim))
        lengths = [x.pow(2).sum(axes, keepdim=True).sqrt() if axes else x.abs() for x in (p, drawn)]
        parts.append(drawn * lengths[0] / lengths[1].clamp_min(1e-10))
    scale = norm(parameters) / max(norm(parts), 1e-10)
    return [part * scale for part in parts]


def norm(tensors: list[torch.Tensor]) -> float:
    return float(sum(t.pow(2).sum() for t in tensors)) ** 0.5


def mean_map(network: ReContrastNetwork, batches: list[torch.Tensor]) -> float:
    maps = [anomaly_map(*network(pixels), pixels.shape[1:3]).flatten() for pixels in batches]
    return float(torch.cat(maps).mean())


# ---- curves ---------------------------------------------------------------------------------------


def curves(data: Any, args: argparse.Namespace) -> Path:
    figure, panels = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    print("| row | steps | image AUROC | loss | diversity |", "| --- " * 5 + "|", sep="\n")
    with (args.out / f"training-{data.category}.jsonl").open("w") as file:
        for row in args.rows:
            points = trained(row, data, args)
            for point in points:
                file.write(json.dumps(point) + "\n")
            for name, panel in zip(("image_auroc", "loss", "diversity"), panels, strict=True):
                panel.plot([p["steps"] for p in points], [p[name] for p in points], "o-", label=row)
                panel.set(title=name.replace("_", " "), xlabel="steps")
    panels[0].legend()
    return saved(figure, args.out / f"training-{data.category}.png")


def trained(row: str, data: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on, and measure after each number of steps."""
    detector = detector_of(row, data, args).set_params(warm_start=True)
    points: list[dict[str, Any]] = []
    for steps in sorted(args.steps):
        detector.set_params(max_iter=steps).fit(data.X_train)
        since = points[-1]["steps"] if points else 0
        point = {
            "row": row,
            "steps": steps,
            "image_auroc": image_auroc(data.y_test, detector.score_samples(data.X_test)),
            "loss": float(detector.loss_curve_[since:].mean()),
            "diversity": float(detector.feature_diversity_[since:].mean()),
        }
        points.append(point)
        cells = [f"{point[name]:.4f}" for name in ("image_auroc", "loss", "diversity")]
        print(f"| {row} | {steps} | {' | '.join(cells)} |", flush=True)
    return points


def saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
