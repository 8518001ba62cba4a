"""Time PatchCore step by step against its floor: the backbone's bare forward pass.

Extraction, coreset at 1 % and 10 % (beside the plain loop of bench_coreset.py), scoring with a 1 % bank
and the peak memory of a fit; on a GPU also how far its scores are from the CPU's. Images are generated,
weights are random: times do not depend on either. Opponents run in turn, medians are compared. Scoring
is timed from the user's array to the scores, several batches (``--stream``) per call.

    python benchmarks/bench_patchcore.py
    python benchmarks/bench_patchcore.py --backbone resnet18 --images 100 --threads 1
    python benchmarks/bench_patchcore.py --device cuda --precision bfloat16 --batches 1 8 64 --stream 16
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_coreset import compare
from timing import name_of, timed

from skad import PatchCoreDetector
from skad._bank import projection_matrix
from skad._features._timm import import_timm
from skad._torch.devices import autocast

SIZE = 224


def make_images(n: int) -> np.ndarray:
    """Textured images: (n, SIZE, SIZE, 3) uint8."""
    rng = np.random.default_rng(0)
    wave = 110 + 50 * np.sin(np.arange(SIZE) / 5)[None, :, None]
    images = np.empty((n, SIZE, SIZE, 3), dtype=np.uint8)
    # One by one: a large array of floats in passing would hide what a fit takes.
    for image in images:
        noise = rng.normal(0, 25, size=(SIZE // 4, SIZE // 4, 3)).repeat(4, 0).repeat(4, 1)
        image[:] = np.clip(wave + noise, 0, 255)
    return images


def make_detector(args: argparse.Namespace, **params) -> PatchCoreDetector:
    return PatchCoreDetector(
        args.backbone,
        weights=None,
        image_size=SIZE,
        aggregation=args.aggregation,
        precision=args.precision,
        device=args.device,
        batch_size=max(args.batches),
        random_state=0,
        n_jobs=1,
        **params,
    )


def bare_forward(args: argparse.Namespace) -> Callable[[torch.Tensor], object]:
    """Build the backbone as timm has it, without anything of skad's."""
    model = import_timm().create_model(args.backbone, features_only=True, out_indices=(2, 3)).eval()
    model = model.to(args.device, memory_format=torch.channels_last)
    device = torch.device(args.device)

    def run(images: torch.Tensor) -> object:
        with torch.inference_mode(), autocast(device, args.precision):
            return model(images)

    return run


def against_forward(
    args: argparse.Namespace, title: str, n: int, n_batches: int, ours: Callable[[], object]
) -> None:
    """Print milliseconds per image of what skad does with batches of n, beside bare forward passes."""
    batch = torch.rand(n, 3, SIZE, SIZE, device=args.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    forward = bare_forward(args)

    def floor() -> None:
        for _ in range(n_batches):
            forward(batch)

    opponents = (floor, ours)
    for _ in range(3):  # the first calls try the batch size out
        for opponent in opponents:
            opponent()
    rows = [[timed(opponent, args.device)[0] for opponent in opponents] for _ in range(9)]
    ratio = statistics.median(own / floor for floor, own in rows)
    least, own = (
        1000 / n / n_batches * statistics.median(column) for column in zip(*rows, strict=True)
    )
    print(
        f"{title}, batch {n:<3} {own:8.3f} ms/image ({1000 / own:,.0f} a second)  "
        f"bare forward {least:8.3f}  {ratio:5.2f}"
    )


def time_extraction(args: argparse.Namespace, images: np.ndarray) -> None:
    extractor = make_detector(args, contamination=0.1).fit(images[:8])._find_network()
    for n in args.batches:
        pixels = np.ascontiguousarray(images[:n])
        against_forward(args, "extraction", n, 1, partial(extractor.embed, pixels))


def time_scoring(args: argparse.Namespace, images: np.ndarray, detector: PatchCoreDetector) -> None:
    title = f"scoring, {len(detector.bank_.vectors)} vectors"
    for n in args.batches:
        detector.set_params(batch_size=n)
        stream = images[np.arange(n * args.stream) % len(images)]
        against_forward(args, title, n, args.stream, partial(detector.score_samples, stream))


def compare_with_cpu(detector: PatchCoreDetector, images: np.ndarray) -> None:
    here = detector.score_samples(images)
    device, on_cpu = detector.device, detector.set_params(device="cpu").score_samples(images)
    detector.set_params(device=device)
    deviation = np.max(np.abs(here / on_cpu - 1))
    print(f"scores of {len(images)} images deviate from the CPU's by {deviation:.1e} at most")


def peak_mb() -> float:
    """Peak memory of this program (Linux); getrusage would count what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_memory(args: argparse.Namespace) -> None:
    """Peak memory of a fit, in a process of its own, beyond that of a fit on eight images."""
    for limit in args.limits:
        command = [sys.executable, __file__, "--memory-of-fit", limit]
        command += ["--backbone", args.backbone, "--images", str(args.images)]
        command += ["--aggregation", args.aggregation]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="")


def report_memory(args: argparse.Namespace) -> None:
    images = make_images(args.images)
    limit = None if args.memory_of_fit == "None" else args.memory_of_fit
    small = make_detector(args, contamination=0.1).fit(images[:8])
    before = peak_mb()
    detector = make_detector(args, max_memory=limit).fit(images)
    whole = (
        args.images
        * np.prod(small._find_network().grid)
        * detector.bank_.vectors.shape[1]
        * 4
        / 2**20
    )
    beyond = peak_mb() - before
    print(
        f"memory of a fit, max_memory={limit}: {beyond:.0f} MB beyond the backbone's {before:.0f} MB, "
        f"{beyond / whole:.2f} of N x d x 4 bytes = {whole:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="wide_resnet50_2")
    parser.add_argument("--aggregation", default="concat", choices=["concat", "adaptive"])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--stream", type=int, default=1, help="batches scored in one call")
    parser.add_argument("--limits", nargs="*", default=["None", "100MB"], help="max_memory of fits")
    parser.add_argument("--memory-of-fit", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_of_fit is not None:
        report_memory(args)
        return
    images = make_images(args.images)
    print(
        f"{args.backbone}, {args.aggregation}, {args.precision}, {args.images} images of {SIZE} px, "
        f"{name_of(args.device)}"
    )
    time_extraction(args, images)
    detector = make_detector(args)
    print(f"fit, 1 %              {timed(partial(detector.fit, images), args.device)[0]:7.2f} s")
    time_scoring(args, images, detector)
    if args.device == "cpu":
        measure_memory(args)
    else:
        compare_with_cpu(detector, images[:16])
    embed_and_compare(args, detector, images)


def embed_and_compare(args: argparse.Namespace, detector: PatchCoreDetector, images) -> None:
    """Coreset on the real projections of these images, against the plain loop."""
    extractor = detector._find_network()
    rows = torch.cat([extractor.embed(images[i : i + 8]) for i in range(0, len(images), 8)])
    matrix = projection_matrix(extractor.dim, 128, torch.Generator().manual_seed(0))
    projected = rows.flatten(0, 1) @ matrix.to(rows.device).T
    del rows
    print(f"coreset of {len(projected)} vectors projected to {projected.shape[1]} dimensions")
    for ratio in (0.01, 0.1):
        compare(projected, ratio, args.repeats if ratio < 0.1 else 1)


if __name__ == "__main__":
    main()
