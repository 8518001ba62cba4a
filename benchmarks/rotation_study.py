"""What it brings to learn from rotated copies, for parts that lie in any of four directions.

Image AUROC and false alarms of PatchCore that has learned from images as they are, and from these and
their copies rotated by 90, 180 and 270 degrees; on test images as they are, and each rotated by one of
these angles, drawn at random. Images are squares of one size here, so that nothing is cut off.

    python benchmarks/rotation_study.py PATH/mvtec_pill PATH/casting PATH/aws_aliens --images 30
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from skad import PatchCoreDetector
from skad.datasets import load_folder


def as_squares(files: list, size: int) -> np.ndarray:
    """Read images as (n, size, size, 3)."""
    opened = (Image.open(file).convert("RGB").resize((size, size)) for file in files)
    return np.stack([np.asarray(image) for image in opened])


def turned(images: np.ndarray, quarters: np.ndarray) -> np.ndarray:
    """Rotate every image by its number of quarters."""
    return np.stack([np.rot90(image, n) for image, n in zip(images, quarters, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=30, help="good images to learn, at most")
    args = parser.parse_args()
    print("| set | backbone | learned from | as they are | alarms | rotated | alarms |")
    print("| --- " * 7 + "|")
    for folder in args.folders:
        data, rng = load_folder(folder), np.random.default_rng(0)
        chosen = np.sort(rng.permutation(len(data.X_train))[: args.images])
        train = as_squares([data.X_train[i] for i in chosen], args.image_size)
        test, y = as_squares(data.X_test, args.image_size), np.array(data.y_test)
        both = (test, turned(test, rng.integers(4, size=len(test))))
        four = np.concatenate([turned(train, np.full(len(train), n)) for n in range(4)])
        for name, learned in (("as they are", train), ("four directions", four)):
            detector = PatchCoreDetector(
                args.backbone, weights=args.weights, image_size=args.image_size, random_state=0
            ).fit(learned)
            cells = [folder.name, args.backbone, name]
            for images in both:
                scores = detector.score_samples(images)
                alarms = np.mean(scores[y == 1] < detector.offset_)
                cells += [f"{roc_auc_score(y == -1, -scores):.3f}", f"{100 * alarms:.0f} %"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
