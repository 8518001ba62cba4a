"""Reading ground truth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from skad._common.image_files import images
from skad._common.numbers import marked
from skad._images import check_image, describe, image_numbers, one_call, say_remarks


@one_call()
def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the ground truth of an image.

    Every pixel that is not black is defective, however dark it is: VisA and MVTec LOCO AD number the
    kinds of defects, so that values as small as 1 occur. Save masks losslessly: JPEG turns black
    pixels beside a defect into nearly black ones.

    Parameters
    ----------
    path : path-like
        An image of any mode (the alpha channel is ignored), or a folder of masks of one size, whose
        union is returned. Masks are read as images are: they are turned by their EXIF orientation,
        and files whose values Pillow would change are an error.

    Returns
    -------
    ndarray of shape (H, W)
        bool, True = defective.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no image in the folder.
    ValueError
        If `path` is empty; if a file is not an image, is damaged, or has several pages or NaN pixels;
        or if the masks of a folder differ in size.

    Examples
    --------
    >>> from skad.datasets import read_mask
    >>> read_mask("bottle/ground_truth/broken_large/000_mask.png").mean()  # doctest: +SKIP
    """
    # Path("") is ".": an empty cell of a table must not read the working directory.
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
        raise FileNotFoundError(f"{os.fspath(path)!r} contains no image.")
    union = marked_pixels(files[0])
    for file in files[1:]:
        mask = marked_pixels(file)
        if mask.shape != union.shape:
            raise ValueError(
                f"{os.fspath(file)!r} has shape {mask.shape}, but {files[0].name!r} in the same folder "
                f"has {union.shape}: the masks of an image must have its size."
            )
        union |= mask
    return union


def marked_pixels(image: Any) -> np.ndarray:
    """Find the pixels of an image that are not black; it is a path, a Pillow image or encoded."""
    name = f"the mask {describe(image)}"
    checked = check_image(image, name)
    if checked.n_pages > 1:
        raise ValueError(
            f"{name}: has {checked.n_pages} pages, but a mask must have one. Save one page, or all "
            "pages as files in a folder."
        )
    say_remarks([(name, checked)])
    pixels = marked(image_numbers(image, name), name)
    return pixels if pixels.ndim == 2 else np.logical_or.reduce(pixels[:, :, :3], axis=2)
