"""skad's own warnings and errors, to be caught or filtered by type.

Examples
--------
>>> import warnings
>>> from skad.exceptions import TabularDataWarning
>>> warnings.simplefilter("error", TabularDataWarning)  # doctest: +SKIP
"""

__all__ = ["FeatureError", "ImageFileWarning", "TabularDataWarning"]


class FeatureError(ValueError):
    """The backbone's features of an image are NaN, infinite, or too large for float32.

    Distances between such features mean nothing, so there is neither a score nor a verdict.

    Parameters
    ----------
    largest : float
        Largest absolute value of the features, or NaN.
    index : int
        Index of the image.
    image : str or None, default=None
        Name of the image in the message.
    """

    def __init__(self, largest: float, index: int, image: str | None = None) -> None:
        super().__init__(largest, index, image)
        self.largest, self.index, self.image = largest, index, image

    def __str__(self) -> str:
        return (
            f"{self.image or f'image {self.index}'}: the backbone's features are NaN, infinite or too "
            f"large (up to {self.largest:.3g}), so it cannot be scored. Check the image, and the "
            "weights of the backbone."
        )


class TabularDataWarning(UserWarning):
    """``fit`` was given a table of numbers, and no ``image_shape`` that makes images of its rows.

    Each row is then shown to the network as a grey strip, one pixel high, which is seldom meant. One
    grey image is passed as ``[image]``, flattened images with ``image_shape=(H, W)``.
    """


class ImageFileWarning(UserWarning):
    """An image file holds more than is used, or Pillow warns about it.

    Given once per call, with the first file and the number of others: for files with several pages, as
    TIFF or GIF, of which only the first is used; for damaged metadata; for very large images.
    """
