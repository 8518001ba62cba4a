"""How far a GPU's scores and heat maps are from the CPU's, on real images.

Detectors are fitted on the GPU with the good images of a folder in MVTec layout, and score its test
images on both. Largest deviations are printed: of scores relative to the CPU's, of maps relative to the
highest value of each.

    python benchmarks/compare_devices.py parts/bottle --weights resnet18.safetensors
"""

from __future__ import annotations

import argparse

import numpy as np

from skad import PatchCoreDetector, ReConPatchDetector
from skad.datasets import load_folder

SETTINGS = {
    "PatchCore, 1 %": (PatchCoreDetector, {}),
    "PatchCore, 10 %, b=9": (
        PatchCoreDetector,
        {"coreset_size": 0.1, "b": 9, "image_score": "patch"},
    ),
    "ReConPatch, 1 %": (ReConPatchDetector, {"epochs": 3}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", help="file; without, random weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=60, help="of each kind, at most")
    args = parser.parse_args()
    parts = load_folder(args.folder)
    good = parts.X_train[: args.images]
    test = parts.X_test[:: max(1, len(parts.X_test) // args.images)]
    print(f"{args.backbone}, {len(good)} good images, {len(test)} others, {args.device}")
    for name, (kind, params) in SETTINGS.items():
        detector = kind(
            args.backbone, weights=args.weights, batch_size=16, random_state=0, **params
        )
        detector.set_params(device=args.device).fit(good)
        maps, scores = detector.predict_heatmap(test, return_scores=True)
        together = detector.score_samples(test)
        detector.set_params(device="cpu")
        expected, of_cpu = detector.predict_heatmap(test, return_scores=True)
        off = max(np.abs(found / of_cpu - 1).max() for found in (scores, together))
        of_maps = max(np.abs(a - b).max() / b.max() for a, b in zip(maps, expected, strict=True))
        print(f"{name:22} scores {off:.1e}  maps {of_maps:.1e}", flush=True)


if __name__ == "__main__":
    main()
