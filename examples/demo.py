"""
=============================
Find damage on three textures
=============================

Fit on good tiles of three textures, find damage in tiles that were not seen.

The photographs (brick, gravel, grass) come with scikit-image. Each is cut into tiles; some are
learned from, the others are scored as they are and once more with a scratch, a foreign body or a
hole. No file is downloaded: the backbone, skad_nano, comes with skad.

In the end the detector of the last texture becomes one file, which judges the same tiles in a process
that never imports torch (needs ``skad[onnx]``).

Run ``python examples/demo.py [--out FOLDER]``.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from skimage import data, draw
from sklearn.metrics import roc_auc_score

from skad import PatchCoreDetector, export_onnx
from skad.inspection import HeatmapDisplay

TILE = 64  # pixels
N_TRAIN = 44  # of the 64 tiles of a texture


def cut_tiles(photograph: np.ndarray) -> np.ndarray:
    """Cut a square photograph into tiles that do not overlap: (n, TILE, TILE)."""
    n = photograph.shape[0] // TILE
    blocks = photograph[: n * TILE, : n * TILE].reshape(n, TILE, n, TILE)
    return blocks.swapaxes(1, 2).reshape(-1, TILE, TILE)


def damage(tile: np.ndarray, kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a damaged copy of a tile and the mask of the damage."""
    mask = np.zeros(tile.shape, dtype=bool)
    row, column = rng.integers(18, TILE - 18, size=2)
    if kind == 0:  # scratch
        angle = rng.uniform(0, np.pi)
        dr, dc = (np.array([np.sin(angle), np.cos(angle)]) * 16).astype(int)
        corners = np.array(
            [[-dr - 2, -dc - 2], [-dr + 2, -dc + 2], [dr + 2, dc + 2], [dr - 2, dc - 2]]
        )
        mask[draw.polygon(*(corners + [row, column]).T, shape=tile.shape)] = True
        look = np.full(tile.shape, 250.0)
    else:  # foreign body, hole
        mask[draw.disk((row, column), 9, shape=tile.shape)] = True
        stripes = np.where(np.indices(tile.shape).sum(axis=0) // 2 % 2, 235.0, 20.0)
        look = stripes if kind == 1 else np.full(tile.shape, 8.0)
    return np.where(mask, look, tile).astype(np.uint8), mask


def inspect_texture(name: str, seed: int = 0) -> tuple[list, dict[str, float], tuple]:
    """Fit and score one texture; return what to draw, the figures, and the detector with its tiles."""
    rng = np.random.default_rng(seed)
    tiles = rng.permutation(cut_tiles(getattr(data, name)()))
    train, good = tiles[:N_TRAIN], tiles[N_TRAIN:]
    pairs = [damage(tile, i % 3, rng) for i, tile in enumerate(good)]
    damaged = np.stack([image for image, _ in pairs])

    detector = PatchCoreDetector("skad_nano", image_size=128, random_state=seed)
    start = time.perf_counter()
    detector.fit(train)
    fitted = time.perf_counter()
    tested = np.concatenate([good, damaged])
    scores = detector.score_samples(tested)
    scored = time.perf_counter()

    y = np.repeat([1, -1], [len(good), len(damaged)])
    below = scores < detector.offset_
    figures = {
        "auroc": roc_auc_score(y, scores),
        "false_alarms": below[y == 1].mean(),
        "found": below[y == -1].mean(),
        "fit_s": fitted - start,
        "score_ms": 1000 * (scored - fitted) / len(scores),
    }
    shown = [(detector, damaged[i], pairs[i][1]) for i in (0, 1)]
    return shown, figures, (detector, tested)


# What runs on the line's computer: no torch, no scikit-learn.
ON_THE_LINE = """
import sys, time
import numpy as np
start = time.perf_counter()
import skad
line = skad.load(sys.argv[1])
np.save(sys.argv[3], line.predict(np.load(sys.argv[2])))
assert not {"torch", "timm", "sklearn"} & set(sys.modules)
print(f"{time.perf_counter() - start:.1f}")
"""


def judge_by_file(detector: PatchCoreDetector, tiles: np.ndarray, out: Path) -> None:
    """Export a detector, judge tiles by the file in another process, and compare the verdicts."""
    if any(importlib.util.find_spec(name) is None for name in ("onnxscript", "onnxruntime")):
        print('without "skad[onnx]" nothing is exported: pip install "skad[onnx]"')
        return
    file, given, found = out / "grass.onnx", out / "tiles.npy", out / "verdicts.npy"
    # Tiles of one texture are nearly alike: 1e-5 of their small distances is below float32's rounding.
    export_onnx(detector, file, tiles[::4], tolerance=1e-4)
    np.save(given, tiles)
    command = [sys.executable, "-c", ON_THE_LINE, *map(str, (file, given, found))]
    seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    same = int((np.load(found) == detector.predict(tiles)).sum())
    print(
        f"exported: {file.resolve()} ({file.stat().st_size / 1e6:.1f} MB); without torch it gives "
        f"{same} of {len(tiles)} tiles the same verdict, {seconds} s from its import on"
    )
    given.unlink()
    found.unlink()


def draw_rows(rows: list, path: Path) -> None:
    """Write image | heat map | outline of a few damaged tiles."""
    images = [image for _, image, _ in rows]
    # Each texture has its own threshold: divide by it, so that one scale serves all rows.
    heatmaps = [det.predict_heatmap([image])[0] / det.heatmap_threshold_ for det, image, _ in rows]
    regions = [det.predict_regions([image])[0] for det, image, _ in rows]
    display = HeatmapDisplay.from_predictions(
        images, heatmaps, threshold=1.0, regions=regions, masks=[mask for *_, mask in rows]
    )
    display.figure_.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for the picture and the file"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    print("texture  image AUROC  false alarms  damage found  fit [s]  score [ms/image]")
    for name in ("brick", "gravel", "grass"):
        shown, f, (detector, tiles) = inspect_texture(name)
        rows += shown
        print(
            f"{name:<8} {f['auroc']:11.3f}  {f['false_alarms']:12.0%}  {f['found']:12.0%}"
            f"  {f['fit_s']:7.1f}  {f['score_ms']:16.1f}"
        )
    print("target false-alarm rate: 5 % (target_false_alarm_rate), from good tiles alone")
    picture = out / "demo.png"
    draw_rows(rows, picture)
    print(f"picture: {picture.resolve()} (green: found, orange: where the damage really is)")
    judge_by_file(detector, tiles, out)


if __name__ == "__main__":
    main()
