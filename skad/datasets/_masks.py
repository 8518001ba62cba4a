"""Reading ground truth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from skad._images import check_image, describe, image_numbers, one_call, say_remarks
from skad._validation.numbers import marked
from skad.datasets._files import images


@one_call()
def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the ground truth of an image.

    Every pixel that is not black is defective, however dark: VisA and MVTec LOCO AD number the kinds
    of defects, so that values as small as 1 occur. Save masks without loss; JPEG turns black pixels
    beside a defect into nearly black ones.

    Parameters
    ----------
    path : path-like
        An image of any mode (the alpha channel is ignored), or a folder of images of one size, of
        which a pixel needs to be marked in one. It is read as images are: turned by its EXIF
        orientation, refused where Pillow would change its numbers.

    Returns
    -------
    ndarray of shape (H, W)
        bool, True = defective.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no image in the folder.
    ValueError
        If `path` is empty, a file is no image, damaged, has several pages or pixels that are NaN, or
        the masks of a folder differ in size.

    Examples
    --------
    >>> from skad.datasets import read_mask
    >>> read_mask("bottle/ground_truth/broken_large/000_mask.png").mean()  # doctest: +SKIP
    """
    # Path("") is ".": an empty cell of a table must not read the folder one works in.
    if os.fspath(path) in ("", "."):
        raise ValueError(
            f"the path of a mask is {os.fspath(path)!r}: pass None where there is no mask, and the "
            "absolute path of a folder of masks."
        )
    path = Path(path)
    if not path.is_dir():
        return marked_pixels(path)
    files = images(path)
    if not files:
        raise FileNotFoundError(f"{os.fspath(path)!r} holds no mask.")
    union = marked_pixels(files[0])
    for file in files[1:]:
        mask = marked_pixels(file)
        if mask.shape != union.shape:
            raise ValueError(
                f"{os.fspath(file)!r} has shape {mask.shape}, {files[0].name!r} beside it {union.shape}."
            )
        union |= mask
    return union


def marked_pixels(image: Any) -> np.ndarray:
    """Find the pixels of one image that are not black.

    Parameters
    ----------
    image : path, Pillow image or encoded image

    Returns
    -------
    ndarray of shape (H, W)
        bool.

    Raises
    ------
    ValueError
        If it cannot be read, has several pages, or pixels that are NaN.
    """
    name = f"the mask {describe(image)}"
    checked = check_image(image, name)
    if checked.n_pages > 1:
        raise ValueError(
            f"{name}: has {checked.n_pages} pages, and a mask must have one. Save the one that is "
            "meant, or all of them as files in a folder of their own."
        )
    say_remarks([(name, checked)])
    pixels = marked(image_numbers(image, name), name)
    return pixels if pixels.ndim == 2 else np.logical_or.reduce(pixels[:, :, :3], axis=2)
