r"""Seconds a training step of ReContrast, and milliseconds an image of scoring, on random pixels.

Run, for instance::

    python benchmarks/bench_recontrast.py --backbone resnet18 --image-size 128 --batch-size 16
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from skad import ReContrastDetector
from skad._learning import ReContrastTraining


def seconds_a_step(args: argparse.Namespace, **params: object) -> list[float]:
    """Fit on random images; time every step but the first two."""
    times: list[float] = []
    step = ReContrastTraining.step

    def timed(self: ReContrastTraining, pixels: torch.Tensor) -> None:
        start = time.perf_counter()
        step(self, pixels)
        if pixels.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)

    rng = np.random.default_rng(0)
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    detector = ReContrastDetector(
        args.backbone,
        weights=None,
        image_size=args.image_size,
        batch_size=args.batch_size,
        max_iter=args.steps + 2,
        validation_fraction=0.0,
        contamination=0.5,
        device=args.device,
        random_state=0,
        **params,
    )
    ReContrastTraining.step = timed  # type: ignore[method-assign]
    try:
        detector.fit(images)
    finally:
        ReContrastTraining.step = step  # type: ignore[method-assign]
    start = time.perf_counter()
    detector.score_samples(images)
    scoring = 1000 * (time.perf_counter() - start) / len(images)
    print(f"{params}: {np.median(times[2:]):.3f} s a step, scoring {scoring:.1f} ms an image")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {args.backbone}, {args.batch_size} images a step")
    for precision in ("float32", "bfloat16"):
        seconds_a_step(args, train_precision=precision)
        seconds_a_step(args, train_precision=precision, train_encoder=False, pairs="own")


if __name__ == "__main__":
    main()
