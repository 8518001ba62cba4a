"""Time a training step of ReConPatch and of ReContrast, beside plain loops and the floor.

Plain: the same method written out in float32 as its paper or published code has it, without anything
of skad's. Floor: the floating-point operations of the step's matrix products and convolutions
(counted by torch), at the rate of one large float32 product on this machine. The ways take turns;
medians are printed, of the time that passes and, as others may use the same cores, of CPU time.

    python benchmarks/bench_training.py
    python benchmarks/bench_training.py --image-size 256 --threads 2
    python benchmarks/bench_training.py --image-size 256 --device cuda
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from adamp import AdamP
from plain_recontrast import Decoder, mined_loss, reconstruct
from timing import name_of, product_rate, timed
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skad._features import load_backbone
from skad._features._timm import import_timm
from skad._learning import (
    ReConPatchSettings,
    ReContrastSettings,
    ReContrastTraining,
    build_network,
    decoder_design,
)
from skad._learning.linear_embedding import LinearPair, _Training
from skad._torch.devices import training_precision

Step = Callable[[], object]


def median_seconds(
    ways: dict[str, Step], steps: int, device: str
) -> dict[str, tuple[float, float]]:
    """Let all ways take steps in turn; the first two (of few steps, one) are not counted.

    Returns seconds per step and, of them, seconds on the CPU: of all threads together.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    n_first = min(steps, 2)
    for _ in range(n_first + steps):
        for name, step in ways.items():
            cpu = time.process_time()
            passed = timed(step, device)[0]
            times[name].append((passed, time.process_time() - cpu))
    return {
        name: tuple(map(statistics.median, zip(*seconds[n_first:], strict=True)))  # type: ignore[misc]
        for name, seconds in times.items()
    }


def operations(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def report(
    title: str, items: int, ways: dict[str, Step], floor: float, steps: int, device: str
) -> None:
    print(f"\n| {title} | s per step | CPU s | per second | times the floor |")
    print("| --- | --- | --- | --- | --- |")
    seconds = {**median_seconds(ways, steps, device), "floor": (floor, floor)}
    for name, (passed, cpu) in seconds.items():
        rates = f"{items / passed:,.0f} | {passed / floor:.2f}"
        print(f"| {name} | {passed:.4f} | {cpu:.4f} | {rates} |", flush=True)


# ---- ReConPatch -------------------------------------------------------------------------------------


class PlainReConPatch:
    """Eq. 1 to 8 one after the other: distances by torch.cdist, sets as boolean masks."""

    def __init__(self, dim: int, settings: ReConPatchSettings, device: str) -> None:
        self.settings = settings
        self.online = nn.Sequential(
            nn.Linear(dim, settings.embedding_dim, bias=False),
            nn.Linear(settings.embedding_dim, settings.projection_dim, bias=False),
        ).to(device)
        self.averaged = copy.deepcopy(self.online).requires_grad_(False)
        self.optimizer = AdamP(
            self.online.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )

    def similarities(self, z: torch.Tensor) -> torch.Tensor:  # noqa: D102
        s = self.settings
        distances = torch.cdist(z, z)
        pairwise = torch.exp(-(distances**2) / s.sigma)
        order = distances.argsort(dim=1)
        near, half = (
            torch.zeros_like(distances).scatter_(1, order[:, :n], 1.0)
            for n in (s.k, max(1, s.k // 2))
        )
        shared = near * (near @ near.T) / near.sum(1, keepdim=True)
        reciprocal = half * half.T
        expanded = reciprocal @ shared / reciprocal.sum(1, keepdim=True)
        return s.alpha * pairwise + (1 - s.alpha) * (expanded + expanded.T) / 2

    def step(self, patches: torch.Tensor) -> None:  # noqa: D102
        with torch.no_grad():
            omega = self.similarities(self.averaged(patches))
        z = self.online(patches)
        distances = torch.cdist(z, z)
        delta = distances / distances.mean(1, keepdim=True)
        loss = omega * delta**2 + (1 - omega) * F.relu(self.settings.m - delta) ** 2
        self.optimizer.zero_grad()
        (loss.sum() / len(z)).backward()
        self.optimizer.step()
        for mean, new in zip(self.averaged.parameters(), self.online.parameters(), strict=True):
            mean.data = self.settings.gamma * mean.data + (1 - self.settings.gamma) * new.data


def reconpatch(args: argparse.Namespace, rate: float) -> None:
    for dim in (384, 1536):
        settings = ReConPatchSettings(512, 512, sigma=1000.0)
        generator = torch.Generator().manual_seed(0)
        patches = torch.rand(settings.train_batch_size, dim, generator=generator)
        pair = LinearPair(dim, settings, generator).to(args.device)
        training = _Training(pair, patches.numpy(), settings, generator)
        patches = patches.to(args.device)
        ways = {
            "skad": partial(training.step, patches),
            "plain": partial(PlainReConPatch(dim, settings, args.device).step, patches),
        }
        floor = operations(ways["skad"]) / rate
        title = f"ReConPatch, {len(patches)} patches of {dim} values"
        report(title, len(patches), ways, floor, 5 * args.steps, args.device)


# ---- ReContrast -------------------------------------------------------------------------------------


class PlainReContrast:
    """The published training step, written out in plain_recontrast.py."""

    def __init__(self, device: str) -> None:
        timm = import_timm()
        self.frozen = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3))
        self.frozen.eval().to(device)
        self.encoder, self.decoder = copy.deepcopy(self.frozen), Decoder().to(device)
        self.encoder.train()
        self.decoder.train()
        self.optimizers = [
            torch.optim.AdamW(self.decoder.parameters(), lr=2e-3, weight_decay=1e-5),
            torch.optim.AdamW(self.encoder.parameters(), lr=1e-5, weight_decay=1e-5),
        ]

    def step(self, pixels: torch.Tensor) -> None:  # noqa: D102
        targets, outputs = reconstruct(self.encoder, self.frozen, self.decoder, pixels)
        loss = mined_loss(targets[:3], outputs[:3], 1.0) / 2
        loss = loss + mined_loss(targets[3:], outputs[3:], 1.0) / 2
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()


def recontrast(args: argparse.Namespace, rate: float) -> None:
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).to(args.device)
    scaled = pixels.permute(0, 3, 1, 2).float() / 255
    own: dict[str, Any] = {"adapts": False, "pairs": "own"}
    # bfloat16 without units for it would be emulated, twenty times slower.
    precisions = {"float32", training_precision(torch.device(args.device), "auto")}
    full, distilled = (
        {name: trainer(args, name, **params) for name in sorted(precisions, reverse=True)}
        for params in ({}, own)
    )
    for title, trainers in (("ReContrast", full), ("reverse distillation (B)", distilled)):
        ways: dict[str, Step] = {
            f"skad, {name}": partial(each.step, pixels) for name, each in trainers.items()
        }
        floor = operations(ways["skad, float32"]) / rate
        if trainers is full:
            ways["plain, float32"] = partial(PlainReContrast(args.device).step, scaled)
        size = f"{args.batch_size} images of {args.image_size} px"
        report(f"{title}, {size}", args.batch_size, ways, floor, args.steps, args.device)


def trainer(
    args: argparse.Namespace, precision: str, pairs: str = "cross", adapts: bool = True
) -> ReContrastTraining:
    device = torch.device(args.device)
    frozen = load_backbone("resnet18", None, (1, 2, 3), device)
    network = build_network(
        frozen,
        frozen.trainable_copy().cpu() if adapts else None,
        decoder_design(frozen.body, frozen.channels),
        pairs,
        torch.Generator().manual_seed(0),
    )
    network = network.to(device).to(memory_format=torch.channels_last)
    return ReContrastTraining(
        network, ReContrastSettings(max_iter=2000, bn="train", precision=precision)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rate = product_rate(args.device)
    print(f"{name_of(args.device)}; a float32 product runs at {rate / 1e9:,.0f} GFLOP/s")
    reconpatch(args, rate)
    recontrast(args, rate)


if __name__ == "__main__":
    main()
