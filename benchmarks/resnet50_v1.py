"""A ResNet-50 whose stages take their stride early, as Keras has it: a row of docs/backbones.md.

timm's ResNets halve the resolution in the 3 x 3 convolution of a stage's first block, those of Keras in
the 1 x 1 convolution before it; weights of one kind are wrong in the other. The row joins those that
``python -m skad.benchmark`` has left in the same folder::

    python benchmarks/resnet50_v1.py sets resnet50_keras.safetensors --images 60 --out tables
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from skad._features._timm import import_timm
from skad.benchmark import Preset, run, write_tables


class ResNet50V1(nn.Module):
    """Layers 2 and 3 of a ResNet-50 with weights of Keras under the names of timm.

    Parameters
    ----------
    weights : path-like
        A .safetensors file.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = import_timm().create_model(
            "resnet50", features_only=True, out_indices=(2, 3)
        )
        state = {key: value.float() for key, value in load_file(weights).items()}
        missing = self.network.load_state_dict(state, strict=False).missing_keys
        if any(not key.endswith("num_batches_tracked") for key in missing):
            raise ValueError(f"{weights} lacks {missing[0]} and {len(missing) - 1} others.")
        for stage in (self.network.layer2, self.network.layer3):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, S, S) -> maps of strides 8 and 16 with 512 and 1,024 channels."""
        return self.network(images)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of categories in MVTec layout")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", type=int, help="training images per category, at most; all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="figures are their mean")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--out", type=Path, required=True, help="folder for results and tables")
    args = parser.parse_args()

    network = ResNet50V1(args.weights).eval()
    run(
        args.data,
        {"resnet50-v1": Preset("PatchCore, ResNet-50 v1", "patchcore", {"backbone": network})},
        args.out,
        seeds=args.seeds,
        grid={"image_size": [args.image_size]},
        n_images=args.images,
        verbose=1,
    )
    print(write_tables(args.out)[0].read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
