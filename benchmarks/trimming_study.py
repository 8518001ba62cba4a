"""Training sets that are not clean: what defects in them cost, and what trimming saves.

Defects of the test part are mixed into the training images, as many as a fraction of the good ones, and
are left out of the test part. Sets are folders in MVTec's layout. The tables of docs/unclean.md:

    python benchmarks/trimming_study.py PATH --weights resnet18.safetensors --out resnet18.csv
    python benchmarks/trimming_study.py PATH --backbone skad_nano --out skad_nano.csv

Each fit is a row of the file; fits that are there already are not repeated. ``--show`` only prints the
tables of such files.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from skad import PatchCoreDetector
from skad.datasets import load_folder

SETS = ("aws_aliens", "mvtec_bottle", "kolektor_sdd", "mvtec_pill", "casting")
RATE = 0.05
KEY = ("set", "backbone", "draw", "mixed_in", "trim_fraction", "left_out")
FIGURES = ("auroc", "realised", "found", "found_at_rate")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--weights", default="pretrained", help="a file, or 'pretrained'")
    parser.add_argument("--mixed-in", nargs="+", type=float, default=[0.0, 0.05, 0.1, 0.2])
    parser.add_argument("--trim", nargs="+", type=float, default=[0.0, 0.1])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--store", type=Path, help="folder in which features are kept")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--show", type=Path, nargs="+", help="files of results to show")
    args = parser.parse_args()
    if args.show:
        show([row for file in args.show for row in read(file)])
        return
    for draw in range(args.draws):
        for name in args.sets:
            for trim in args.trim:
                for mixed_in in args.mixed_in:
                    study(args, name, draw, mixed_in, trim)
    show(read(args.out))


def study(args: argparse.Namespace, name: str, draw: int, mixed_in: float, trim: float) -> None:
    """Fit once, and write a row for each test part."""
    done = {tuple(row[key] for key in KEY) for row in read(args.out)}
    fit = dict(zip(KEY, (name, args.backbone, draw, mixed_in, trim), strict=False))
    # Without defects among the training images, the test parts of all fractions are of interest.
    parts = args.mixed_in if mixed_in == 0 else [mixed_in]
    parts = [p for p in parts if tuple(str(v) for v in (*fit.values(), p)) not in done]
    if not parts:
        return
    data = load_folder(args.data / name)
    good, labels = data.X_train, np.asarray(data.y_test)
    defects = np.random.default_rng([draw, 23]).permutation(np.flatnonzero(labels == -1))
    n_mixed = round(mixed_in * len(good))
    if n_mixed >= len(defects):
        return
    train = [*good, *(data.X_test[i] for i in defects[:n_mixed])]
    is_mixed = np.arange(len(train)) >= len(good)
    detector = PatchCoreDetector(
        args.backbone,
        weights=args.weights,
        trim_fraction=trim,
        target_false_alarm_rate=RATE,
        memory=args.store,
        random_state=draw,
    )
    start = time.perf_counter()
    detector.fit(train)
    seconds = time.perf_counter() - start
    trimmed = np.isin(np.arange(len(train)), detector.trimmed_indices_)
    training = {
        "n": len(train),
        "n_mixed": n_mixed,
        "training_auroc": auroc(is_mixed, -detector.training_scores_),
        "caught": trimmed[is_mixed].mean() if n_mixed else np.nan,
        "good_trimmed": trimmed[~is_mixed].mean(),
        "seconds": round(seconds, 1),
    }
    anomaly = -detector.score_samples(data.X_test)
    for part in parts:
        left = defects[round(part * len(good)) :]
        if len(left):
            row = figures(anomaly[labels == 1], anomaly[left], -detector.offset_)
            write(args.out, {**fit, "left_out": part, **row, **training})


def figures(good: np.ndarray, bad: np.ndarray, threshold: float) -> dict[str, float]:
    """Figures of a test part."""
    return {
        "auroc": auroc(np.repeat([False, True], [len(good), len(bad)]), np.append(good, bad)),
        "realised": np.mean(good > threshold),
        "found": np.mean(bad > threshold),
        "found_at_rate": np.mean(bad > np.quantile(good, 1 - RATE)),
    }


def auroc(is_bad: np.ndarray, anomaly: np.ndarray) -> float:
    return roc_auc_score(is_bad, anomaly) if is_bad.any() else np.nan


def read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def write(file: Path, row: dict[str, Any]) -> None:
    is_new = not file.exists()
    with file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


# -------------------------------------------------------------------------- tables


def show(rows: list[dict[str, str]]) -> None:
    """Print means over sets, each of which is a mean over draws."""
    trims = sorted({float(row["trim_fraction"]) for row in rows})
    for mixed_in in sorted({float(row["mixed_in"]) for row in rows}):
        print(f"\n{mixed_in:.0%} mixed in, same test part\n")
        print(
            "| training set | AUROC | realised | found | found at 5 % | training_scores_ | caught |"
        )
        print("|---|---|---|---|---|---|---|")
        settings = {(0.0, 0.0): None, **{(mixed_in, trim): None for trim in trims}}
        cells = {setting: of_setting(rows, *setting, mixed_in) for setting in settings}
        common = set.intersection(*(set(found) for found in cells.values()))
        for (mixed, trim), found in cells.items():
            means = mean_of(found[cell] for cell in sorted(common))
            print(f"| {mixed:.0%} defects, trim_fraction={trim:g} | " + " | ".join(means) + " |")
        print(f"\n({len(common)} pairs of set and backbone)")


def of_setting(
    rows: list[dict[str, str]], mixed_in: float, trim: float, left_out: float
) -> dict[tuple[str, str], list[float]]:
    """Mean figures over draws, for each set and backbone."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for row in rows:
        if [float(row[k]) for k in ("mixed_in", "trim_fraction", "left_out")] == [
            mixed_in,
            trim,
            left_out,
        ]:
            values = [float(row[key]) for key in (*FIGURES, "training_auroc", "caught")]
            found.setdefault((row["set"], row["backbone"]), []).append(values)
    return {cell: np.mean(values, axis=0).tolist() for cell, values in found.items()}


def mean_of(values: Iterator[list[float]]) -> list[str]:
    return ["" if np.isnan(mean) else f"{mean:.3f}" for mean in np.mean(list(values), axis=0)]


if __name__ == "__main__":
    main()
