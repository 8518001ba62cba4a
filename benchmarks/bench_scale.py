"""How a fit grows with the number of images, and how a search finds its way among a million vectors.

    python benchmarks/bench_scale.py fit                 # 100, 1,000 and 10,000 images
    python benchmarks/bench_scale.py index               # a bank of 1,000,000 vectors, through faiss
    python benchmarks/bench_scale.py fit --images 100 1000 --ways whole

`fit` writes that many generated JPEG files, all different, to a temporary folder and fits on them, each
time in a fresh process: decoding, backbone, coreset, leave-one-image-out scores. The bank has a fixed
number of vectors. Three ways: "whole" holds all embeddings; "max_memory" may not, and selects in 16
dimensions, since projections must fit whatever the limit; "portions" hands the images to `partial_fit`,
500 at a time. Beside the time on the clock stands the CPU's, which other work disturbs less.

`index` searches vectors of a mixture of low-dimensional clusters through the package's own bank, by
several factory strings of faiss, and compares with exact search.

One thread unless told otherwise. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE = 64
BANK = 500
PORTION = 500
WAYS = {
    "whole": {},
    "max_memory": {"max_memory": "60MB", "coreset_projection_dim": 16},
    "portions": {"coreset_projection_dim": 16},
}
INDEXES = ("IVF1024,Flat;nprobe=8", "IVF1024,Flat;nprobe=32", "IVF1024,SQ8;nprobe=32")
PATCHES = 784


# ---- fit -------------------------------------------------------------------------------------------


def write_images(folder: Path, n: int) -> list[str]:
    """Write textured images, every one different."""
    from PIL import Image

    rng = np.random.default_rng(0)
    wave = np.arange(SIDE) / 5
    paths = []
    for i in range(n):
        noise = rng.normal(0, 25, size=(SIDE // 4, SIDE // 4, 3)).repeat(4, 0).repeat(4, 1)
        picture = 110 + 50 * np.sin(wave + rng.uniform(0, 6))[None, :, None] + noise
        paths.append(str(folder / f"{i:05d}.jpg"))
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def fit_once(folder: str, n: int, way: str) -> dict[str, float]:
    """Fit in this process; seconds, and the peak of its memory."""
    from skad import PatchCoreDetector

    paths = sorted(str(path) for path in Path(folder).iterdir())[:n]
    detector = PatchCoreDetector(
        "skad_nano",
        image_size=SIDE,
        coreset_size=BANK,
        n_jobs=1,
        random_state=0,
        device="cpu",
        **WAYS[way],
    )
    detector.fit(paths[:16] * 2)  # imports, weights, first allocations
    detector = type(detector)(**detector.get_params())
    before, clock, cpu = peak(), time.perf_counter(), time.process_time()
    step = PORTION if way == "portions" else n
    for start in range(0, n, step):
        detector.partial_fit(paths[start : start + step])
    return {
        "seconds": time.perf_counter() - clock,
        "cpu": time.process_time() - cpu,
        "before": before,
        "peak": peak(),
    }


def peak() -> float:
    """Peak resident memory of this process, MB."""
    kilo = 1e3 if sys.platform != "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kilo


def fit_table(args: argparse.Namespace) -> None:
    print("| way | images | fit s | CPU s | CPU s per 1,000 | peak MB | of it by the fit |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), max(args.images))
        for way in args.ways:
            for n in args.images:
                told = in_fresh_process(args.threads, "one", folder, str(n), way)
                print(
                    f"| {way} | {n:,} | {told['seconds']:.1f} | {told['cpu']:.1f} | "
                    f"{1000 * told['cpu'] / n:.1f} | {told['peak']:.0f} | "
                    f"{told['peak'] - told['before']:.0f} |",
                    flush=True,
                )


def in_fresh_process(threads: int, *arguments: str) -> dict[str, float]:
    """Run this file again, in a process of its own; what it prints last is the answer."""
    command = [sys.executable, __file__, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=7200
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# ---- index -----------------------------------------------------------------------------------------


def make_vectors(n: int, d: int, seed: int) -> np.ndarray:
    """Draw from 3,000 clusters of 12 directions each: (n, d) float32, non-negative as after a ReLU."""
    world = np.random.default_rng(0)
    centres = world.normal(size=(3000, d)).astype(np.float32)
    directions = world.normal(size=(3000, 12, d)).astype(np.float32) * 0.25
    rng = np.random.default_rng(seed)
    vectors = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 20_000):
        size = min(20_000, n - start)
        cluster = rng.integers(3000, size=size)
        along = rng.normal(size=(size, 1, 12)).astype(np.float32)
        spread = (along @ directions[cluster])[:, 0]
        vectors[start : start + size] = np.maximum(centres[cluster] + spread, 0)
    return vectors


def index_table(args: argparse.Namespace) -> None:
    import torch

    from skad._bank import MemoryBank

    torch.set_num_threads(args.threads)
    vectors = make_vectors(args.vectors, args.d, seed=1)
    queries = make_vectors(args.queries * PATCHES, args.d, seed=2).reshape(-1, PATCHES, args.d)
    sources = np.arange(len(vectors)) // PATCHES
    exact = MemoryBank(vectors, sources)
    exact.search(queries[:1, :1], 1)  # prepared once
    clock = time.process_time()
    nearest, wanted = exact.search(queries, 1)
    exact_ms = 1e3 * (time.process_time() - clock) / len(queries)
    del exact
    print(
        "| index | built in, CPU s | CPU ms per image | recall@1 | mean distance | largest excess |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| auto (exact) | | {exact_ms:.0f} | 1 | 1 | 0 |", flush=True)
    for index in args.indexes:
        bank = MemoryBank(vectors, sources, index=index)
        clock = time.process_time()
        bank.search(queries[:1, :1], 1)
        built, clock = time.process_time() - clock, time.process_time()
        distances, found = bank.search(queries, 1)
        spent = 1e3 * (time.process_time() - clock) / len(queries)
        excess = distances / nearest
        print(
            f'| `"{index}"` | {built:.0f} | {spent:.1f} | {np.mean(found == wanted):.4f} | '
            f"{excess.mean():.4f} | {excess.max() - 1:.1%} |",
            flush=True,
        )
        del bank


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        folder, n, way = sys.argv[2:]
        print(json.dumps(fit_once(folder, int(n), way)))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "index"])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--queries", type=int, default=5, help=f"images of {PATCHES} patches")
    parser.add_argument("--indexes", nargs="+", default=INDEXES)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print(f"Thread(s): {args.threads}.\n")
    (fit_table if args.what == "fit" else index_table)(args)


if __name__ == "__main__":
    main()
