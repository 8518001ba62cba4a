"""Data sets of tiny images, in the layouts that their owners give them."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

BLACK = np.zeros((4, 6), np.uint8)
SPOT = BLACK.copy()
SPOT[1:3, 2:5] = 255


def plant(root: Path, *files: str, pixels: np.ndarray = BLACK) -> Path:
    """Write an image, the same for all, to each of the files in a folder."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encoded(path.suffix.lower(), pixels.shape, pixels.tobytes()))
    return root


@lru_cache
def _encoded(suffix: str, shape: tuple, content: bytes) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(np.frombuffer(content, np.uint8).reshape(shape))
    image.save(file, format=Image.registered_extensions()[suffix])
    return file.getvalue()


def plant_text(root: Path, file: str, *lines: str) -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def plant_category(root: Path) -> Path:
    """A category as in MVTec AD: two good training images, one good and two scratched test images."""
    plant(root, "train/good/001.png", "train/good/000.PNG", "test/good/000.png")
    plant(root, "test/scratch/000.jpg", "test/scratch/001.png")
    return plant(root, "ground_truth/scratch/000_mask.png", pixels=SPOT)


def names(paths: list) -> list:
    """Names of files, None for what is none."""
    return [None if path is None else Path(path).name for path in paths]


def by_name(data, what: str) -> dict:
    """A list of a data set by the names of its images, which must be distinct."""
    found = dict(zip(names(data.X), data[what], strict=True))
    assert len(found) == len(data.X)
    return found
