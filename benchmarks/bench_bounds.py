"""Count the patches that an image score really needs, and what bounds save.

For every test image of folders in MVTec layout: how many patches are searched in the memory bank
before the most anomalous one is certain (skad/_bank/bounds.py), beside the CPU time of scores alone
and of scores with heat maps, which search them all.

    python benchmarks/bench_bounds.py parts/* --backbone skad_nano --coreset-size 0.01 0.1
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from skad import PatchCoreDetector
from skad._scoring.lazy_scores import compute
from skad.datasets import load_folder


def searched_patches(detector: PatchCoreDetector, files: list[str]) -> tuple[list[int], int]:
    """Patches searched for each image, and the number that there are."""
    counts, n_patches = [], 0
    scorer, embedder = detector._scorer(), detector._find_network()
    for batch in detector._iter_batches(detector._open(files, reset=False)):
        for patches in embedder.embed(batch.pixels):
            scores = scorer._lazy(patches, None)
            compute([(scores, scores.rivals)], scorer.score_patches)
            counts.append(int(scores.certain.sum()))
            n_patches = len(patches)
    return counts, n_patches


def cpu_ms_per_image(function, files: list[str]) -> float:
    function(files[:8])
    start = time.process_time()
    function(files)
    return 1000 * (time.process_time() - start) / len(files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--coreset-size", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument(
        "--images", type=int, default=64, help="to learn from, and to test, at most"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| set | bank | patches searched: median, most | of | score, ms | with map, ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for folder in args.folders:
        data = load_folder(folder)
        test = data.X_test[:: max(1, len(data.X_test) // args.images)][: args.images]
        for size in args.coreset_size:
            detector = PatchCoreDetector(
                args.backbone, weights=args.weights, coreset_size=size, random_state=0, n_jobs=1
            ).fit(data.X_train[: args.images])
            counts, n_patches = searched_patches(detector, test)
            score = cpu_ms_per_image(detector.score_samples, test)
            maps = cpu_ms_per_image(detector.predict_heatmap, test)
            print(
                f"| {data.category} | {len(detector.bank_)} | {np.median(counts):.0f}, {max(counts)} "
                f"| {n_patches} | {score:.1f} | {maps:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
