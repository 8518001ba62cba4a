"""Measure how well regions hug defects: blobs above the threshold, and regions as they are shaped.

For folders in MVTec layout with masks: regions of the first detector that skad had (1 % of the patches,
patch scores, all that is above the threshold of heat maps), and of today's defaults, at a threshold
that gives the same number of good test images a region; then today's at its own threshold. F1 of pixels
is that of all test images of a set together, which large defects decide, and the mean of the defective
images, in which an image without a region counts 0. Intervals: 95 %, of the gain over the first row,
from 1,000 bootstrap samples of the test images.

    python benchmarks/region_shapes.py PATH/mvtec_pill PATH/kolektor_sdd --backbone skad_nano
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skad import PatchCoreDetector, Regions
from skad._scoring import regions as shapes
from skad.datasets import load_folder, read_mask
from skad.metrics import region_report

FIRST = {"coreset_size": 0.01, "image_score": "patch"}


class Mapped(NamedTuple):
    """Test images as a detector maps them."""

    images: list[Any]
    peaks: np.ndarray
    threshold: float
    usual_peak: float

    @classmethod
    def of(cls, detector: PatchCoreDetector, X: list[str]) -> Mapped:
        """Score test images."""
        images = list(detector._as_fitted()._iter_maps(X))
        peaks = np.array([image.peak for image in images])
        usual = float(np.median(detector._calibration_peaks))
        return cls(images, peaks, detector.heatmap_threshold_, usual)

    def alarms(self, good: np.ndarray) -> int:
        """Count good images that have a region."""
        return int((self.peaks[good] > self.threshold).sum())

    def at_alarms(self, good: np.ndarray, n: int) -> Mapped:
        """Move the threshold so that n good images exceed it."""
        return self._replace(threshold=float(np.sort(self.peaks[good])[::-1][n]))

    def regions(self, usual_peak: float | None) -> Regions:
        """Find regions, shaped by the usual peak of a good image if there is one."""
        found = [
            shapes.regions_of(
                image.canvas, self.threshold, image.geometry, image.shape, usual_peak=usual_peak
            )
            for image in self.images
        ]
        return Regions(found, [image.shape for image in self.images])


def counts(masks: list[np.ndarray | None], regions: Regions) -> np.ndarray:
    """Pixels of each image that are defective and found, found, and defective: (n, 3)."""
    rows = []
    for i, mask in enumerate(masks):
        found = regions.mask(i)
        truth = np.zeros_like(found) if mask is None else mask
        rows.append([(truth & found).sum(), found.sum(), truth.sum()])
    return np.array(rows, dtype=float)


def f1_of_pixels(n: np.ndarray) -> float:
    both, found, defective = n.sum(axis=0)
    return 2 * both / (found + defective)


def f1_of_images(n: np.ndarray) -> float:
    both, found, defective = n[n[:, 2] > 0].T
    return float(np.mean(2 * both / (found + defective)))


def gain(measure: Any, new: np.ndarray, old: np.ndarray, seed: int = 0) -> str:
    """Difference of two measures of the same images, with an interval."""
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(new), size=len(new)) for _ in range(1000))
    differences = [measure(new[rows]) - measure(old[rows]) for rows in samples]
    low, high = np.quantile(differences, [0.025, 0.975])
    return f"{measure(new) - measure(old):+.3f} ({low:+.3f}, {high:+.3f})"


def rows_of(data: Any, params: dict[str, Any], seed: int) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Name, counts and report of each way to make regions."""
    good = np.asarray(data.y_test) == 1
    masks = [None if path is None else read_mask(path) for path in data.masks_test]

    def measured(name: str, regions: Regions) -> tuple[str, np.ndarray, Any]:
        return name, counts(masks, regions), region_report(masks, regions)

    fitted = [
        PatchCoreDetector(**{**params, **given}, random_state=seed).fit(data.X_train)
        for given in (FIRST, {})
    ]
    first, now = (Mapped.of(detector, data.X_test) for detector in fitted)
    n = first.alarms(good)
    yield measured(f"first detector, blobs, {n} of {good.sum()} alarms", first.regions(None))
    same = now.at_alarms(good, n)
    yield measured("today, blobs", same.regions(None))
    for reach in (9, 18, 36):
        with_reach = partial(reaching, reach)
        yield measured(f"today, half within {reach} px", with_reach(same))
    own = f"own threshold, {now.alarms(good)} of {good.sum()} alarms"
    yield measured(f"today, {own}, blobs", now.regions(None))
    yield measured(f"today, {own}", now.regions(now.usual_peak))


def best_in_hindsight(data: Any, params: dict[str, Any], seed: int) -> float:
    """F1 of pixels at the single threshold that is best for today's maps, chosen by the masks."""
    masks = [None if path is None else read_mask(path) for path in data.masks_test]
    detector = PatchCoreDetector(**params, random_state=seed).fit(data.X_train)
    mapped = Mapped.of(detector, data.X_test)
    values = np.concatenate([image.canvas[::4, ::4].ravel() for image in mapped.images])
    thresholds = np.quantile(values, np.linspace(0.8, 0.999, 25))
    return max(
        f1_of_pixels(counts(masks, mapped._replace(threshold=threshold).regions(None)))
        for threshold in thresholds
    )


def reaching(reach: int, mapped: Mapped) -> Regions:
    """Regions that are shaped by the highest value at most so many pixels away."""
    sharpen = shapes.sharpen
    shapes.sharpen = partial(sharpen, reach=reach)
    try:
        return mapped.regions(mapped.usual_peak)
    finally:
        shapes.sharpen = sharpen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument(
        "--hindsight", action="store_true", help="print the F1 at the best single threshold instead"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    params = {"backbone": args.backbone, "weights": args.weights}
    if args.hindsight:
        for folder in args.folders:
            best = best_in_hindsight(load_folder(folder), params, args.seed)
            print(f"{folder.name}: F1 {best:.3f} at the best single threshold", flush=True)
        return
    print("| set | regions | precision | recall | F1 | IoU | overlap | hit | F1 per image", end=" ")
    print("| gain, pixels | gain, images |")
    print("|" + " --- |" * 11)
    for folder in args.folders:
        first = None
        for name, n, report in rows_of(load_folder(folder), params, args.seed):
            first = n if first is None else first
            figures = (report.precision, report.recall, report.f1, report.iou, report.overlap)
            columns = [f"{x:.3f}" for x in (*figures, report.hit_rate, f1_of_images(n))]
            gains = [gain(measure, n, first) for measure in (f1_of_pixels, f1_of_images)]
            print("|", " | ".join([folder.name, name, *columns, *gains]), "|", flush=True)


if __name__ == "__main__":
    main()
