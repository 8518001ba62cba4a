"""Training images of skad_nano: crops of photographs, generated textures, shapes laid over both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.fft
import torch
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

SIDE = 160  # pixels of a training image
SHORTEST = 80  # pixels of a photograph that a crop spans at least
LONGEST = 1.25  # by the photograph's shorter side; what is beyond it is the whole side
GENERATED = 0.25  # fraction of the images that are generated, not photographed


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
    shorter = min(height, width)
    sizes = np.log([min(SHORTEST, shorter), LONGEST * shorter])
    size = min(np.exp(rng.uniform(*sizes)), shorter)
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


def photographs(folder: Path) -> list[Path]:
    """Find the images of a folder and the folders in it."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise SystemExit(f"--photos {folder}: no .jpg or .png files there.")
    return files


class TrainingBatches(Dataset):
    """Batch number -> (B, SIDE, SIDE, 3) uint8 images; the same number gives the same batch."""

    def __init__(self, folders: Sequence[Path], batch_size: int, seed: int) -> None:
        files = [file for folder in folders for file in photographs(folder)]
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
