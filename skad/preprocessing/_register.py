"""Images shifted to where the parts of the training images lie."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.ndimage import shift as shifted
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skad._common.forks import LOADING
from skad._common.labels import good_images
from skad._common.warn import warn_user
from skad._images import ImageSource, as_image_source, one_call
from skad._sklearn_compat import Interval, _fit_context

# Images that the reference is the mean of.
_N_AVERAGED = 32


class Register(TransformerMixin, BaseEstimator):
    """Align images with a reference, for parts that shift by some pixels under a fixed camera.

    Every image is shifted by where the peak of its phase correlation with the reference lies [1]_. Edge
    pixels are repeated into what a shift leaves empty. Parts that turn are not turned back.

    Parameters
    ----------
    upsample_factor : int, default=10
        Shifts are found to 1 / `upsample_factor` of a pixel.
    max_shift : float, default=0.1
        Fraction of the image's height and width that a part may be away, in (0, 0.5]. An image that
        would have to move farther is left where it is, with a warning: most probably it shows something
        else.

    Attributes
    ----------
    reference_ : ndarray of shape (H, W), float64
        Mean of the first 32 training images, in grey, each aligned with the first.

    See Also
    --------
    skimage.registration.phase_cross_correlation : Finds the shifts.

    Notes
    -----
    A detector behind this step scores aligned images, and its heat maps and regions are those of aligned
    images. :meth:`restore` brings heat maps back to the images as given.

    Needs scikit-image: ``pip install scikit-image``.

    References
    ----------
    .. [1] M. Guizar-Sicairos, S. T. Thurman, J. R. Fienup, "Efficient subpixel image registration
       algorithms", Optics Letters 33, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from skad import PatchCoreDetector
    >>> from skad.preprocessing import Register
    >>> rng = np.random.default_rng(0)
    >>> part = np.kron(rng.integers(0, 256, (12, 12)), np.ones((4, 4))).astype(np.uint8)
    >>> good = np.stack([np.roll(part, rng.integers(-3, 4, 2), (0, 1)) for _ in range(8)])
    >>> detector = PatchCoreDetector("skad_nano", image_size=64, target_false_alarm_rate=0.2)
    >>> pipeline = make_pipeline(Register(), detector).fit(good)
    >>> register = pipeline[0]
    >>> maps = detector.predict_heatmap(register.transform(good[:2]))
    >>> register.restore(maps, good[:2]).shape
    (2, 48, 48)
    """

    _doc_link_module = "skad"
    _doc_link_template = "https://scikit-image.org"

    _parameter_constraints: dict = {
        "upsample_factor": [Interval(Integral, 1, None, closed="left")],
        "max_shift": [Interval(Real, 0, 0.5, closed="right")],
    }

    def __init__(self, *, upsample_factor=10, max_shift=0.1):
        self.upsample_factor = upsample_factor
        self.max_shift = max_shift

    @_fit_context(prefer_skip_nested_validation=True)
    @one_call()
    def fit(self, X: Any, y: Any = None) -> Register:
        """Make the reference.

        Parameters
        ----------
        X : images
            Paths, arrays, Pillow images, ...; n images of one size.
        y : array-like of shape (n,), default=None
            +1 good, -1 defective: defective images do not count.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            For images that cannot be used; the message names the image.
        ImportError
            Without scikit-image.
        """
        _phase_correlation()
        images = as_image_source(X)
        images = images.subset(good_images(y, len(images)))
        images.check()
        first = _grey(images.load(0))
        self.reference_ = first
        aligned = [first]
        for i in range(1, min(len(images), _N_AVERAGED)):
            image = self._load(images, i)
            aligned.append(_moved(_grey(image), self._shift_of(image, images.describe(i))))
        self.reference_ = np.mean(aligned, axis=0)
        return self

    @one_call()
    def transform(self, X: Any) -> np.ndarray:
        """Align images.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images of the size of the reference.

        Returns
        -------
        ndarray of shape (n, H, W, 3)
            uint8 if all images are, else float32 in 0..1.
        """
        images = self._open(X)
        found = []
        for i in range(len(images)):
            image = self._load(images, i)
            found.append(_moved(image, self._shift_of(image, images.describe(i))))
        if len({image.dtype for image in found}) > 1:
            found = [
                image / np.float32(255) if image.dtype == np.uint8 else image for image in found
            ]
        return np.stack(found)

    @one_call()
    def shifts(self, X: Any) -> np.ndarray:
        """Tell by how many pixels each image is moved.

        Parameters
        ----------
        X : images
            As in :meth:`transform`; n images.

        Returns
        -------
        ndarray of shape (n, 2), float64
            Down and right; 0 where a shift would exceed `max_shift`.
        """
        images = self._open(X)
        found = [
            self._shift_of(self._load(images, i), images.describe(i)) for i in range(len(images))
        ]
        return np.array(found)

    @one_call()
    def restore(self, maps: Any, X: Any) -> np.ndarray:
        """Bring heat maps of aligned images back to the images as given.

        Parameters
        ----------
        maps : array-like of shape (n, H, W)
            From ``predict_heatmap(transform(X))``.
        X : images
            As given to :meth:`transform`; n images.

        Returns
        -------
        ndarray of shape (n, H, W), float32
            NaN where the aligned image has lost what the image shows, or the map is NaN.

        Raises
        ------
        ValueError
            If the maps do not match the images.
        """
        shifts, heatmaps = self.shifts(X), np.asarray(maps, dtype=np.float32)
        if heatmaps.shape != (len(shifts), *self.reference_.shape):
            raise ValueError(
                f"maps must have shape {(len(shifts), *self.reference_.shape)}, one per image; got "
                f"{heatmaps.shape}."
            )
        pairs = zip(heatmaps, shifts, strict=True)
        return np.stack(
            [shifted(heatmap, -shift, order=1, cval=np.nan) for heatmap, shift in pairs]
        )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Refuse: images have no names of features.

        Parameters
        ----------
        input_features : ignored
        """
        raise ValueError("aligned images are no table: they have no names of features.")

    def _open(self, X: Any) -> ImageSource:
        check_is_fitted(self)
        images = as_image_source(X)
        images.check()
        return images

    def _load(self, images: ImageSource, i: int) -> np.ndarray:
        image = images.load(i)
        if image.shape[:2] != self.reference_.shape:
            height, width = self.reference_.shape
            raise ValueError(
                f"{images.describe(i)}: has {image.shape[0]} x {image.shape[1]} pixels, and the "
                f"reference {height} x {width}: only images of one size can be aligned."
            )
        return image

    def _shift_of(self, image: np.ndarray, name: str) -> np.ndarray:
        found, *_ = _phase_correlation()(
            self.reference_, _grey(image), upsample_factor=self.upsample_factor
        )
        if (np.abs(found) > self.max_shift * np.array(self.reference_.shape)).any():
            warn_user(
                f"{name}: the best match with the reference is {found[0]:+.0f} rows and "
                f"{found[1]:+.0f} columns away, farther than max_shift={self.max_shift} allows: the "
                "image is left where it is."
            )
            return np.zeros(2)
        return np.asarray(found, dtype=np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = True
        return tags


def _phase_correlation() -> Any:
    try:
        with LOADING:
            from skimage.registration import phase_cross_correlation
    except ImportError as error:
        raise ImportError(
            "Register needs scikit-image, which finds the shifts: pip install scikit-image."
        ) from error
    return phase_cross_correlation


def _grey(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=2, dtype=np.float64) / (255 if image.dtype == np.uint8 else 1)


def _moved(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shift an image, or one channel; uint8 stays uint8."""
    if not shift.any():
        return image
    along = (*shift, 0)[: image.ndim]
    moved = shifted(image.astype(np.float32), along, order=1, mode="nearest")
    return np.rint(moved).astype(np.uint8) if image.dtype == np.uint8 else moved.astype(image.dtype)
