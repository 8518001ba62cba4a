r"""Image AUROC of PatchCore beside anomalib's, on sets in MVTec layout.

Both see the same pixels and weights with the same settings, and each chooses a bank of its own; a third
column is skad with its own defaults. `against_anomalib.py` times the two, and makes the environment that
anomalib runs in (``--venv``)::

    python benchmarks/accuracy_beside_anomalib.py sets/* --weights resnet18.safetensors --images 60
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from against_anomalib import (
    BATCH,
    LAYERS,
    NEIGHBOURS,
    REPOSITORY,
    SIZE,
    load_weights,
    make_environment,
)

HERE = Path(__file__).resolve()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*", help="sets in MVTec layout")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", help="a safetensors file")
    parser.add_argument("--images", type=int, help="training images, at most; all")
    parser.add_argument("--fraction", type=float, default=0.01, help="of the patches that is kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--anomalib", default="2.7.0", metavar="VERSION")
    parser.add_argument("--venv", type=Path, default=REPOSITORY / "build" / "anomalib")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(score_by_anomalib(args.job)))
        return
    if not args.folders or args.weights is None:
        parser.error("folders and --weights are needed: random weights say nothing")
    python = make_environment(args.venv, args.anomalib)
    print(
        "| set | anomalib | skad, same settings | skad, its defaults |",
        "| --- " * 4 + "|",
        sep="\n",
    )
    for path in args.folders:
        with tempfile.TemporaryDirectory() as folder:
            compare(path, args, python, Path(folder))


def compare(path: Path, args: argparse.Namespace, python: Path, folder: Path) -> None:
    """Print a line of the table."""
    from skad._images import Geometry, as_image_source, iter_batches
    from skad.datasets import load_folder
    from skad.metrics import image_auroc

    data = load_folder(path)
    n = min(args.images or len(data.X_train), len(data.X_train))
    chosen = np.linspace(0, len(data.X_train) - 1, n).round().astype(int)
    names = ("backbone", "weights", "fraction", "seed")
    job = {name: getattr(args, name) for name in names}
    for name, files in (("images", [data.X_train[i] for i in chosen]), ("new", data.X_test)):
        batches = iter_batches(as_image_source(files), Geometry("squash", SIZE, None), BATCH)
        job[name] = str(folder / f"{name}.npy")
        np.save(job[name], np.concatenate([batch.pixels for batch in batches]))
    scores = [-np.asarray(run_anomalib(job, python)), *score_by_skad(job)]
    cells = [f"{image_auroc(data.y_test, of_one):.4f}" for of_one in scores]
    print(f"| {path.name} | {' | '.join(cells)} |", flush=True)


def run_anomalib(job: dict[str, Any], python: Path) -> list[float]:
    """Score in a process of anomalib's environment; return anomaly scores."""
    command = [python, HERE, "--job", json.dumps(job)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"anomalib failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def score_by_anomalib(job: dict[str, Any]) -> list[float]:
    """Fit on one array of pixels and score those of another."""
    import torch

    sys.path.insert(0, str(REPOSITORY))
    from skad._features._timm import _import_torchvision

    # Declares what a torchvision of another build lacks; does nothing where it lacks nothing.
    _import_torchvision()
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # noqa: NPY002 - theirs may draw from either
    layers = [f"layer{layer}" for layer in LAYERS]
    model = PatchcoreModel(layers, job["backbone"], False, NEIGHBOURS)
    load_weights(model.feature_extractor.feature_extractor, job["weights"])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def forward(name: str) -> list[Any]:
        pixels = np.load(job[name])
        portions = [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]
        tensors = (torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255 for part in portions)
        with torch.inference_mode():
            return [model((part - mean) / std) for part in tensors]

    model.train()
    model.feature_extractor.eval()
    forward("images")
    with torch.inference_mode():
        model.subsample_embedding(job["fraction"])
    model.eval()
    return [float(score) for part in forward("new") for score in part.pred_score]


def score_by_skad(job: dict[str, Any]) -> list[np.ndarray]:
    """Fit and score twice: with anomalib's settings, and with skad's defaults at the same size."""
    from skad import PatchCoreDetector

    shared = {"weights": job["weights"], "image_size": SIZE, "random_state": job["seed"]}
    same = {
        "layers": LAYERS,
        "b": NEIGHBOURS,
        "coreset_size": job["fraction"],
        "whitening": 0.0,
        "image_score": "patch",
        "contamination": 0.1,
    }
    images, new = np.load(job["images"]), np.load(job["new"])
    return [
        PatchCoreDetector(job["backbone"], **shared, **settings).fit(images).score_samples(new)
        for settings in (same, {})
    ]


if __name__ == "__main__":
    main()
