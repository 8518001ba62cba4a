"""Features that were computed before, on their way into a detector: the one place where they enter."""

from __future__ import annotations

from collections.abc import Generator
from inspect import signature
from typing import Any

import numpy as np

from skad._common.text import shortened
from skad._common.warn import warn_user
from skad._features import (
    PRECOMPUTED,
    FeatureSpec,
    PatchExtractor,
    PrecomputedExtractor,
    StoredExtractor,
)
from skad._images import (
    CanvasCache,
    FeatureSource,
    ImageBatch,
    ImageSource,
    Size,
    as_feature_maps,
    as_size,
    height_and_width,
    is_side,
)
from skad._patch_input import PatchInput
from skad._torch.devices import resolve_device

# Pixels of a cell of the grid, with image_size="auto": the stride of the first layer that "auto" takes
# of a convolutional backbone.
_STRIDE = 8
# Values of a pixel of an image: hardly of a patch.
_OF_COLOURS = (3, 4)
# What only images have, or has been decided when their features were made.
_OF_IMAGES = (
    *("weights", "patch_size", "normalize", "aggregation", "pretrain_dim", "target_dim", "memory"),
    *("geometry", "resize", "tiles", "image_shape", "roi"),
)


class PrecomputedInput(PatchInput):
    """Takes features in place of images, with ``backbone="precomputed"``.

    A mixin in place of :class:`PatchInput`. What follows sees a network that makes of each feature map
    what it is, and images of the size of the canvas that the maps cover.

    Parameters
    ----------
    backbone
        "precomputed": X holds features in place of images, an array of shape (n, h, w, d) of floats, in
        memory or mapped, as ``PatchEmbedder(pooling=None)`` returns; see Notes.
    layers
        Of precomputed features: the shapes (h_j, w_j, C_j) of the feature maps of which they were made;
        "auto": one layer.
    image_size
        Of precomputed features: the pixels that their grid covers; "auto": 8 for each row and column of
        it.
    """

    def _takes_features(self) -> bool:
        return isinstance(self.backbone, str) and self.backbone == PRECOMPUTED

    def _open(self, X: Any, *, reset: bool) -> ImageSource:
        if not self._takes_features():
            return super()._open(X, reset=reset)
        self._refuse_settings_of_images()
        maps = as_feature_maps(X)
        if not reset:
            return FeatureSource(maps, self.geometry_.canvas)
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        source = FeatureSource(maps, (1, 1))
        # Until the specification is made of it.
        self._map_shape = source.map_shape
        if source.map_shape[2] in _OF_COLOURS:
            warn_user(
                f"X holds {source.map_shape[2]} values per patch, as images do: they are learned from "
                "as they are. If they are images, name a backbone, or make features of them by "
                "PatchEmbedder(pooling=None)."
            )
        return FeatureSource(maps, height_and_width(self._input_size(source)))

    def _refuse_settings_of_images(self) -> None:
        """Refuse what would have no influence, and was meant to have one."""
        defaults = signature(type(self)).parameters
        set_ = [n for n in _OF_IMAGES if not _equal(getattr(self, n), defaults[n].default)]
        if set_:
            names, them = " and ".join(set_), "it" if len(set_) == 1 else "them"
            raise ValueError(
                f'{names}: of no use with backbone="precomputed", whose features are made already. '
                f"Give {them} to the PatchEmbedder that makes them, as far as it has {them}, and leave "
                f"{them} at the default here."
            )

    def _input_size(self, images: ImageSource) -> Size:
        if not isinstance(images, FeatureSource):
            return super()._input_size(images)
        grid = images.map_shape[:2]
        if isinstance(self.image_size, str):
            return as_size([_STRIDE * side for side in grid])
        size = as_size(self.image_size)
        if any(n < cells for n, cells in zip(height_and_width(size), grid, strict=True)):
            raise ValueError(
                f"image_size={self.image_size} is less than a pixel for each of the {grid[0]} x "
                f"{grid[1]} cells of the feature maps: give what the backbone saw, in pixels."
            )
        return size

    def _make_spec(self) -> FeatureSpec:
        if not self._takes_features():
            return super()._make_spec()
        shape = self.__dict__.pop("_map_shape")
        layers = (shape,) if isinstance(self.layers, str) else _read_layers(self.layers, shape)
        return FeatureSpec(
            backbone=PRECOMPUTED,
            layers=layers,
            image_size=self.image_size_,
            patch_size=1,
            aggregation=self.aggregation,
            pretrain_dim=int(self.pretrain_dim),
            target_dim=int(self.target_dim),
            precision=self.precision,
        )

    def _find_network(self) -> PatchExtractor | StoredExtractor:
        if not self._takes_features():
            return super()._find_network()
        return PrecomputedExtractor(self.feature_spec_, resolve_device(self.device))

    def _check_images(self, images: ImageSource) -> None:
        if isinstance(images, FeatureSource):
            self._refuse_other_maps(images)
        super()._check_images(images)
        # The first stands for all: they come from one backbone.
        if isinstance(images, FeatureSource) and not self._network.fits(images.read(range(1))[0]):
            raise ValueError(
                f"{images.describe(0)}: is not made of layers={self.feature_spec_.layers}, each brought "
                "bilinearly to the grid of the first. Give the layers of the PatchEmbedder that made "
                'it, as its detector_params() tells, or "auto".'
            )

    def _refuse_other_maps(self, images: FeatureSource) -> None:
        """Refuse maps on another grid, or of other length, than those of the fit."""
        shape = (*self._network.grid, self._network.dim)
        if images.map_shape != shape:
            raise ValueError(
                f"X holds feature maps of shape {images.map_shape}, and this detector was fitted on "
                f"such of {shape}: take them from one PatchEmbedder."
            )

    def _iter_batches(
        self,
        images: ImageSource,
        order: np.ndarray | None = None,
        cache: CanvasCache | None = None,
    ) -> Generator[ImageBatch, None, None]:
        if not isinstance(images, FeatureSource):
            return super()._iter_batches(images, order, cache)
        return images.batches(self.batch_size)


def _equal(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, type(default)) and bool(value == default))


def _read_layers(layers: Any, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """Read the shapes of the layers that maps are made of."""
    try:
        read = [tuple(layer) for layer in layers]
    except TypeError:  # numbers
        read = []
    if not read or not all(len(layer) == 3 and all(map(is_side, layer)) for layer in read):
        raise ValueError(
            f'layers={shortened(repr(layers))}: with backbone="precomputed", layers are the shapes '
            "(h_j, w_j, C_j) of the feature maps that the features are made of, such as "
            '[(28, 28, 64), (14, 14, 128)]; or "auto".'
        )
    dim = sum(layer[2] for layer in read)
    grids = [layer[:2] for layer in read]
    if dim != shape[2] or grids[0] != shape[:2] or (np.array(grids) > shape[:2]).any():
        raise ValueError(
            f"layers={shortened(repr(layers))} make features of shape {(*grids[0], dim)}, the first "
            f"layer being the finest, and X holds such of {shape}."
        )
    return tuple((int(height), int(width), int(n)) for height, width, n in read)
