"""A network of one's own in a table: PatchCore on Gabor filters, a row of docs/skad_nano.md.

The row joins those that ``python -m skad.benchmark`` has left in the same folder::

    python benchmarks/gabor_filters.py parts --seeds 0 1 2 --out tables
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from skad.benchmark import Preset, run, write_tables


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
        """(B, 3, S, S) -> one layer of 3 x wavelengths x orientations channels at stride 8."""
        planes = images.flatten(0, 1)[:, None]
        layers = []
        for i, (radius, stride) in enumerate(zip(self.radii, self.strides, strict=True)):
            padded = F.pad(planes, (radius,) * 4, mode="reflect")
            even_odd = F.conv2d(padded, getattr(self, f"waves{i}"), stride=stride)
            magnitude = even_odd.unflatten(1, (-1, 2)).square().sum(2).sqrt()
            layers.append(F.avg_pool2d(magnitude, 8 // stride))
        return [torch.cat(layers, dim=1).unflatten(0, (len(images), 3)).flatten(1, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of categories in MVTec layout")
    parser.add_argument("--categories", nargs="+", help="some of them; all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="figures are their mean")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--out", type=Path, required=True, help="folder for results and tables")
    args = parser.parse_args()

    preset = Preset("PatchCore, Gabor filters", "patchcore", {"backbone": GaborBank()})
    run(
        args.data,
        {"gabor-filters": preset},
        args.out,
        categories=args.categories,
        seeds=args.seeds,
        grid={"image_size": [args.image_size]},
        verbose=1,
    )
    print(write_tables(args.out)[0].read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
