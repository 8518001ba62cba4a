"""An exported file beside the detector that it was made of: time per image, start, memory.

One thread, one image at a time, score and map. Both are timed in turn, image by image, so that what else
the machine does falls on both alike. Start and memory are those of fresh processes.

    python benchmarks/bench_onnx.py parts/good --backbone skad_nano
    python benchmarks/bench_onnx.py parts/good --backbone resnet18.tv_in1k --weights resnet18.safetensors
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PROCESS = """
import json, re, resource, sys, time
start = float(sys.argv[2])
import skad
line = skad.load(sys.argv[1])
line.predict([sys.argv[3]])
first = time.time() - start
# Not of resource: a child begins with what its parent takes.
memory = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1e3
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([first, usage.ru_utime + usage.ru_stime, memory]))
"""


def size(text):
    if text == "auto":
        return text
    return float(text) if "." in text else int(text)


def fit(files, args):
    import torch

    from skad import PatchCoreDetector

    torch.set_num_threads(1)
    weights = {} if args.weights is None else {"weights": args.weights}
    return PatchCoreDetector(
        args.backbone,
        image_size=args.image_size,
        coreset_size=args.coreset_size,
        random_state=0,
        n_jobs=1,
        **weights,
    ).fit(files)


def timed(judges, images, n_rounds):
    """Milliseconds of each judge, (n_rounds * n_images, n_judges), in turn."""
    times = []
    for image in images * n_rounds:
        row = []
        for judge in judges:
            start = time.perf_counter()
            judge.predict_heatmap([image], return_scores=True)
            row.append(1e3 * (time.perf_counter() - start))
        times.append(row)
    return np.array(times)


def process(path, image, n_rounds):
    """Seconds to the first verdict, of CPU, and MB of a fresh process; the best of some."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = []
    for _ in range(n_rounds):
        command = [sys.executable, "-c", PROCESS, str(path), str(time.time()), str(image)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.append(json.loads(run.stdout))
    return np.array(found).min(axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--coreset-size", type=size, default="auto")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    import skad

    files = sorted(map(str, args.folder.iterdir()))[: args.images]
    det = fit(files, args)
    with tempfile.TemporaryDirectory() as folder:
        exported, saved = Path(folder) / "line.onnx", Path(folder) / "line.skad"
        skad.export_onnx(det, exported, files[:4])
        skad.save(det, saved)
        line = skad.load(exported, n_threads=1)
        shown = [det.geometry_.apply(np.asarray(Image.open(f).convert("RGB"))) for f in files[:10]]
        timed([det, line], shown, 1)
        times = timed([det, line], shown, args.rounds)
        (torch_ms, onnx_ms), best = np.median(times, axis=0), times.min(axis=0)
        ratio = np.median(times[:, 1] / times[:, 0])
        with_torch = process(saved, files[0], 2)
        without = process(exported, files[0], 3)
        print(f"{args.backbone}, {args.image_size} px, bank of {len(det.bank_)} vectors")
        print("| | skad with torch | the file |\n|---|---|---|")
        print(f"| score and map, ms an image (median) | {torch_ms:.1f} | {onnx_ms:.1f} |")
        print(f"| the same (best) | {best[0]:.1f} | {best[1]:.1f} |")
        print(f"| ratio (median of pairs) | 1 | {ratio:.2f} |")
        names = ("start to first verdict, s", "the same, s of CPU", "memory of the process, MB")
        for name, one, other in zip(names, with_torch, without, strict=True):
            print(f"| {name} | {one:.2f} | {other:.2f} |")
        print(f"| size of the file, MB | | {exported.stat().st_size / 1e6:.1f} |")


if __name__ == "__main__":
    main()
