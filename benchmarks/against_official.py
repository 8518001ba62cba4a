"""Compare PatchCore's scores with those of its authors' code, which you clone yourself.

The published code loads a backbone in train mode and sends an image of ones through it to learn the
sizes of its layers; that moves the running statistics of every batch norm a tenth of the way towards
this image. Each set is therefore run three times: by the published code as it is, by the published code
with the backbone in eval mode, and by skad. All see the same pixels and weights and keep the same
fraction of patches. In the end skad scores with the bank that the published code has chosen: there the
scores must agree, whatever the coresets' random starts are.

    git clone https://github.com/amazon-science/patchcore-inspection
    python benchmarks/against_official.py patchcore-inspection sets/mvtec_bottle sets/aws_aliens \
        --backbone resnet18 --weights resnet18.safetensors --images 60
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from skad import PatchCoreDetector
from skad._bank import MemoryBank
from skad._features._timm import import_timm
from skad._images import Geometry, as_image_source, iter_batches
from skad.datasets import load_folder
from skad.metrics import image_auroc

BATCH = 8
LAYERS = (2, 3)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("clone", type=Path, help="of amazon-science/patchcore-inspection")
    parser.add_argument("folders", type=Path, nargs="+", help="sets in MVTec layout")
    parser.add_argument("--backbone", default="resnet18", help="a ResNet, as torchvision names it")
    parser.add_argument("--weights", type=Path, help="a safetensors file; random without it")
    parser.add_argument("--images", type=int, help="training images, at most; all")
    parser.add_argument("--image-size", type=int, default=224, help="cropped from eight sevenths")
    parser.add_argument("--fraction", type=float, default=0.01, help="of the patches that is kept")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import_their_code(args.clone)
    print("| set | train mode, as loaded | eval mode | skad | with their bank, skad deviates by |")
    print("| --- " * 5 + "|")
    for folder in args.folders:
        compare(folder, args)


def import_their_code(clone: Path) -> None:
    """Make their package importable; it needs faiss-cpu, tqdm and torchvision."""
    if not (clone / "src" / "patchcore").is_dir():
        sys.exit(
            f"{clone} holds no src/patchcore: pass a clone of "
            "https://github.com/amazon-science/patchcore-inspection."
        )
    # Declares what a torchvision of another build lacks; does nothing where it lacks nothing.
    import_timm()
    sys.path.insert(0, str(clone / "src"))


def compare(folder: Path, args: argparse.Namespace) -> None:
    """Print a line of the table."""
    data = load_folder(folder)
    n = min(args.images or len(data.X_train), len(data.X_train))
    chosen = np.linspace(0, len(data.X_train) - 1, n).round().astype(int)
    learned = pixels([data.X_train[i] for i in chosen], args.image_size)
    tested = pixels(data.X_test, args.image_size)
    network = backbone(args)
    published = [run_theirs(network, learned, tested, mode, args) for mode in (True, False)]
    ours, deviation = run_ours(network, learned, tested, published[1], args)
    cells = [image_auroc(data.y_test, -scores) for scores, _ in published]
    cells.append(image_auroc(data.y_test, ours))
    print(
        f"| {folder.name} | {' | '.join(f'{c:.4f}' for c in cells)} | {deviation:.1e} |", flush=True
    )


def pixels(files: list[str], size: int) -> np.ndarray:
    """Resize and crop files as the published code does: the same array goes to both."""
    geometry = Geometry("crop", size, round(size * 8 / 7))
    batches = iter_batches(as_image_source(files), geometry, BATCH)
    return np.concatenate([batch.pixels for batch in batches])


def backbone(args: argparse.Namespace) -> torch.nn.Module:
    """Make a network of torchvision's with the weights of the file."""
    import torchvision

    torch.manual_seed(args.seed)
    network = getattr(torchvision.models, args.backbone)(weights=None)
    if args.weights is not None:
        missing, _ = network.load_state_dict(load_file(args.weights), strict=False)
        # Layers behind those that are used, and what counts batches during a training.
        unused = ("layer4", "fc.")
        missing = [m for m in missing if not m.startswith(unused) and "num_batches" not in m]
        if missing:
            sys.exit(f"{args.weights} lacks {missing}")
    return network


def run_theirs(
    network: torch.nn.Module, learned: np.ndarray, tested: np.ndarray, train: bool, args: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Fit and score by the published code; return anomaly scores and the bank."""
    import copy

    from patchcore.common import FaissNN
    from patchcore.patchcore import PatchCore
    from patchcore.sampler import ApproximateGreedyCoresetSampler

    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002 - theirs draws from it
    device = torch.device("cpu")
    model = PatchCore(device)
    model.load(
        backbone=copy.deepcopy(network).train(train),
        layers_to_extract_from=[f"layer{layer}" for layer in LAYERS],
        device=device,
        input_shape=(3, args.image_size, args.image_size),
        pretrain_embed_dimension=1024,
        target_embed_dimension=1024,
        featuresampler=ApproximateGreedyCoresetSampler(args.fraction, device),
        nn_method=FaissNN(False, torch.get_num_threads()),
    )
    model.fit(normalised(learned))
    scores = [score for batch in normalised(tested) for score in model.predict(batch)[0]]
    return np.asarray(scores), model.anomaly_scorer.detection_features


def normalised(images: np.ndarray) -> list[torch.Tensor]:
    """Batches as their loader gives them."""
    parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return [
        ((torch.from_numpy(part).float() / 255 - MEAN) / STD).permute(0, 3, 1, 2) for part in parts
    ]


def run_ours(
    network: torch.nn.Module,
    learned: np.ndarray,
    tested: np.ndarray,
    theirs: tuple[np.ndarray, np.ndarray],
    args: argparse.Namespace,
) -> tuple[np.ndarray, float]:
    """Fit and score by skad; return its scores, and how far they are from theirs with their bank."""
    detector = PatchCoreDetector(
        args.backbone,
        weights=None if args.weights is None else str(args.weights),
        layers=LAYERS,
        patch_size=3,
        image_size=args.image_size,
        geometry="squash",  # cropped already
        aggregation="adaptive",
        distance="squared",
        coreset_method="approximate",
        coreset_size=args.fraction,
        image_score="patch",
        whitening=0.0,
        contamination=0.1,
        batch_size=BATCH,
        random_state=args.seed,
    )
    if args.weights is None:
        detector.set_params(backbone=network.eval())
    scores = detector.fit(learned).score_samples(tested)
    their_scores, bank = theirs
    detector.bank_ = MemoryBank(bank, np.zeros(len(bank), dtype=int))
    return scores, float(np.max(np.abs(-detector.score_samples(tested) / their_scores - 1)))


if __name__ == "__main__":
    main()
