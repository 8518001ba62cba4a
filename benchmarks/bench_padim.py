"""Time PaDiM against anomalib's and against the bare network: same images and weights.

anomalib is installed from PyPI into a virtual environment of its own, as by ``against_anomalib.py``,
which also says what the seconds are. The libraries take turns, each run in a process of its own;
medians and the medians of ratios are printed. skad's fit includes the threshold, for which every image
is scored without itself; anomalib's has none. "bare" is the network's forward pass up to the same layer,
as skad runs it. In the end skad fits on the channels that anomalib has drawn: distances must agree.

    python benchmarks/bench_padim.py
    python benchmarks/bench_padim.py --weights resnet18.safetensors --images parts/train/good
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from against_anomalib import (
    BATCH,
    REPOSITORY,
    load_weights,
    make_environment,
    peak_mb,
    prepare,
    seconds,
    time_scoring,
)
from against_anomalib import run as run_library

LAYERS = (1, 2, 3)
HERE = Path(__file__).resolve()


def run_skad(job: dict) -> dict[str, float]:
    """Time skad; and fit on the channels of anomalib, where they have been saved."""
    import numpy as np
    import torch

    from skad import PaDiMDetector

    images, new = np.split(np.load(job["images"]), [job["number"]])
    detector = PaDiMDetector(
        job["backbone"],
        weights=job["weights"],
        layers=LAYERS,
        n_features=job["features"],
        batch_size=BATCH,
        n_jobs=1,
        random_state=0,
    )
    detector.set_params(contamination=0.1).fit(images[:BATCH]).set_params(contamination="auto")
    fit = seconds(lambda: detector.fit(images))

    def with_maps(portion: np.ndarray) -> Any:
        return detector.predict_heatmap(portion, return_scores=True)

    net = detector._as_fitted()._network.net

    def bare(portion: np.ndarray) -> Any:
        with torch.inference_mode():
            return net(torch.from_numpy(portion))

    figures = {
        "fit, s": fit,
        **time_scoring("scores and maps", with_maps, new),
        **time_scoring("scores", detector.score_samples, new),
        **{
            f"{name}, batch {n}, times the bare network": times_the_bare(score, bare, new, n)
            for name, score in (("scores", detector.score_samples), ("scores and maps", with_maps))
            for n in (1, BATCH)
        },
        "peak memory, MB": peak_mb(),
    }
    if Path(job["bank"]).exists():
        theirs = np.load(job["bank"])
        figures["deviation"] = compare_distances(detector, images, new[:BATCH], theirs)
    return figures


def times_the_bare(score: Any, bare: Any, images: Any, batch: int) -> float:
    """Median ratio of two functions that take turns on portions of images."""
    ratios = []
    for i in range(len(images) // BATCH):
        portion = images[i * BATCH : i * BATCH + batch]
        ours, network = (seconds(partial(function, portion)) for function in (score, bare))
        ratios.append(ours / network)
    return statistics.median(ratios[1:])


def compare_distances(detector: Any, images: Any, new: Any, theirs: Any) -> float:
    """Return the largest deviation of distances from anomalib's, relative to the largest of them."""
    import numpy as np

    type(detector)._draw_channels = lambda self: np.sort(theirs["channels"])
    # What anomalib adds to the diagonal, twice.
    detector.set_params(regularization=0.01 + 1e-5).fit(images)
    now = detector._as_fitted()
    found = [scores.grid for _, scores in now._iter_scores(new, maps=True)]
    grids = np.concatenate(found)
    return float(np.abs(grids - theirs["distances"]).max() / theirs["distances"].max())


def run_anomalib(job: dict) -> dict[str, float]:
    """Time anomalib; and save its channels, and the distances of some new images."""
    import numpy as np
    import torch

    # Declares what a torchvision of another build lacks; does nothing where it lacks nothing.
    sys.path.insert(0, str(REPOSITORY))
    spec = importlib.util.spec_from_file_location(
        "shim", REPOSITORY / "skad" / "_features" / "_timm.py"
    )
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    shim._import_torchvision()
    from anomalib.models.image.padim.torch_model import PadimModel

    images, new = np.split(np.load(job["images"]), [job["number"]])
    model = PadimModel(
        layers=[f"layer{layer}" for layer in LAYERS],
        backbone=job["backbone"],
        pre_trained=False,
        n_features=job["features"],
    )
    load_weights(model.feature_extractor.feature_extractor, job["weights"])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def forward(portion: np.ndarray) -> Any:
        pixels = torch.from_numpy(portion).permute(0, 3, 1, 2).float().div_(255)
        with torch.inference_mode():
            return model((pixels - mean) / std)

    def fit() -> None:
        model.train()
        model.feature_extractor.eval()
        model.memory_bank.clear()
        for i in range(0, len(images), BATCH):
            forward(images[i : i + BATCH])
        with torch.inference_mode():
            model.fit()

    fit_time = seconds(fit)
    model.eval()
    times = time_scoring("scores and maps", forward, new)
    figures = {
        "fit, s": fit_time,
        **times,
        **{name.replace(" and maps", ""): value for name, value in times.items()},
        "peak memory, MB": peak_mb(),
    }
    np.savez(job["bank"], channels=model.idx.numpy(), distances=distances(model, new[:BATCH]))
    return figures


def distances(model: Any, images: Any) -> Any:
    """Compute the distances before they are enlarged and smoothed: (B, h, w)."""
    import torch

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    with torch.inference_mode():
        features = model.feature_extractor((pixels - mean) / std)
        embedding = model.generate_embedding(features)
        statistics_ = [model.gaussian.mean, model.gaussian.inv_covariance]
        return model.anomaly_map_generator.compute_distance(embedding, statistics_)[:, 0].numpy()


def compare(job: dict, python: Path, repeats: int, threads: int) -> None:
    """Let both run in turn, and print a table of medians."""
    rows = []
    for i in range(repeats):
        theirs = run_library(python, "anomalib", job, threads, HERE)
        rows.append((theirs, run_library(sys.executable, "skad", job, threads, HERE)))
        print(f"run {i + 1} of {repeats}", file=sys.stderr, flush=True)
    print("| | anomalib | skad | anomalib / skad |")
    print("| --- | --- | --- | --- |")
    for name in rows[0][0]:
        theirs, ours = ([row[i][name] for row in rows] for i in (0, 1))
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        print(
            f"| {name} | {statistics.median(theirs):.2f} | {statistics.median(ours):.2f} | {ratio:.2f} |"
        )
    for name in (name for name in rows[0][1] if name.endswith("bare network")):
        print(f"\n{name}: {statistics.median(row[1][name] for row in rows):.2f}")
    deviation = max(row[1]["deviation"] for row in rows)
    print(f"\ndistances on anomalib's channels deviate by {deviation:.1e} of the largest at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, help="good ones, of which the last 64 are scored; default: generated"
    )
    parser.add_argument("--number", type=int, default=100, help="of images to learn from")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", type=Path, help="default: random, the same for both")
    parser.add_argument("--features", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--anomalib", default="2.7.0", metavar="VERSION")
    parser.add_argument("--venv", type=Path, default=REPOSITORY / "build" / "anomalib")
    parser.add_argument("--run", choices=["skad", "anomalib"], help=argparse.SUPPRESS)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        print(json.dumps({"skad": run_skad, "anomalib": run_anomalib}[args.run](args.job)))
        return
    python = make_environment(args.venv, args.anomalib)
    args.projection = None
    with tempfile.TemporaryDirectory() as folder:
        job = {**prepare(args, Path(folder)), "features": args.features}
        compare(job, python, args.repeats, args.threads)


if __name__ == "__main__":
    main()
