"""An exported file beside the detector that it was made of: time per image, start, memory.

One thread, one image at a time, score and map; without tiles once more with its convolutions in 8-bit
integers, whose ranges come from the images of the folder behind those that are learned from. All are
timed in turn, image by image, so that what else the machine does falls on all alike; each in a process
of its own, as on the line: what has run before in a process decides how much of its memory is kept,
and fetching it anew has cost a file a third of its time. Start and memory are those of fresh processes.

    python benchmarks/bench_onnx.py parts/good --backbone skad_nano
    python benchmarks/bench_onnx.py parts/good --backbone resnet18.tv_in1k --weights resnet18.safetensors
    python benchmarks/bench_onnx.py parts/good --tiles native
"""

import argparse
import contextlib
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
WORKER = """
import sys, time
import numpy as np
import skad
path, images = sys.argv[1], list(np.load(sys.argv[2]).values())
judge = skad.load(path, **({"n_threads": 1} if path.endswith(".onnx") else {}))
for number in sys.stdin:
    start = time.perf_counter()
    judge.predict_heatmap([images[int(number)]], return_scores=True)
    print(1e3 * (time.perf_counter() - start), flush=True)
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
FILES = (".onnx", "-int8.onnx", ".skad")
COLUMNS = ("skad with torch", "the file", "the file, int8")


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
        tiles=args.tiles,
        coreset_size=args.coreset_size,
        random_state=0,
        n_jobs=1,
        **weights,
    ).fit(files)


def timed(files, images, n_rounds):
    """Milliseconds of each file, (n_rounds * n_images, n_files), in turn; a first round is not kept."""
    n_images, times = len(np.load(images)), []
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker(file, images)) for file in files]
        for number in [*range(n_images)] * (n_rounds + 1):
            times.append([asked(one, number) for one in workers])
    return np.array(times[n_images:])


def asked(one, number):
    one.stdin.write(f"{number}\n")
    one.stdin.flush()
    return float(one.stdout.readline())


def worker(file, images):
    command = [sys.executable, "-c", WORKER, str(file), str(images)]
    return subprocess.Popen(
        command, env=ONE_THREAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def process(path, image, n_rounds):
    """Seconds to the first verdict, of CPU, and MB of a fresh process; the best of some."""
    found = []
    for _ in range(n_rounds):
        command = [sys.executable, "-c", PROCESS, str(path), str(time.time()), str(image)]
        run = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, check=True)
        found.append(json.loads(run.stdout))
    return np.array(found).min(axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--coreset-size", type=size, default="auto")
    parser.add_argument("--tiles", choices=["native"], help="images at their own resolution")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    import skad

    files = sorted(map(str, args.folder.iterdir()))
    fresh, files = files[args.images :][:40], files[: args.images]
    det = fit(files, args)
    with tempfile.TemporaryDirectory() as folder:
        exported, integers, saved = (Path(folder) / f"line{end}" for end in FILES)
        skad.export_onnx(det, exported, files[:4], tolerance=1e-4)
        if args.tiles is None:
            skad.export_onnx(det, integers, files[:4], int8_from=fresh, tolerance=0.9)
        skad.save(det, saved)
        kept = [file for file in (exported, integers) if file.exists()]
        shown = [np.asarray(Image.open(file).convert("RGB")) for file in files[:10]]
        if args.tiles is None:
            shown = [det.geometry_.apply(image) for image in shown]
        images = Path(folder) / "images.npz"
        np.savez(images, *shown)
        times = timed([saved, *kept], images, args.rounds)
        ratios = np.median(times / times[:, :1], axis=0)
        of_processes = [process(file, files[0], 3) for file in (saved, *kept)]
        print(f"{args.backbone}, {args.image_size} px, bank of {len(det.bank_)} vectors")
        print(
            "| "
            + " | ".join(["", *COLUMNS[: 1 + len(kept)]])
            + " |\n|---"
            + "|---" * (1 + len(kept))
            + "|"
        )
        print(line_of("score and map, ms an image (median)", np.median(times, axis=0), ".1f"))
        print(line_of("the same (best)", times.min(axis=0), ".1f"))
        print(line_of("ratio (median of pairs)", ratios, ".2f"))
        names = ("start to first verdict, s", "the same, s of CPU", "memory of the process, MB")
        for name, values in zip(names, np.transpose(of_processes), strict=True):
            print(line_of(name, values, ".2f"))
        sizes = [file.stat().st_size / 1e6 for file in (saved, *kept)]
        print(line_of("size of the file, MB", sizes, ".1f"))
        noted = [skad.load(file).content_.verified for file in kept]
        for what in ("scores", "maps"):
            differences = [0.0, *(one[f"largest_difference_of_{what}"] for one in noted)]
            print(line_of(f"largest difference of {what} (of the threshold)", differences, ".1g"))


def line_of(name, values, form):
    return f"| {name} | {' | '.join(format(value, form) for value in values)} |"


if __name__ == "__main__":
    main()
