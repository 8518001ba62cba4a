"""Milliseconds per image for canvases of several sizes, seen at once and tile by tile.

Score and map of images of 1,024 x 1,024 pixels from memory, one thread, medians; settings alternate, so
that what else the machine does hits all of them alike.

    OMP_NUM_THREADS=1 python benchmarks/bench_tiles.py --backbone skad_nano
    OMP_NUM_THREADS=1 python benchmarks/bench_tiles.py --backbone resnet18 --weights resnet18.safetensors
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from skad import PatchCoreDetector

SETTINGS: dict[str, dict] = {
    "224 px": {"image_size": 224},
    "320 px": {"image_size": 320},
    "448 px": {"image_size": 448},
    "512 px": {"image_size": 512},
    "2 x 2 tiles of 320 px (512 px)": {"image_size": 320, "tiles": (2, 2)},
    "704 px": {"image_size": 704},
    "3 x 3 tiles of 320 px (704 px)": {"image_size": 320, "tiles": (3, 3)},
    "native tiles of 640 px (1,024 px)": {"image_size": 640, "tiles": "native"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--side", type=int, default=1024, help="of the images, in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--settings", nargs="+", default=[*SETTINGS], choices=SETTINGS, help="rows")
    args = parser.parse_args()
    images = textures(7, args.side)
    detectors = {
        name: PatchCoreDetector(
            args.backbone, weights=args.weights, random_state=0, n_jobs=1,
            target_false_alarm_rate=0.2, **params,
        ).fit(images[:5])
        for name, params in SETTINGS.items()
        if name in args.settings
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(1 + args.rounds):
        for name, detector in detectors.items():
            start = time.perf_counter()
            detector.predict_heatmap(images[5:])
            seconds[name].append((time.perf_counter() - start) / 2)
    print(f"| {args.backbone} | ms per image |\n| --- | --- |")
    for name, measured in seconds.items():
        print(f"| {name} | {1000 * np.median(measured[1:]):.0f} |")  # the first warms up


def textures(n: int, side: int) -> np.ndarray:
    """Make images of smooth noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (n, side // 8, side // 8, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


if __name__ == "__main__":
    main()
