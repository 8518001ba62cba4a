"""Reading ground truth."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from skad.datasets._files import images


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the ground truth of an image.

    Every pixel that is not black is defective, however dark: VisA and MVTec LOCO AD number the kinds
    of defects, so that values as small as 1 occur. Save masks without loss; JPEG turns black pixels
    beside a defect into nearly black ones.

    Parameters
    ----------
    path : path-like
        An image of any mode (the alpha channel is ignored), or a folder of images of one size, of
        which a pixel needs to be marked in one.

    Returns
    -------
    ndarray of shape (H, W)
        bool, True = defective.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no image in the folder.
    ValueError
        If a file is no image or damaged, or the masks of a folder differ in size.

    Examples
    --------
    >>> from skad.datasets import read_mask
    >>> read_mask("bottle/ground_truth/broken_large/000_mask.png").mean()  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_dir():
        return _read(path)
    files = images(path)
    if not files:
        raise FileNotFoundError(f"{os.fspath(path)!r} holds no mask.")
    union = _read(files[0])
    for file in files[1:]:
        mask = _read(file)
        if mask.shape != union.shape:
            raise ValueError(
                f"{os.fspath(file)!r} has shape {mask.shape}, {files[0].name!r} beside it {union.shape}."
            )
        union |= mask
    return union


def _read(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            # The numbers of a palette mean nothing by themselves, its colours do.
            several = len(image.getbands()) > 1 or image.mode == "P"
            pixels = np.asarray(image.convert("RGB") if several else image)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"the mask {os.fspath(file)!r} cannot be read: {error}.") from error
    marked = pixels != 0
    return marked.any(axis=2) if several else marked
