"""Train skad's bundled backbone: a small network learns the feature maps of a large one.

The teacher is an ImageNet ResNet-18; the student sees the same crops of photographs and the same
generated textures and has to give, at every position, the teacher's features of layers 2 and 3. The
result is a float16 safetensors file of the student's trunk. ``docs/skad_nano.md`` is its model card.

Run, for instance::

    python tools/train_nano.py --photos photos/ --teacher resnet18.safetensors \
        --out skad/_features/weights/skad_nano.safetensors

Every batch follows from the seed and its number, and the state is saved beside the result after every
block of batches, so that an interrupted run is continued by the same command.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import save
from torch import nn
from torch.utils.data import DataLoader, Dataset

from skad._features._timm import import_timm
from skad._features.weight_files import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    load_weights,
    read_state_dict,
)

SIDE = 160  # pixels of a training image
CROP = (80, 320)  # shortest and longest side of a crop, in pixels of the photograph
BLOCK = 32  # batches whose images are visited together
GENERATED = 0.25  # fraction of the images that are generated, not photographed
LOSS_WEIGHTS = {1: 0.5, 2: 1.0, 3: 1.0}
# Layer 1 is compared in means of 2 x 2 positions: a quarter of the work.
POOLED = {1: 2, 2: 1, 3: 1}
TEACHER_CHANNELS = {1: 64, 2: 128, 3: 256}

timm = import_timm()

# What docs/skad_nano.md compares: changes to the design that is bundled.
DESIGNS: dict[str, dict] = {
    "bundled": {},
    "wide": {"channels": (32, 64, 160)},
    "bottleneck": {
        "block": timm.models.resnet.Bottleneck,
        "layers": (2, 4, 6),
        "channels": (16, 32, 64),
    },
}


# ---- images ---------------------------------------------------------------------------------------


def coloured_noise(rng: np.random.Generator, side: int, channels: int) -> np.ndarray:
    """Noise with a random power law and a random direction: (side, side, channels) around 0."""
    fy, fx = np.meshgrid(
        np.fft.fftfreq(side).astype(np.float32),
        np.fft.rfftfreq(side).astype(np.float32),
        indexing="ij",
    )
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(-1.6, 1.6))
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = fy * np.cos(angle) - fx * np.sin(angle)
    frequency = np.hypot(along * stretch, across / stretch) + 1 / side
    if rng.random() < 0.4:  # a band: grains of one size
        centre = np.exp(rng.uniform(np.log(0.02), np.log(0.35)))
        power = np.exp(-((np.log(frequency / centre) / rng.uniform(0.15, 0.6)) ** 2))
    else:
        power = frequency ** -rng.uniform(0.3, 2.2)
    white = rng.standard_normal((channels, side, side), dtype=np.float32)
    noise = scipy.fft.irfft2(scipy.fft.rfft2(white) * power, s=(side, side))
    return noise.transpose(1, 2, 0) / noise.std()


def grating(rng: np.random.Generator, side: int) -> np.ndarray:
    """Stripes, a weave or a grid of dots, slightly bent: (side, side, 1) float32 around 0."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bend = coloured_noise(rng, side, 1)[..., 0] * rng.uniform(0, 1.5)
    pattern = np.ones((side, side), np.float32)
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(40)))
    for turn in (0, np.pi / 2)[: rng.integers(1, 3)]:
        along = x * np.cos(angle + turn) + y * np.sin(angle + turn)
        wave = np.sin(2 * np.pi * (along + bend) / period)
        pattern = pattern * (np.sign(wave) if rng.random() < 0.4 else wave)
    return pattern[..., None]


def gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """Light that falls off in a direction or from a spot: (side, side, 1) float32 around 0."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        return (x * np.cos(angle) + y * np.sin(angle))[..., None]
    cx, cy = rng.uniform(-1, 1, 2)
    return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(0.2, 2))[..., None] - 0.5


def shape_mask(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw one polygon, ellipse, line or scratch as a mask."""
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    kind = rng.integers(4)
    centre, radius = rng.uniform(0, side, 2), np.exp(rng.uniform(np.log(4), np.log(side / 2)))
    if kind == 0:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        draw.polygon([tuple(corner) for corner in corners], fill=255)
    elif kind == 1:
        rx, ry = radius, radius * rng.uniform(0.3, 1)
        draw.ellipse([centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry], fill=255)
    else:
        n = 2 if kind == 2 else rng.integers(3, 8)
        steps = rng.normal(0, radius, (n, 2))
        points = centre + np.cumsum(steps, axis=0)
        draw.line([tuple(point) for point in points], fill=255, width=int(rng.integers(1, 9)))
    return mask


def generated_surface(rng: np.random.Generator, side: int) -> np.ndarray:
    """One texture over a base colour: (side, side, 3) float32 in 0..1."""
    base = rng.uniform(0.1, 0.9, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0.1, 0.9))
    if rng.random() < 0.7:
        texture = coloured_noise(rng, side, 1 if rng.random() < 0.6 else 3)
    else:
        texture = grating(rng, side)
    if texture.shape[-1] == 1:  # one pattern, tinted
        texture = texture * rng.uniform(0.6, 1.0, 3).astype(np.float32)
    surface = base + texture * rng.uniform(0.01, 0.2) + gradient(rng, side) * rng.uniform(0, 0.25)
    return np.clip(surface, 0, 1).astype(np.float32)


def with_shapes(rng: np.random.Generator, image: np.ndarray, n: int) -> np.ndarray:
    """Lay `n` shapes of other surfaces or plain colours over an image."""
    side = image.shape[0]
    for _ in range(n):
        mask = np.asarray(shape_mask(rng, side), np.float32)[..., None] / 255
        mask *= rng.uniform(0.3, 1.0)
        filling = generated_surface(rng, side) if rng.random() < 0.3 else rng.uniform(0, 1, 3)
        image = image * (1 - mask) + filling * mask
    return image.astype(np.float32)


def random_crop(rng: np.random.Generator, photo: np.ndarray) -> np.ndarray:
    """Cut a square of random size and place and scale it: (SIDE, SIDE, 3) float32 in 0..1."""
    height, width = photo.shape[:2]
    size = min(np.exp(rng.uniform(*np.log(CROP))), height, width)
    x, y = rng.uniform(0, width - size), rng.uniform(0, height - size)
    crop = Image.fromarray(photo).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, box=(x, y, x + size, y + size)
    )
    return np.asarray(crop, np.float32) / 255


def varied(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Vary colour, light, contrast and noise, as cameras and lamps do."""
    if rng.random() < 0.4:  # industrial cameras are often grey
        image = np.repeat(image @ rng.dirichlet([2, 4, 1]).astype(np.float32)[:, None], 3, axis=2)
    elif rng.random() < 0.4:
        image = image[..., rng.permutation(3)] * rng.uniform(0.7, 1.2, 3)
    if rng.random() < 0.3:
        image = image + gradient(rng, SIDE) * rng.uniform(-0.4, 0.4)
    if rng.random() < 0.7:
        mean = image.mean()
        contrast = np.exp(rng.uniform(np.log(0.25), np.log(1.6)))
        image = (image - mean) * contrast + np.clip(mean + rng.uniform(-0.25, 0.25), 0.05, 0.95)
    if rng.random() < 0.3:
        image = np.clip(image, 0, 1) ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.4:
        shape = image.shape if rng.random() < 0.5 else (*image.shape[:2], 1)
        sigma = np.exp(rng.uniform(np.log(0.005), np.log(0.08)))
        image = image + sigma * rng.standard_normal(shape, dtype=np.float32)
    image = np.rot90(image, rng.integers(4))
    return image[:, ::-1] if rng.random() < 0.5 else image


class TrainingBatches(Dataset):
    """Batch number -> (B, SIDE, SIDE, 3) uint8 images; the same number gives the same batch."""

    def __init__(self, folder: Path, batch_size: int, seed: int) -> None:
        files = sorted(
            p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"}
        )
        if not files:
            raise SystemExit(f"--photos {folder}: no .jpg or .png files there.")
        self.photos = [np.asarray(Image.open(file).convert("RGB")) for file in files]
        self.batch_size, self.seed = batch_size, seed

    def __getitem__(self, number: int) -> torch.Tensor:
        # Negative numbers are batches that no training step sees.
        rng = np.random.default_rng([self.seed, 0, int(number < 0), abs(number)])
        images = [self._image(rng) for _ in range(self.batch_size)]
        return torch.from_numpy(np.stack(images))

    def _image(self, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < GENERATED:
            image = with_shapes(rng, generated_surface(rng, SIDE), rng.integers(0, 5))
        else:
            image = random_crop(rng, self.photos[rng.integers(len(self.photos))])
            if rng.random() < 0.2:
                image = with_shapes(rng, image, rng.integers(1, 3))
        return np.round(255 * np.clip(varied(rng, image), 0, 1)).astype(np.uint8)


# ---- teacher, student, loss -----------------------------------------------------------------------


class Teacher(nn.Module):
    """The frozen ImageNet network; its features are standardised per channel."""

    def __init__(self, weights: Path, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.body = timm.create_model("resnet18", features_only=True, out_indices=layers)
        load_weights(self.body, read_state_dict(weights), f"--teacher {weights}")
        for layer in layers:
            shape = (1, TEACHER_CHANNELS[layer], 1, 1)
            self.register_buffer(f"mean{layer}", torch.zeros(shape))
            self.register_buffer(f"std{layer}", torch.ones(shape))
        self.layers = layers
        self.requires_grad_(False)
        self.eval()

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps = zip(self.layers, self.body(images), strict=True)
        return [F.avg_pool2d(m.float(), POOLED[layer]) for layer, m in maps]

    def measure(self, batches: list[torch.Tensor]) -> None:
        """Take each channel's mean and standard deviation over some batches."""
        maps = [self.features(batch) for batch in batches]
        for layer, of_layer in zip(self.layers, zip(*maps, strict=True), strict=True):
            values = torch.cat(of_layer)
            getattr(self, f"mean{layer}").copy_(values.mean((0, 2, 3), keepdim=True))
            std = values.std((0, 2, 3), keepdim=True)
            # A channel that hardly ever fires must not drown the others.
            getattr(self, f"std{layer}").copy_(std.clamp_min(float(std.median()) / 100))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [
            (layer_map - getattr(self, f"mean{layer}")) / getattr(self, f"std{layer}")
            for layer, layer_map in zip(self.layers, self.features(images), strict=True)
        ]


class Student(nn.Module):
    """skad_nano, and for each layer the linear map from its stage to the teacher's features."""

    def __init__(self, design: str, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = timm.create_model("skad_nano", **DESIGNS[design])
        self.layers = layers
        self.heads = nn.ModuleDict(
            {
                str(layer): nn.Conv2d(info["num_chs"], TEACHER_CHANNELS[layer], 1)
                for layer, info in enumerate(self.trunk.feature_info)
                if layer in layers
            }
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        stages = list(self.trunk.stages(images))
        return [
            self.heads[str(layer)](F.avg_pool2d(stages[layer], POOLED[layer]))
            for layer in self.layers
        ]


def layer_loss(given: torch.Tensor, wanted: torch.Tensor, kind: str) -> torch.Tensor:
    """Mean over the positions of one layer."""
    given = given.float()
    l2 = F.mse_loss(given, wanted)
    if kind == "l2":
        return l2
    cosine = 1 - F.cosine_similarity(given, wanted, dim=1).mean()
    return cosine if kind == "cosine" else l2 + cosine


def normalised(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)
    images = batch.to(device).permute(0, 3, 1, 2).float() / 255
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


# ---- training -------------------------------------------------------------------------------------


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 2 % of the steps, then a cosine to zero."""
    warm = max(1, steps // 50)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def save_atomically(write, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)


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
    maps = [list(student.trunk.stages(batch))[1:] for batch in batches]
    for neck, of_stage in zip(student.trunk.necks, zip(*maps, strict=True), strict=True):
        rows = torch.cat([m.flatten(2).transpose(1, 2).flatten(0, 1) for m in of_stage])
        neck.weight.copy_(half_whitening(torch.cov(rows.double().T.cpu()))[:, :, None, None])


def export(student: Student, path: Path) -> None:
    """Write the trunk in float16, under timm's names."""
    state = {
        key: (value.to(torch.float16) if value.is_floating_point() else value).cpu().contiguous()
        for key, value in student.trunk.state_dict().items()
    }
    save_atomically(lambda file: file.write_bytes(save(state)), path)


class Run:
    """A training run: what is learned, and where it stands."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device(args.device)
        torch.manual_seed(args.seed)
        layers = tuple(args.layers)
        self.data = TrainingBatches(args.photos, args.batch_size, args.seed)
        self.teacher = self._placed(Teacher(args.teacher, layers))
        self.student = self._placed(Student(args.design, layers))
        matrices = [p for p in self.student.parameters() if p.ndim > 1]
        vectors = [p for p in self.student.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 1e-4}, {"params": vectors, "weight_decay": 0.0}]
        )
        self.blocks_done = 0
        self.checkpoint = args.out.with_suffix(".checkpoint")
        # What shapes the result: a checkpoint of another recipe is not continued.
        self.recipe = repr(
            [getattr(args, name) for name in ("design", "loss", "layers", "blocks", "passes")]
            + [args.batch_size, args.lr, args.seed]
        )

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(self.device, memory_format=torch.channels_last)

    def begin(self) -> None:
        """Take up the checkpoint, or measure the teacher for a new run."""
        if not self.checkpoint.exists():
            self.teacher.measure(self.unseen())
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
        return [normalised(self.data[-1 - i], self.device) for i in range(8)]

    def save(self) -> None:
        parts = ("student", "teacher", "optimizer")
        state = {name: getattr(self, name).state_dict() for name in parts}
        state |= {"recipe": self.recipe, "blocks_done": self.blocks_done}
        save_atomically(lambda file: torch.save(state, file), self.checkpoint)

    def train(self) -> None:
        first = self.blocks_done * BLOCK
        loader = DataLoader(
            self.data,
            batch_size=None,
            sampler=range(first, self.args.blocks * BLOCK),
            num_workers=self.args.workers,
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
                f"block {self.blocks_done}/{self.args.blocks}  loss per layer {shown}  "
                f"{spent:.0f} s, {left:.0f} s left",
                flush=True,
            )

    def _learn(self, block: list[torch.Tensor]) -> np.ndarray:
        """Visit the images of a block `passes` times; the teacher sees them once."""
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
        with torch.autocast(self.device.type, torch.bfloat16):
            maps = self.teacher(normalised(batch, self.device))
        return [layer.to(torch.float16) for layer in maps]

    def _step(self, step: int, batch: torch.Tensor, wanted: list[torch.Tensor]) -> list[float]:
        steps = self.args.blocks * self.args.passes * BLOCK
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, self.args.lr)
        with torch.autocast(self.device.type, torch.bfloat16):
            given = self.student(normalised(batch, self.device))
        losses = [
            layer_loss(g, w.float(), self.args.loss) for g, w in zip(given, wanted, strict=True)
        ]
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(
            LOSS_WEIGHTS[layer] * x for layer, x in zip(self.args.layers, losses, strict=True)
        )
        total.backward()
        self.optimizer.step()
        return [loss.item() for loss in losses]


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--teacher", type=Path, required=True, help="ResNet-18 weights file")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--design", choices=DESIGNS, default="bundled")
    parser.add_argument("--loss", choices=["l2", "cosine", "both"], default="cosine")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 3], choices=[1, 2, 3])
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
