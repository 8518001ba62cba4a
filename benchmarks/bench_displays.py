"""Seconds that pictures of one large image take, beside the score and the heat map of it."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import name_of, timed

from skad import PatchCoreDetector
from skad.inspection import HeatmapDisplay, report


def make_images(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small good images, a large one with a bright square, and the mask of that."""
    rng = np.random.default_rng(0)
    good = rng.integers(90, 130, (12, 64, 64, 3), dtype=np.uint8)
    shades = rng.integers(90, 130, (40, 60, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(shades).resize((width, height))).copy()
    mask = np.zeros((height, width), dtype=np.uint8)
    square = slice(height // 4, height // 3), slice(width // 2, width // 2 + height // 12)
    large[square], mask[square] = 250, 255
    return good, large, mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--width", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    good, large, mask = make_images(args.height, args.width)
    det = PatchCoreDetector(
        "skad_nano", image_size=64, coreset_size=0.25, target_false_alarm_rate=0.2, random_state=0
    ).fit(good)
    with tempfile.TemporaryDirectory() as folder:
        file, page = str(Path(folder) / "large.png"), Path(folder) / "report.html"
        Image.fromarray(large).save(file, compress_level=1)

        def draw() -> None:
            display = HeatmapDisplay.from_estimator(det, [file], masks=[mask])
            display.figure_.savefig(Path(folder) / "display.png")

        tasks: dict[str, Callable[[], Any]] = {
            "score_samples": lambda: det.score_samples([file]),
            "predict_heatmap": lambda: det.predict_heatmap([file]),
            "HeatmapDisplay, drawn and saved": draw,
            "report": lambda: report(det, [file], path=page),
            "report with ground truth": lambda: report(det, [file], [-1], [mask], path=page),
        }
        print(f"{args.height} x {args.width} pixels, {name_of('cpu')}\n")
        print("| one image | seconds |\n|---|---|")
        for name, task in tasks.items():
            task()  # what is imported and built once
            seconds = statistics.median(timed(task)[0] for _ in range(args.repeats))
            print(f"| {name} | {seconds:.3g} |", flush=True)


if __name__ == "__main__":
    main()
