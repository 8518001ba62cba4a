"""Compare backbones in one detector: the table of docs/skad_nano.md.

PatchCore with its defaults on folders in MVTec layout, with skad_nano, with ResNet-18 weights from a
file, with random weights and with a bank of Gabor filters; figures are means over seeds.

    python benchmarks/compare_backbones.py parts/* --weights resnet18.safetensors --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from skad import FeatureStore, PatchCoreDetector
from skad._features.backbones import load_backbone
from skad.datasets import load_folder

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from inspect_folder import fit_and_score, print_row


class GaborBank(nn.Module):
    """Magnitudes of complex Gabor filters of each colour channel, on a grid of 8 pixels.

    Parameters
    ----------
    wavelengths : sequence of float
        In pixels; the Gaussian's standard deviation is half of each.
    orientations : int
        Evenly spread over half a turn.
    """

    def __init__(
        self, wavelengths: Sequence[float] = (4, 8, 16, 32), orientations: int = 8
    ) -> None:
        super().__init__()
        self.radii = [int(1.5 * wavelength) for wavelength in wavelengths]
        self.strides = [int(min(8, wavelength / 2)) for wavelength in wavelengths]
        for i, (wavelength, radius) in enumerate(zip(wavelengths, self.radii, strict=True)):
            y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
            envelope = np.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
            waves = []
            for angle in np.arange(orientations) * np.pi / orientations:
                phase = 2 * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle))
                for wave in (np.cos(phase), np.sin(phase)):
                    kernel = envelope * wave
                    kernel -= envelope * kernel.sum() / envelope.sum()  # blind to brightness
                    waves.append(kernel / np.linalg.norm(kernel))
            self.register_buffer(f"waves{i}", torch.tensor(np.array(waves)).float()[:, None])

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, S, S) -> one level of 3 x wavelengths x orientations channels at stride 8."""
        planes = images.flatten(0, 1)[:, None]
        layers = []
        for i, (radius, stride) in enumerate(zip(self.radii, self.strides, strict=True)):
            padded = F.pad(planes, (radius,) * 4, mode="reflect")
            even_odd = F.conv2d(padded, getattr(self, f"waves{i}"), stride=stride)
            magnitude = even_odd.unflatten(1, (-1, 2)).square().sum(2).sqrt()
            layers.append(F.avg_pool2d(magnitude, 8 // stride))
        return [torch.cat(layers, dim=1).unflatten(0, (len(images), 3)).flatten(1, 2)]


def backbones(weights: Path) -> dict[str, dict]:
    """Name in the table -> parameters of the detector."""
    return {
        "skad_nano": {"backbone": "skad_nano"},
        "ResNet-18, ImageNet": {"backbone": "resnet18", "weights": weights},
        "ResNet-18, random weights": {"backbone": "resnet18", "weights": None},
        "skad_nano, random weights": {"backbone": "skad_nano", "weights": None},
        "Gabor filters": {"backbone": GaborBank()},
    }


def forward_ms(params: dict, threads: int = 1, repeats: int = 15) -> float:
    """Milliseconds of one image of 224 px through the backbone, median."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net = load_backbone(
        params["backbone"], params.get("weights", "pretrained"), (2, 3), torch.device("cpu")
    )
    pixels = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    times = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            net(pixels)
            times.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return 1000 * float(np.median(times))


def mean_figures(params: dict, data, args: argparse.Namespace) -> np.ndarray:
    """Image and pixel AUROC, mean over seeds."""
    # Seeds differ in the coreset alone: an image goes through the backbone once.
    with tempfile.TemporaryDirectory() as folder:
        params = {**params, "image_size": args.image_size, "precision": args.precision}
        # The folder is one backbone's: its name distinguishes nothing.
        store = FeatureStore(folder, network="compared")
        detectors = (
            PatchCoreDetector(**params, memory=store, random_state=seed) for seed in args.seeds
        )
        return np.mean([fit_and_score(detector, data)[1][:2] for detector in detectors], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders in MVTec layout")
    parser.add_argument("--weights", type=Path, required=True, help="ResNet-18 ImageNet weights")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="none: times alone")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--only", nargs="+", help="names of backbones; all by default")
    args = parser.parse_args()

    sets = [load_folder(folder) for folder in args.folders if args.seeds]
    print_row(
        ["backbone", *(data.category for data in sets), "mean", "ms/image, 1 core"], markdown=True
    )
    print_row(["---"] * (len(sets) + 3), markdown=True)
    for name, params in backbones(args.weights).items():
        if args.only and name not in args.only:
            continue
        figures = [mean_figures(params, data, args) for data in sets]
        if figures:
            figures.append(np.nanmean(figures, axis=0))
        cells = [f"{image:.3f} / {pixel:.3f}".replace(" / nan", "") for image, pixel in figures]
        print_row([name, *cells, f"{forward_ms(params):.1f}"], markdown=True)


if __name__ == "__main__":
    main()
