"""Warnings of skad's own, so that each can be silenced or turned into an error by itself.

Examples
--------
>>> import warnings
>>> from skad.exceptions import TabularDataWarning
>>> warnings.simplefilter("error", TabularDataWarning)  # doctest: +SKIP
"""

__all__ = ["ImageFileWarning", "TabularDataWarning"]


class TabularDataWarning(UserWarning):
    """``fit`` was given a table of numbers, and no ``image_shape`` that makes images of its rows.

    Each row is then shown to the network as a grey strip, one pixel high, which is seldom meant. One
    grey image is passed as ``[image]``, flattened images with ``image_shape=(H, W)``.
    """


class ImageFileWarning(UserWarning):
    """An image file holds more than is looked at, or Pillow warns of it.

    Said once per call, with the first file and the number of others: further pages of a TIFF or GIF, of
    which the first alone is looked at; damaged metadata; very large images.
    """
