"""Train skad's bundled backbone: a small network learns the feature maps of larger ones.

A teacher is an ImageNet ResNet-18, an EfficientNet-Lite2, or both; the student sees the same crops of
photographs and the same generated textures and has to give, at every position, the features of their
layers 2 and 3. The result is a float16 safetensors file of the student's trunk.
``docs/skad_nano.md`` is its model card.

Run, for instance, what made the bundled weights::

    python tools/train_nano.py --photos photos/ --resnet18 resnet18.safetensors \
        --out skad/_features/weights/skad_nano.safetensors --workers 1

Every batch follows from the seed and its number, and the state is saved beside the result after every
block of batches, so that an interrupted run is continued by the same command.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from nano_images import TrainingBatches
from safetensors.torch import save
from torch import nn
from torch.utils.data import DataLoader

from skad._features._timm import import_timm
from skad._features.lite import named_as_in_timm
from skad._features.weight_files import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    load_weights,
    read_state_dict,
)
from skad._torch.accelerators import fused

BLOCK = 32  # batches whose images are visited together
LAYERS = (2, 3)

timm = import_timm()


# ---- teachers, student, loss ----------------------------------------------------------------------


def resnet18(file: Path) -> nn.Module:
    body = timm.create_model("resnet18", features_only=True, out_indices=LAYERS)
    load_weights(body, read_state_dict(file), f"--resnet18 {file}")
    return body


def lite2(file: Path) -> nn.Module:
    name = "tf_efficientnet_lite2"
    # TensorFlow's padding moves its features by up to a stride against the student's.
    body = timm.create_model(name, features_only=True, out_indices=LAYERS, pad_type="")
    load_weights(body, named_as_in_timm(read_state_dict(file), name, file), f"--lite2 {file}")
    return body


class Kind(NamedTuple):
    """What there is to know of a teacher: how it is built, and the images that it expects."""

    build: Callable[[Path], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]


TEACHERS = {
    "resnet18": Kind(resnet18, IMAGENET_MEAN, IMAGENET_STD),
    "lite2": Kind(lite2, (0.5,) * 3, (0.5,) * 3),
}


def normalised(
    batch: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    images = batch.permute(0, 3, 1, 2).float() / 255
    shift, scale = (torch.tensor(v, device=batch.device).view(1, 3, 1, 1) for v in (mean, std))
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


class Teacher(nn.Module):
    """A frozen ImageNet network; its features are standardised per channel."""

    def __init__(self, kind: Kind, weights: Path) -> None:
        super().__init__()
        body = kind.build(weights).requires_grad_(False).eval()
        self.kind, self.channels = kind, body.feature_info.channels()
        self.body = fused(body)  # a third less time
        for layer, width in zip(LAYERS, self.channels, strict=True):
            self.register_buffer(f"mean{layer}", torch.zeros(1, width, 1, 1))
            self.register_buffer(f"std{layer}", torch.ones(1, width, 1, 1))

    def features(self, batch: torch.Tensor) -> list[torch.Tensor]:
        maps = self.body(normalised(batch, self.kind.mean, self.kind.std))
        return [layer_map.float() for layer_map in maps]

    @torch.no_grad()
    def measure(self, batches: list[torch.Tensor]) -> None:
        """Take each channel's mean and standard deviation over some batches."""
        maps = [self.features(batch) for batch in batches]
        for layer, of_layer in zip(LAYERS, zip(*maps, strict=True), strict=True):
            values = torch.cat(of_layer)
            getattr(self, f"mean{layer}").copy_(values.mean((0, 2, 3), keepdim=True))
            std = values.std((0, 2, 3), keepdim=True)
            # A channel that hardly ever fires must not drown the others.
            getattr(self, f"std{layer}").copy_(std.clamp_min(float(std.median()) / 100))

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        return [
            (layer_map - getattr(self, f"mean{layer}")) / getattr(self, f"std{layer}")
            for layer, layer_map in zip(LAYERS, self.features(batch), strict=True)
        ]


class Student(nn.Module):
    """skad_nano, and for each teacher and layer the linear map from its stage to their features."""

    def __init__(self, teachers: nn.ModuleDict, start: Path | None) -> None:
        super().__init__()
        self.trunk = timm.create_model("skad_nano")
        if start is not None:
            load_weights(self.trunk, read_state_dict(start), f"--start {start}")
        self.trunk.necks.requires_grad_(False)  # set after training
        widths = [self.trunk.feature_info[layer]["num_chs"] for layer in LAYERS]
        self.heads = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(width, wanted, 1)
                for width, wanted in zip(widths, teacher.channels, strict=True)
            )
            for teacher in teachers.values()
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        stages = list(self.trunk.stages(images))
        return [
            head(stages[layer])
            for of_teacher in self.heads
            for head, layer in zip(of_teacher, LAYERS, strict=True)
        ]


def cosine_loss(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """One minus the cosine similarity, mean over the positions of one layer."""
    return 1 - F.cosine_similarity(given.float(), wanted.float(), dim=1).mean()


# ---- the result -----------------------------------------------------------------------------------


def half_whitening(covariance: torch.Tensor) -> torch.Tensor:
    """Matrix C^(-1/4): between measuring raw distances (I) and Mahalanobis' (C^(-1/2))."""
    n = len(covariance)
    ridge = 1e-3 * covariance.trace() / n * torch.eye(n, dtype=covariance.dtype)
    values, vectors = torch.linalg.eigh(covariance + ridge)
    return (vectors * values**-0.25) @ vectors.T


@torch.no_grad()
def fit_necks(student: Student, batches: list[torch.Tensor]) -> None:
    """Set each neck from the covariance of its stage over images that were not trained on."""
    student.eval()
    images = [normalised(batch, IMAGENET_MEAN, IMAGENET_STD) for batch in batches]
    maps = [list(student.trunk.stages(batch))[1:] for batch in images]
    for neck, of_stage in zip(student.trunk.necks, zip(*maps, strict=True), strict=True):
        rows = torch.cat([m.flatten(2).transpose(1, 2).flatten(0, 1) for m in of_stage])
        neck.weight.copy_(half_whitening(torch.cov(rows.double().T.cpu()))[:, :, None, None])


def save_atomically(write: Callable[[Path], object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)


def export(student: Student, path: Path) -> None:
    """Write the trunk in float16, under timm's names."""
    state = {
        key: (value.to(torch.float16) if value.is_floating_point() else value).cpu().contiguous()
        for key, value in student.trunk.state_dict().items()
    }
    save_atomically(lambda file: file.write_bytes(save(state)), path)


# ---- training -------------------------------------------------------------------------------------


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 2 % of the steps, then a cosine to zero."""
    warm = max(1, steps // 50)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Run:
    """A training run: what is learned, and where it stands."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device(args.device)
        torch.manual_seed(args.seed)
        self.data = TrainingBatches(args.photos, args.batch_size, args.seed)
        teachers = {
            name: Teacher(kind, getattr(args, name))
            for name, kind in TEACHERS.items()
            if getattr(args, name) is not None
        }
        if not teachers:
            raise SystemExit(f"Name a teacher's file: {', '.join('--' + t for t in TEACHERS)}.")
        self.teachers = self._placed(nn.ModuleDict(teachers))
        self.student = self._placed(Student(self.teachers, args.start))
        matrices = [p for p in self.student.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in self.student.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 1e-4}, {"params": vectors, "weight_decay": 0.0}]
        )
        self.blocks_done = 0
        self.checkpoint = args.out.with_suffix(".checkpoint")
        # What shapes the result: a checkpoint of another recipe is not continued.
        shaping = ("blocks", "passes", "batch_size", "lr", "seed")
        self.recipe = repr([sorted(teachers), *(getattr(args, name) for name in shaping)])

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(self.device, memory_format=torch.channels_last)

    def begin(self) -> None:
        """Measure the teachers, and take up the checkpoint if there is one."""
        for teacher in self.teachers.values():
            teacher.measure(self.unseen())
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state.pop("recipe") != self.recipe:
            raise SystemExit(f"{self.checkpoint} is of a run with other options: delete it first.")
        self.blocks_done = state.pop("blocks_done")
        for name, of_part in state.items():
            getattr(self, name).load_state_dict(of_part)
        print(f"continued after block {self.blocks_done}", flush=True)

    def unseen(self) -> list[torch.Tensor]:
        """Return eight batches that no training step sees."""
        return [self.data[-1 - i].to(self.device) for i in range(8)]

    def save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("student", "optimizer")}
        state |= {"recipe": self.recipe, "blocks_done": self.blocks_done}
        save_atomically(lambda file: torch.save(state, file), self.checkpoint)

    def train(self) -> None:
        first = self.blocks_done * BLOCK
        loader = DataLoader(
            self.data,
            batch_size=None,
            sampler=range(first, self.args.blocks * BLOCK),
            num_workers=self.args.workers,
            prefetch_factor=BLOCK if self.args.workers else None,
        )
        self.student.train()
        began, block = time.monotonic(), []
        for batch in loader:
            block.append(batch)
            if len(block) < BLOCK:
                continue
            losses = self._learn(block)
            block = []
            self.blocks_done += 1
            self.save()
            done = self.blocks_done - first // BLOCK
            spent = time.monotonic() - began
            left = spent / done * (self.args.blocks - self.blocks_done)
            shown = " ".join(f"{loss:.4f}" for loss in losses)
            print(
                f"block {self.blocks_done}/{self.args.blocks}  loss per teacher and layer {shown}  "
                f"{spent:.0f} s, {left:.0f} s left",
                flush=True,
            )

    def _learn(self, block: list[torch.Tensor]) -> np.ndarray:
        """Visit the images of a block `passes` times; the teachers see them once."""
        images = torch.cat(block)
        wanted = [torch.cat(maps) for maps in zip(*map(self._taught, block), strict=True)]
        rng = np.random.default_rng([self.args.seed, 1, self.blocks_done])
        losses = []
        for i in range(self.args.passes):
            order = torch.from_numpy(rng.permutation(len(images)))
            for j, rows in enumerate(order.split(self.args.batch_size)):
                step = (self.blocks_done * self.args.passes + i) * BLOCK + j
                losses.append(self._step(step, images[rows], [m[rows] for m in wanted]))
        return np.mean(losses, axis=0)

    @torch.no_grad()
    def _taught(self, batch: torch.Tensor) -> list[torch.Tensor]:
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            maps = [layer for teacher in self.teachers.values() for layer in teacher(batch)]
        return [layer.to(torch.float16) for layer in maps]

    def _step(self, step: int, batch: torch.Tensor, wanted: list[torch.Tensor]) -> list[float]:
        steps = self.args.blocks * self.args.passes * BLOCK
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, self.args.lr)
        images = normalised(batch.to(self.device), IMAGENET_MEAN, IMAGENET_STD)
        with torch.autocast(self.device.type, torch.bfloat16):
            given = self.student(images)
        losses = [cosine_loss(g, w) for g, w in zip(given, wanted, strict=True)]
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses).backward()
        self.optimizer.step()
        return [loss.item() for loss in losses]


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of images")
    parser.add_argument("--resnet18", type=Path, help="ResNet-18 weights file")
    parser.add_argument("--lite2", type=Path, help="EfficientNet-Lite2 .pth file")
    parser.add_argument("--start", type=Path, help="weights file of skad_nano to begin with")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--blocks", type=int, default=50, help=f"each of {BLOCK} new batches")
    parser.add_argument("--passes", type=int, default=3, help="visits to the images of a block")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=8e-3, help="peak learning rate of AdamW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare images")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = read_arguments(words)
    run = Run(args)
    run.begin()
    run.train()
    fit_necks(run.student, run.unseen())
    export(run.student, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
