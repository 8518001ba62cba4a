"""Regions of interest: which pixels of an image count.

What lies outside is made grey before the image is resized: no number of a network depends on it. A
region is one mask for all images of a camera that does not move, or a function that finds the mask of
each image.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from skad._common.text import shortened

# A mask of several labels has no more of them.
_MOST_VALUES = 32
# The mean colour of ImageNet: what a network takes for nothing in particular.
_GREY = np.array([124, 116, 104], dtype=np.uint8)


class Mask:
    """Which pixels of an image count; masks are equal if they hold the same array.

    Parameters
    ----------
    inside : ndarray of shape (H, W), bool
        Not to be changed.
    """

    def __init__(self, inside: np.ndarray) -> None:
        self.inside = inside

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.inside is other.inside

    def __hash__(self) -> int:
        return id(self.inside)

    def blank(self, image: np.ndarray) -> np.ndarray:
        """Make the pixels of an (H, W, 3) image grey that do not count."""
        grey = _GREY if image.dtype == np.uint8 else _GREY.astype(np.float32) / np.float32(255)
        return np.where(self.inside[:, :, None], image, grey)


class RegionOfInterest:
    """A mask for all images, or a function that finds the mask of each.

    Parameters
    ----------
    mask : ndarray of shape (H, W), bool; or None
    function : callable or None
        Maps an image, (H, W, 3) uint8 or float32 in 0..1, to its mask. One of the two is given.
    """

    def __init__(
        self, mask: np.ndarray | None = None, function: Callable[[np.ndarray], Any] | None = None
    ) -> None:
        self.mask, self.function = mask, function

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegionOfInterest):
            return NotImplemented
        if self.mask is None or other.mask is None:
            return self.function is not None and self.function == other.function
        return np.array_equal(self.mask, other.mask)

    __hash__ = None  # type: ignore[assignment]

    def of(self, image: np.ndarray, name: str) -> Mask:
        """Return the mask of an image.

        Parameters
        ----------
        image : ndarray of shape (H, W, 3)
        name : str
            For error messages.

        Returns
        -------
        Mask
            Of the image's height and width, with one pixel inside at least.

        Raises
        ------
        ValueError
            If the mask of all images has another size, or the function fails or returns no mask of this
            image.
        """
        if self.mask is not None:
            self.check_shape(image.shape[:2], name)
            return Mask(self.mask)
        assert self.function is not None
        try:
            found = self.function(image)
        except Exception as error:  # a function of the user's raises what it likes
            raise ValueError(f"{name}: roi raised {type(error).__name__}: {error}") from error
        mask = _as_mask(found, f"{name}: roi returned")
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"{name}: roi returned a mask of {_size(mask.shape)} for an image of "
                f"{_size(image.shape)} pixels; they must be equal."
            )
        return Mask(mask)

    def of_shape(self) -> Mask | None:
        """Return the mask of all images; None if each has its own."""
        return None if self.mask is None else Mask(self.mask)

    def check_shape(self, shape: Sequence[int], name: str) -> None:
        """Refuse an image of another size than the mask of all."""
        if self.mask is not None and tuple(shape[:2]) != self.mask.shape:
            raise ValueError(
                f"{name}: has {_size(shape)} pixels (height x width), and the region of interest "
                f"{_size(self.mask.shape)}. A mask is for images of its own size: pass one of that "
                "size, or a function that finds the mask of each image."
            )


def read_roi(roi: Any) -> RegionOfInterest | None:
    """Read a region of interest as a user gives it.

    Parameters
    ----------
    roi : array-like of shape (H, W), path-like, callable or None
        A mask, zero outside; a file that holds one: an image, or JSON with polygons and boxes as LabelMe
        or COCO write them; or a function of an image.

    Returns
    -------
    RegionOfInterest or None

    Raises
    ------
    ValueError
        If there is no such file, if it or the mask cannot be used, or if nothing is inside.
    TypeError
        If the function cannot be pickled: detectors are.
    """
    if roi is None:
        return None
    if callable(roi):
        try:
            pickle.dumps(roi)
        except Exception as error:
            raise TypeError(
                f"roi={shortened(repr(roi))} cannot be pickled, which a detector must be ({error}): "
                "pass a function of a module, not a lambda or one that is defined inside another."
            ) from error
        return RegionOfInterest(function=roi)
    if isinstance(roi, str | os.PathLike):
        return RegionOfInterest(_read_file(Path(roi)))
    return RegionOfInterest(_few_values(_as_mask(roi, "roi is"), np.asarray(roi), "roi"))


def _as_mask(value: Any, subject: str) -> np.ndarray:
    """Take an array for a mask; `subject` begins the sentence that refuses it."""
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if (
        array.ndim != 2
        or array.dtype.kind not in "buif"
        or (array.dtype.kind == "f" and np.isnan(array).any())
    ):
        raise ValueError(
            f"{subject} no mask of shape (height, width), of bool or numbers that are zero outside: "
            f"{shortened(repr(value))}."
        )
    mask = array != 0
    if not mask.any():
        raise ValueError(f"{subject} empty: no pixel lies inside.")
    return mask


def _few_values(mask: np.ndarray, array: np.ndarray, name: str) -> np.ndarray:
    """Refuse what looks like a photograph: nearly all of it would count, in silence."""
    n_values = len(np.unique(array))
    if n_values > _MOST_VALUES:
        raise ValueError(
            f"{name} holds {n_values} different numbers, as a photograph does, or a mask that was saved "
            "as JPEG or with soft edges. A mask is zero outside, and anything else inside: compare it "
            "with a threshold, and save it as PNG."
        )
    return mask


def _read_file(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"roi='{path}': there is no such file.")
    try:
        if path.suffix.lower() == ".json":
            return _as_mask(_read_polygons(path), f"roi='{path}' is")
        with Image.open(path) as image:
            pixels: Any = np.asarray(ImageOps.exif_transpose(image))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"roi='{path}' is neither an image nor JSON as LabelMe or COCO write it "
            f"({type(error).__name__}: {error})."
        ) from error
    name = f"roi='{path}'"
    if pixels.ndim == 3:
        # Colours count, transparency does not.
        pixels = pixels[:, :, : 3 if pixels.shape[2] > 2 else 1].max(axis=2)
    return _few_values(_as_mask(pixels, f"{name} is"), pixels, name)


def _read_polygons(path: Path) -> np.ndarray:
    content = json.loads(path.read_text(encoding="utf-8"))
    if "annotations" in content:
        images = content["images"]
        if len(images) != 1:
            raise ValueError(
                f"roi='{path}' describes {len(images)} images; a region of interest is that of one."
            )
        height, width = images[0]["height"], images[0]["width"]
        shapes = [polygon for one in content["annotations"] for polygon in _of_coco(one, path)]
    else:
        height, width = content["imageHeight"], content["imageWidth"]
        shapes = [_of_labelme(one, path) for one in content["shapes"]]
    canvas = Image.new("1", (int(width), int(height)))
    draw = ImageDraw.Draw(canvas)
    for points in shapes:
        # Pillow counts from the centres of pixels, labelling tools from their corners.
        draw.polygon([(x - 0.5, y - 0.5) for x, y in points], fill=1)
    return np.asarray(canvas)


def _of_labelme(shape: dict[str, Any], path: Path) -> list[tuple[float, float]]:
    points = [(float(x), float(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type", "polygon")
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return _rectangle(x0, y0, x1, y1)
    if kind != "polygon" or len(points) < 3:
        raise ValueError(
            f"roi='{path}' holds a {kind} of {len(points)} points; use polygons and rectangles."
        )
    return points


def _of_coco(annotation: dict[str, Any], path: Path) -> Iterator[list[tuple[float, float]]]:
    outline = annotation.get("segmentation") or []
    if isinstance(outline, dict):
        raise ValueError(
            f"roi='{path}' holds a run-length mask; export polygons, or the mask as an image."
        )
    if not outline:
        x, y, width, height = annotation["bbox"]
        yield _rectangle(x, y, x + width, y + height)
    for flat in outline:
        yield [(float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True)]


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    # The far edges of pixels are not part of the next ones.
    left, right = min(x0, x1) + 0.5, max(x0, x1) - 0.5
    top, bottom = min(y0, y1) + 0.5, max(y0, y1) - 0.5
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"
