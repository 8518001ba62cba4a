"""What users hold -> an ordered stream of batches -> and the way back for heat maps.

`as_image_source` gives every kind of input one face (`ImageSource`), `iter_batches` decodes and
resizes ahead of the consumer, `Geometry` says how an image meets the square canvas of a network
and `Geometry.restore` brings a map from that canvas back to the image. Nothing here knows a
network: NumPy and Pillow are all it needs.
"""

from .batches import CanvasCache, ImageBatch, iter_batches
from .geometry import Geometry
from .sources import ImageSource, as_image_source, is_rows

__all__ = [
    "CanvasCache",
    "Geometry",
    "ImageBatch",
    "ImageSource",
    "as_image_source",
    "is_rows",
    "iter_batches",
]
