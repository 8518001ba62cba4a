r"""ReContrast written out plainly, as a second opinion on figures and times.

Nothing of skad's training is used: whole-batch heads, gradient hooks, two optimisers, a DataLoader,
float32, scipy's Gaussian. ResNet-18 alone. What it prints compares with
``python -m skad.benchmark ... --preset recontrast``. Run, for instance::

    python benchmarks/plain_recontrast.py parts/bottle --weights resnet18.safetensors \
        --image-size 128 --iterations 200 --seeds 1 111
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skad._features._timm import import_timm
from skad.datasets import load_folder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; the first may halve or double the resolution."""

    def __init__(self, n_in: int, n_out: int, scale: str = "same") -> None:
        super().__init__()
        stride = 2 if scale == "down" else 1
        if scale == "up":
            self.first: nn.Module = nn.ConvTranspose2d(n_in, n_out, 2, 2, bias=False)
        else:
            self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Sequential()
        if scale == "up":
            to = nn.ConvTranspose2d(n_in, n_out, 2, 2, bias=False)
            self.shortcut = nn.Sequential(to, nn.BatchNorm2d(n_out))
        elif scale == "down":
            to = nn.Conv2d(n_in, n_out, 1, 2, bias=False)
            self.shortcut = nn.Sequential(to, nn.BatchNorm2d(n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        y = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        return F.relu(y + self.shortcut(x))


def halving(n_in: int, n_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU())


class Decoder(nn.Module):
    """Bottleneck, three stages and six heads of the decoder for ResNet-18."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(halving(64, 128), halving(128, 256))
        self.layer2 = halving(128, 256)
        self.bottleneck = nn.Sequential(Block(768, 512, "down"), Block(512, 512))
        self.stages = nn.ModuleList(
            nn.Sequential(Block(2 * c, c, "up"), Block(c, c)) for c in (256, 128, 64)
        )
        self.heads = nn.ModuleList(nn.Conv2d(c, c, 1) for c in (64, 128, 256) * 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:  # noqa: D102
        joined = torch.cat([self.layer1(maps[0]), self.layer2(maps[1]), maps[2]], dim=1)
        x, layers = self.bottleneck(joined), []
        for stage in self.stages:
            x = stage(x)
            layers.insert(0, x)
        return [head(y) for head, y in zip(self.heads, layers * 2, strict=True)]


def reconstruct(
    encoder: nn.Module, frozen: nn.Module, decoder: nn.Module, x: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Targets and reconstructions of the six pairs."""
    trained = encoder(x)
    with torch.no_grad():
        fixed = frozen(x)
    both = decoder([torch.cat(pair) for pair in zip(trained, fixed, strict=True)])
    n = len(x)
    return fixed + trained, [y[:n] for y in both[:3]] + [y[n:] for y in both[3:]]


def forget(gradient: torch.Tensor, easy: torch.Tensor) -> torch.Tensor:
    return torch.where(easy, torch.zeros_like(gradient), gradient)


def mined_loss(
    targets: list[torch.Tensor], outputs: list[torch.Tensor], alpha: float
) -> torch.Tensor:
    """Sum over layers of 1 - cosine of whole maps; easy positions get no gradient."""
    total = torch.zeros(())
    for given, output in zip(targets, outputs, strict=True):
        target = given.detach()
        with torch.no_grad():
            distance = 1 - F.cosine_similarity(target, output)[:, None]
            easy = distance < distance.mean() + alpha * distance.std()
        total = total + (1 - F.cosine_similarity(target.flatten(1), output.flatten(1))).mean()
        output.register_hook(partial(forget, easy=easy))
    return total


def read(files: list[str], size: int) -> torch.Tensor:
    pixels = [
        np.asarray(Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
        for file in files
    ]
    scaled = torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def measure(nets: list[nn.Module], images: torch.Tensor, y: np.ndarray) -> dict[str, float]:
    """Image AUROC from all maps, from those of the frozen and of the trained encoder."""
    for net in nets:
        net.eval()
    halves: dict[str, list[float]] = {"all": [], "frozen": [], "trained": []}
    with torch.no_grad():
        for image in images:
            targets, outputs = reconstruct(*nets, image[None])  # type: ignore[arg-type]
            maps = [
                F.interpolate(
                    (1 - F.cosine_similarity(target, output))[None],
                    size=image.shape[1:],
                    mode="bilinear",
                    align_corners=True,
                )[0, 0].numpy()
                for target, output in zip(targets, outputs, strict=True)
            ]
            for name, part in {"all": maps, "frozen": maps[:3], "trained": maps[3:]}.items():
                halves[name].append(float(gaussian_filter(np.sum(part, axis=0), 4).max()))
    return {name: float(roc_auc_score(y == -1, scores)) for name, scores in halves.items()}


def train(args: argparse.Namespace, images: torch.Tensor, seed: int) -> list[nn.Module]:
    """Train as the published code does, in float32; print seconds per step."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (as published)
    torch.manual_seed(seed)
    frozen = import_timm().create_model("resnet18", features_only=True, out_indices=(1, 2, 3))
    frozen.load_state_dict(load_file(args.weights))
    frozen.eval()
    encoder, decoder = copy.deepcopy(frozen), Decoder()
    optimizers = [
        torch.optim.AdamW(decoder.parameters(), lr=2e-3, weight_decay=1e-5),
        torch.optim.AdamW(encoder.parameters(), lr=1e-5, weight_decay=1e-5),
    ]
    encoder.train()
    decoder.train()
    times: list[float] = []
    while len(times) < args.iterations:
        for (x,) in DataLoader(TensorDataset(images), 16, shuffle=True):
            start = time.perf_counter()
            alpha = min(-3 + 4 * len(times) / (0.1 * args.iterations), 1)
            targets, outputs = reconstruct(encoder, frozen, decoder, x)
            loss = mined_loss(targets[:3], outputs[:3], alpha) / 2
            loss = loss + mined_loss(targets[3:], outputs[3:], alpha) / 2
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            times.append(time.perf_counter() - start)
            if len(times) == args.iterations:
                break
    print(f"{np.median(times):.3f} s per step, loss {loss.item():.4f}", end="; ", flush=True)
    return [encoder, frozen, decoder]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders in MVTec layout")
    parser.add_argument("--weights", required=True, help="safetensors file of ResNet-18")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--seeds", nargs="+", type=int, default=[111])
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for folder in args.folders:
        data = load_folder(folder)
        images, tests = (read(files, args.image_size) for files in (data.X_train, data.X_test))
        for seed in args.seeds:
            print(f"{folder.name}, seed {seed}: ", end="", flush=True)
            figures = measure(train(args, images, seed), tests, data.y_test)
            print(", ".join(f"{name} {value:.3f}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
