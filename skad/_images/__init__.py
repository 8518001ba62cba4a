"""The user's X -> an ordered stream of batches, and the way back for heat maps.

`is_rows` tells tables from images, `as_image_source` gives every kind of images one interface
(`ImageSource`), `iter_batches` decodes and resizes ahead of the consumer, `Geometry` places an image
on the canvas of a network, and `Geometry.restore` brings a map from that canvas back to the
image. Nothing here knows a network: NumPy and Pillow are all it needs.
"""

from .batches import CanvasCache, ImageBatch, iter_batches, stacked
from .columns import column_values, is_rows, refuse_single
from .decode import as_ndarray
from .decode import check as check_image
from .decode import numbers as image_numbers
from .feature_maps import FeatureSource, as_feature_maps
from .footprints import Footprint, Frame, Pixels
from .geometry import Geometry
from .items import describe, is_encoded
from .notes import in_one_call, one_call
from .remarks import say_remarks
from .roi import RegionOfInterest, read_roi
from .sizes import Size, as_size, height_and_width, is_side
from .sources import ImageSource, as_image_source
from .tables import refuse_other_kind, short_errors, warn_of_rows
from .tiling import Tile, Tiling, as_tiles, make_tiling

__all__ = [
    "CanvasCache",
    "FeatureSource",
    "Footprint",
    "Frame",
    "Geometry",
    "ImageBatch",
    "ImageSource",
    "Pixels",
    "RegionOfInterest",
    "Size",
    "Tile",
    "Tiling",
    "as_feature_maps",
    "as_image_source",
    "as_ndarray",
    "as_size",
    "as_tiles",
    "check_image",
    "column_values",
    "describe",
    "height_and_width",
    "image_numbers",
    "in_one_call",
    "is_encoded",
    "is_rows",
    "is_side",
    "iter_batches",
    "make_tiling",
    "one_call",
    "read_roi",
    "refuse_other_kind",
    "refuse_single",
    "say_remarks",
    "short_errors",
    "stacked",
    "warn_of_rows",
]
