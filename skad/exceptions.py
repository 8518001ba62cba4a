"""Warnings and errors of skad's own, so that each can be told from others.

Examples
--------
>>> import warnings
>>> from skad.exceptions import TabularDataWarning
>>> warnings.simplefilter("error", TabularDataWarning)  # doctest: +SKIP
"""

__all__ = ["FeatureError", "ImageFileWarning", "TabularDataWarning"]


class FeatureError(ValueError):
    """The backbone's features of an image are NaN, infinite, or too large for float32.

    No distance says anything of such features, so that there is neither a score nor a verdict.

    Parameters
    ----------
    largest : float
        Largest absolute value of the features, or NaN.
    index : int
        Number of the image among those looked at.
    image : str or None, default=None
        What the image is called.
    """

    def __init__(self, largest: float, index: int, image: str | None = None) -> None:
        super().__init__(largest, index, image)
        self.largest, self.index, self.image = largest, index, image

    def __str__(self) -> str:
        return (
            f"{self.image or f'image {self.index}'}: the backbone's features are NaN, infinite or too "
            f"large (up to {self.largest:.3g}), so that it cannot be scored. Look at the image, and at "
            "the weights of the backbone."
        )


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
