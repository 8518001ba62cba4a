"""How often DriftMonitor raises an alarm without drift, and how soon with it.

Simulated scores, two minutes on one core:

    python benchmarks/drift_level.py

Real images in MVTec's layout, one folder per set: official splits, then good images of training and test
pooled and split again at random, where there is no drift:

    python benchmarks/drift_level.py PATH/casting PATH/magnetic_tile --splits 20
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from skad import PatchCoreDetector
from skad.metrics import DriftMonitor

RATE = 0.05  # of false alarms that the threshold is set for
SIZES = (20, 50, 200)
MISSED, FOUND = 2.0, 4.0  # standard deviations by which defects score lower


def threshold_of(calibration: np.ndarray) -> float:
    """Take the rank of the rate, interpolated, as a detector does."""
    return float(np.quantile(calibration, RATE, method="weibull"))


def alarms(calibrations, streams, *, select=False, **settings) -> np.ndarray:
    """Index of the alarm in each stream; infinite where there is none."""
    found = np.full(len(streams), np.inf)
    for i, (calibration, stream) in enumerate(zip(calibrations, streams, strict=True)):
        threshold = threshold_of(calibration) if select else None
        monitor = DriftMonitor(calibration, threshold=threshold, random_state=i, **settings)
        for start in range(0, len(stream), 100):
            if monitor.update(stream[start : start + 100]).is_drifting_:
                found[i] = monitor.alarm_at_
                break
    return found


def draw(rng, n_streams, size, length, *, fraction=0.0, distance=FOUND):
    """Exchangeable good scores, with a fraction of defects in the streams."""
    calibrations = rng.normal(size=(n_streams, size))
    streams = rng.normal(size=(n_streams, length))
    streams -= distance * (rng.random(streams.shape) < fraction)
    return calibrations, streams


def show_level(n_streams: int, length: int) -> None:
    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_streams)
    print(
        f"\nAlarms among {n_streams} streams of {length:,} images; level 5 %, limit {limit:.1%}\n"
    )
    print("| stream | images that count |" + "".join(f" {m} calibration scores |" for m in SIZES))
    print("|---|---|" + "---|" * len(SIZES))
    cells = [
        ("good images only", {}, False, {}),
        ("good images only", {}, True, {}),
        ("good images only, memory=200", {}, False, {"memory": 200}),
    ]
    for fraction in (0.02, 0.1):
        for distance, kind in ((FOUND, "found"), (MISSED, "a third of them missed")):
            for select in (True, False):
                name = f"{fraction:.0%} defects, {kind}"
                cells.append((name, {"fraction": fraction, "distance": distance}, select, {}))
    for name, contents, select, settings in cells:
        row = f"| {name} | {'called good' if select else 'all'} |"
        for m in SIZES:
            rng = np.random.default_rng(m)
            scores = draw(rng, n_streams, m, length, **contents)
            row += f" {np.isfinite(alarms(*scores, select=select, **settings)).mean():.1%} |"
        print(row, flush=True)


def show_power(n_streams: int, length: int) -> None:
    print(
        "\nMedian number of images until the alarm (fraction of streams that raise one, if below 99 %); "
        f"{n_streams} streams of {length} images\n"
    )
    print("| change | images that count |" + "".join(f" {m} calibration scores |" for m in SIZES)
          + " 200, change after 1,000 images |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    changes = [(f"{shift:g} sd less normal", shift, 1.0) for shift in (0.5, 1, 2)]
    changes += [("1 sd more normal", -1, 1.0), ("spread x 1.5", 0, 1.5)]
    for name, shift, scale in changes:
        for select in (False, True):
            row = f"| {name} | {'called good' if select else 'all'} |"
            for m, before in [*((m, 0) for m in SIZES), (200, 1000)]:
                rng = np.random.default_rng(m)
                calibrations, streams = draw(rng, n_streams, m, before + length)
                streams[:, before:] = streams[:, before:] * scale - shift
                waited = alarms(calibrations, streams, select=select) - before + 1
                waited = waited[waited > 0]
                row += f" {describe(waited)} |"
            print(row, flush=True)


def describe(waited: np.ndarray) -> str:
    power = np.isfinite(waited).mean()
    median = np.median(waited)
    text = f"{median:.0f}" if np.isfinite(median) else "-"
    return text if power >= 0.99 else f"{text} ({power:.0%})"


# ------------------------------------------------------------------- real images


def list_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".png", ".jpg", ".bmp"})


def show_real(folder: Path, arguments: argparse.Namespace, store: str) -> None:
    train, test = list_images(folder / "train/good"), list_images(folder / "test/good")
    detector = PatchCoreDetector(
        arguments.backbone, weights=arguments.weights, random_state=0, memory=store
    )
    scores = detector.fit(train).score_samples(test)
    below = (scores < detector.offset_).mean()
    runs = [
        calibrated(detector, scores),
        *split_again(detector, train + test, len(train), arguments),
    ]
    for count in ("all", "called good"):
        official, *splits = [watch(*run, count) for run in runs]
        waited = in_any_order(*runs[0], count)
        cells = [folder.name, count, len(train), len(test), f"{below:.1%}"]
        cells += [f"{np.nanmean(official.p_values_):.2f}", official.alarm_at_, describe(waited)]
        cells += [f"{sum(monitor.is_drifting_ for monitor in splits)} of {len(splits)}"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def calibrated(detector: PatchCoreDetector, scores: np.ndarray):
    return detector.calibration_scores_, detector.offset_, scores


def split_again(detector, images, n_train, arguments) -> list:
    """Draw training and test images anew from all good ones: no test image has drifted."""
    runs = []
    for split in range(arguments.splits):
        order = np.random.default_rng(split).permutation(len(images))
        detector.fit([images[i] for i in order[:n_train]])
        scores = detector.score_samples([images[i] for i in order[n_train:]])
        runs.append(calibrated(detector, scores))
    return runs


def watch(calibration, offset, scores, count, seed=0) -> DriftMonitor:
    threshold = offset if count == "called good" else None
    return DriftMonitor(calibration, threshold=threshold, random_state=seed).update(scores)


def in_any_order(calibration, offset, scores, count) -> np.ndarray:
    """Count images until the alarm in 200 random orders: test sets know no time."""
    found = np.full(200, np.inf)
    for seed in range(len(found)):
        shuffled = np.random.default_rng(seed).permutation(scores)
        monitor = watch(calibration, offset, shuffled, count, seed)
        if monitor.is_drifting_:
            found[seed] = monitor.alarm_at_ + 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="MVTec's layout; none: simulate")
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument(
        "--weights", default="pretrained", help="a file, for machines without internet"
    )
    parser.add_argument("--splits", type=int, default=0, help="random splits of each set")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--length", type=int, default=1000, help="images per stream")
    arguments = parser.parse_args()
    if not arguments.folders:
        show_level(arguments.streams, arguments.length)
        show_power(arguments.streams // 2, arguments.length)
        return
    print(f"{arguments.backbone}; images until the alarm: median of 200 random orders\n")
    print("| set | images that count | training images | test images | called defective | mean p | "
          "alarm in file order | images until the alarm | alarms on random splits |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as store:
        for folder in arguments.folders:
            show_real(folder, arguments, store)


if __name__ == "__main__":
    main()
