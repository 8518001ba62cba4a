"""Copies of images: changed at random, as in ReConPatch's test of robustness (Table S5), or rotated."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter


def augmented(file: str | os.PathLike[str], seed: int) -> Image.Image:
    """Rotate by up to 5 degrees, shift by up to 1 %, change brightness and contrast by up to 30 %, blur.

    Parameters
    ----------
    file : path-like
    seed : int
        Together with the end of the file's name it determines the change.

    Returns
    -------
    PIL.Image.Image
        RGB, of the same size; corners that the rotation opens are black.
    """
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    rng = np.random.default_rng([seed, *os.fspath(file).encode()[-12:]])
    shift = rng.uniform(-0.01, 0.01, 2) * image.size
    image = image.rotate(
        rng.uniform(-5, 5), Image.Resampling.BILINEAR, translate=(float(shift[0]), float(shift[1]))
    )
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.7, 1.3))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 1.0)))


def write_augmented(files: list[str], folder: Path, seed: int) -> list[str]:
    """Write changed copies of images to a folder, so that they need not fit into memory.

    Parameters
    ----------
    files : list of str
    folder : Path
        Exists.
    seed : int

    Returns
    -------
    list of str
        The copies, in the same order.
    """
    copies = [str(folder / f"{i}.png") for i in range(len(files))]
    for file, copy in zip(files, copies, strict=True):
        augmented(file, seed).save(copy)
    return copies


def rotated(file: str | os.PathLike[str], degrees: float) -> Image.Image:
    """Rotate an image counter-clockwise about its centre.

    Parameters
    ----------
    file : path-like
    degrees : float

    Returns
    -------
    PIL.Image.Image
        RGB. By a multiple of 90 degrees: of the same pixels, height and width may be swapped. Else of
        the same size, interpolated; corners that the rotation opens are black.
    """
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if degrees % 90 == 0:
        return Image.fromarray(np.rot90(np.asarray(image), int(degrees // 90)))
    return image.rotate(degrees, Image.Resampling.BILINEAR)


def write_rotated(files: list[str], folder: Path, n: int) -> list[str]:
    """Write rotated copies of images to a folder, so that they need not fit into memory.

    Parameters
    ----------
    files : list of str
    folder : Path
        Exists.
    n : int
        Directions, evenly over the circle; the first is the image as it is.

    Returns
    -------
    list of str
        Of each image: itself, and n - 1 copies.
    """
    found = []
    for i, file in enumerate(files):
        found.append(file)
        for k in range(1, n):
            found.append(str(folder / f"{i}-{k}.png"))
            rotated(file, 360 * k / n).save(found[-1])
    return found
