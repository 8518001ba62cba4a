"""How many good images a detector calls defective at the rates asked for, and how many defects it finds.

The official split of each folder in MVTec's layout, then random re-splits: good images of training and
test pooled and split again, sizes as they are, images of one part or near-copies on one side.

    python benchmarks/calibration_study.py PATH/bottle PATH/pill --official
    python benchmarks/calibration_study.py PATH/kolektor_sdd PATH/casting --sizes 10 20 40 all \
        --backbone resnet18 --weights resnet18.safetensors \
        --group-by kolektor_sdd=kos[0-9]+ --near-copies casting=0.007

Every fit is a line of the file --results, which several runs may share; fits that are there are not
repeated, and the tables show all of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from skad import PatchCoreDetector, ReConPatchDetector
from skad.datasets import load_folder

KINDS = {"PatchCore": PatchCoreDetector, "ReConPatch": ReConPatchDetector}
RATES = (0.05, 0.2)
BOOTSTRAPS = 2000
_RING = 4  # pixels, of profiles that tell near-copies


class Images(NamedTuple):
    """The images of a split, as an array of paths each."""

    train: np.ndarray
    good: np.ndarray
    defects: np.ndarray


class Cell(NamedTuple):
    """What is measured together."""

    name: str
    backbone: str
    detector: str
    image_score: str
    size: str
    split: str

    def detector_of(self, args: argparse.Namespace) -> PatchCoreDetector:
        """Make the detector, not yet fitted."""
        params = json.loads(args.params)
        return KINDS[self.detector](
            self.backbone,
            weights=args.weights or "pretrained",
            image_score=self.image_score,
            memory=args.memory,
            random_state=0 if self.split == "official" else int(self.split),
            n_jobs=1,
            **params,
        )


# ---------------------------------------------------------------------- splits


def official_split(path: Path) -> Images:
    data = load_folder(path)
    test, y = np.array(data.X_test, dtype=object), np.array(data.y_test)
    return Images(np.array(data.X_train, dtype=object), test[y == 1], test[y == -1])


def group_of(path: Path, files: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    """Give images that must stay on one side the same number."""
    if path.name in args.near_copies:
        profiles = np.array([radial_profile(file) for file in files])
        distance = np.sqrt(((profiles[:, None] - profiles[None]) ** 2).mean(2))
        return connected_components(distance < float(args.near_copies[path.name]))[1]
    if path.name not in args.group_by:
        return np.arange(len(files))
    sources = sources_of(path)
    names = [sources.get(Path(file).relative_to(path).as_posix(), str(file)) for file in files]
    keys = [re.findall(args.group_by[path.name], name)[0] for name in names]
    return np.unique(keys, return_inverse=True)[1]


def sources_of(path: Path) -> dict[str, str]:
    """Where the images of a folder come from, as its sources.csv says."""
    table = path / "sources.csv"
    if not table.exists():
        return {}
    with table.open() as lines:
        return {row["file"]: row["source"] for row in csv.DictReader(lines)}


def radial_profile(file: str) -> np.ndarray:
    """Mean and deviation of grey values on rings: the same however an image is rotated."""
    grey = np.asarray(Image.open(file).convert("L"), dtype=float) / 255
    middle = (np.array(grey.shape) - 1) / 2
    radius = np.hypot(*(np.indices(grey.shape) - middle[:, None, None]))
    ring = np.minimum(radius / _RING, min(grey.shape) / 2 / _RING - 1).astype(int).ravel()
    count = np.bincount(ring)
    mean = np.bincount(ring, grey.ravel()) / count
    square = np.bincount(ring, grey.ravel() ** 2) / count
    return np.r_[mean, np.sqrt(np.maximum(square - mean**2, 0))]


def resplit(images: Images, groups: np.ndarray, seed: int, n_defects: int | None) -> Images:
    """Split the pooled good images at random; no group is torn apart."""
    pool, rng = np.concatenate([images.train, images.good]), np.random.default_rng(seed)
    taken = np.zeros(len(pool), dtype=bool)
    for group in rng.permutation(groups.max() + 1):
        if taken.sum() + (groups == group).sum() <= len(images.train):
            taken |= groups == group
    return Images(pool[taken], pool[~taken], rng.permutation(images.defects)[:n_defects])


def subset(images: Images, size: str, seed: int) -> Images:
    if size == "all":
        return images
    chosen = np.random.default_rng([seed, 1]).permutation(len(images.train))[: int(size)]
    return images._replace(train=images.train[np.sort(chosen)])


# ---------------------------------------------------------------- measurements


def measure(detector: PatchCoreDetector, images: Images) -> dict:
    """Fit, score, and compare with the thresholds of all rates."""
    detector.fit(list(images.train))
    good = detector.score_samples(list(images.good))
    defects = detector.score_samples(list(images.defects))
    y = np.r_[np.zeros(len(good)), np.ones(len(defects))]
    row = {
        "n_train": len(images.train),
        "n_good": len(good),
        "auroc": roc_auc_score(y, -np.r_[good, defects]),
        "p_value": float(np.mean([np.mean(detector.calibration_scores_ <= one) for one in good])),
    }
    for rate in RATES:
        detector.calibrate(target_false_alarm_rate=rate)
        row[f"alarms {rate}"] = float(np.mean(good < detector.offset_))
        row[f"found {rate}"] = float(np.mean(defects < detector.offset_))
        row[f"exactly {rate}"] = float(np.mean(defects < np.quantile(good, rate)))
    return row


def cells(args: argparse.Namespace) -> Iterator[tuple[Cell, Path]]:
    """All that is asked for, split by split, so that a run that is cut short has some of everything."""
    splits = [*(["official"] if args.official else []), *map(str, range(args.splits))]
    for split in splits:
        for path in args.folders:
            for size in args.sizes:
                for image_score in args.image_scores:
                    yield (
                        Cell(path.name, args.backbone, args.detector, image_score, size, split),
                        path,
                    )


def run(args: argparse.Namespace) -> None:
    known = {cell for cell, _ in read(args.results)}
    groups: dict[Path, np.ndarray] = {}
    for cell, path in cells(args):
        if cell in known:
            continue
        images, seed = official_split(path), 0
        if cell.size != "all" and int(cell.size) >= len(images.train):
            continue
        if cell.split != "official":
            seed = int(cell.split)
            pool = np.concatenate([images.train, images.good])
            if path not in groups:
                groups[path] = group_of(path, pool, args)
            images = resplit(images, groups[path], seed, args.defects)
        row = measure(cell.detector_of(args), subset(images, cell.size, seed))
        with args.results.open("a") as file:
            file.write(json.dumps({**cell._asdict(), **row}) + "\n")


def read(results: Path) -> list[tuple[Cell, dict]]:
    if not results.exists():
        return []
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return [(Cell(*(row[field] for field in Cell._fields)), row) for row in rows]


# ---------------------------------------------------------------------- tables


def tables(rows: list[tuple[Cell, dict]]) -> str:
    """One table for each detector, image score, size and kind of split."""
    by_kind = defaultdict(list)
    for cell, row in rows:
        split = "official split" if cell.split == "official" else "re-splits"
        by_kind[cell.detector, cell.image_score, f"n = {cell.size}", split].append((cell, row))
    return "\n".join(
        f"\n{', '.join(kind)}\n\n{table(found)}" for kind, found in sorted(by_kind.items())
    )


def table(rows: list[tuple[Cell, dict]]) -> str:
    """One line per set and backbone, and one for the mean over the sets."""
    head = ["set", "backbone", "splits", "image AUROC", "mean p"]
    for rate in RATES:
        head += [f"false alarms at {rate:.0%}", "found", f"at exactly {rate:.0%}"]
    lines = [as_line(head), as_line(["---"] * len(head))]
    for name, backbone in sorted({(cell.name, cell.backbone) for cell, _ in rows}):
        own = [(c, row) for c, row in rows if (c.name, c.backbone) == (name, backbone)]
        lines.append(as_line([name, backbone, str(len(own)), *figures(own)]))
    return "\n".join([*lines, as_line(["**mean**", "", str(len(rows)), *figures(rows)])])


def figures(rows: list[tuple[Cell, dict]]) -> list[str]:
    """Means over splits and backbones, then over sets; intervals of 95 % for false alarms."""

    def means(key: str) -> list[list[float]]:
        # Both backbones see the same splits: a split is drawn as a whole.
        by_split: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for cell, row in rows:
            by_split[cell.name][cell.split].append(row[key])
        return [[float(np.mean(v)) for v in splits.values()] for splits in by_split.values()]

    def mean(key: str) -> float:
        return float(np.mean([np.mean(some) for some in means(key)]))

    out = [f"{mean('auroc'):.3f}", f"{mean('p_value'):.2f}"]
    for rate in RATES:
        alarms, interval = means(f"alarms {rate}"), ""
        if len(rows) == 1:
            interval = " ({:.1f} to {:.1f})".format(*of_binomial(rows[0][1], rate))
        elif max(map(len, alarms)) > 1:
            interval = " ({:.1f} to {:.1f})".format(*bootstrap(alarms))
        out.append(f"{100 * mean(f'alarms {rate}'):.1f}{interval}")
        out += [f"{mean(f'{what} {rate}'):.3f}" for what in ("found", "exactly")]
    return out


def of_binomial(row: dict, rate: float) -> tuple[float, float]:
    """Take Clopper and Pearson's interval of one split, in percent."""
    n_alarms = round(row[f"alarms {rate}"] * row["n_good"])
    interval = binomtest(n_alarms, row["n_good"]).proportion_ci()
    return 100 * interval.low, 100 * interval.high


def bootstrap(values: list[list[float]]) -> tuple[float, float]:
    """Draw splits anew within each set: the interval of the mean of means, in percent."""
    rng = np.random.default_rng(0)
    means = [
        np.mean([np.mean(rng.choice(some, len(some))) for some in values])
        for _ in range(BOOTSTRAPS)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return 100 * low, 100 * high


def as_line(columns: list[str]) -> str:
    return "| " + " | ".join(columns) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", help="file; without, those that come with the backbone")
    parser.add_argument("--detector", choices=sorted(KINDS), default="PatchCore")
    parser.add_argument("--params", default="{}", help="of the detector, JSON")
    parser.add_argument("--image-scores", nargs="+", default=["map"])
    parser.add_argument(
        "--sizes", nargs="+", default=["all"], help='good images to learn, or "all"'
    )
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--official", action="store_true", help="the official split as well")
    parser.add_argument("--defects", type=int, help="at most so many defects per re-split")
    parser.add_argument(
        "--group-by",
        nargs="*",
        default=[],
        metavar="FOLDER=REGEX",
        help="what images of one part share in their path, or in sources.csv where there is one",
    )
    parser.add_argument(
        "--near-copies",
        nargs="*",
        default=[],
        metavar="FOLDER=DISTANCE",
        help="below which radial profiles of grey values are those of one part",
    )
    parser.add_argument("--memory", help="folder for features; without, a temporary one")
    parser.add_argument("--results", type=Path, default=Path("calibration_study.jsonl"))
    args = parser.parse_args()
    args.group_by = dict(pair.split("=", 1) for pair in args.group_by)
    args.near_copies = dict(pair.split("=", 1) for pair in args.near_copies)
    # Small subsets are measured at rates that they cannot promise.
    warnings.filterwarnings("ignore", "target_false_alarm_rate=.* cannot be promised", UserWarning)
    with tempfile.TemporaryDirectory() as folder:
        args.memory = args.memory or folder
        run(args)
    print(tables(read(args.results)))


if __name__ == "__main__":
    main()
