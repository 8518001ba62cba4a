"""From scores and maps of images to verdicts, p-values and regions, by thresholds; knows no algorithm.

What a detector and an exported file have in common: NumPy, and what `_images` needs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from skad._images import in_one_call, one_call
from skad._scoring.regions import Region, Regions, regions_of
from skad._scoring.results import MappedImage
from skad._scoring.thresholds import margin_at_ties, threshold_for_rate, warn_if_too_few

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Inspection:
    """All that a detector finds on one image, from a single pass over it; ``inspect`` yields it."""

    verdict: int
    """+1 good, -1 defective, as ``predict`` says."""
    score: float
    """Higher = more normal, as ``score_samples`` gives it."""
    p_value: float | None
    """As of ``anomaly_p_value``; None where the detector has no calibration scores."""
    regions: list[Region]
    """As of ``predict_regions``, highest peak first."""
    shape: tuple[int, int]
    """Height and width of the image."""
    _mapped: MappedImage = field(repr=False, compare=False)

    def heatmap(self) -> np.ndarray:
        """Return the map, as ``predict_heatmap`` does: (H, W) float32. Made anew at each call."""
        return self._mapped.heatmap()


class Judge:
    """Judges images by scores and maps, which a subclass gives."""

    contamination: Any
    target_false_alarm_rate: float
    offset_: float
    heatmap_threshold_: float
    calibration_scores_: np.ndarray | None
    # By how much `offset_` gave way to ties.
    _margin: float
    _calibration_peaks: np.ndarray

    @abstractmethod
    def score_samples(self, X: Any) -> np.ndarray:
        """Score the normality of each image; higher = more normal."""

    @abstractmethod
    def _iter_maps(self, X: Any) -> Iterator[MappedImage]:
        """Score image after image, and render the map of each."""

    def _has_one_threshold(self) -> bool:
        """Whether the score of an image is the highest value of its map: one threshold does then."""
        return getattr(self, "image_score", "patch") == "map"

    def _as_fitted(self) -> Self:
        """Take the state as it is now: what one prediction works with."""
        return self

    # ------------------------------------------------------------------ thresholds

    def _measure_fresh(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Measure anomaly scores, and highest values of maps, of images that were not learned from."""
        measured = [(found.score, found.peak) for found in self._iter_maps(X)]
        if len(measured) < 2:
            raise ValueError(
                f"n_samples={len(measured)}: a threshold needs at least two fresh good images."
            )
        scores, peaks = np.array(measured).T
        return scores, peaks

    def _calibrate(
        self,
        held_out: np.ndarray | None,
        in_sample: np.ndarray | None,
        peaks: np.ndarray,
        *,
        warn: bool = True,
    ) -> None:
        """Set thresholds from anomaly scores, and peaks of heat maps, of good images.

        Where a score is NaN, the image does not count.
        """
        if held_out is not None:
            counts = ~np.isnan(held_out)
            held_out, peaks = held_out[counts], peaks[counts]
        self.calibration_scores_ = None if held_out is None else np.sort(-held_out)
        self._calibration_peaks = np.sort(peaks)
        if self.contamination == "auto":
            self._keep_rate(warn=warn)
        else:
            percentile = partial(np.percentile, q=100 * self.contamination)
            self._set_thresholds(-np.asarray(in_sample), percentile)

    def _keep_rate(self, *, warn: bool = True) -> None:
        """Set thresholds from the calibration scores."""
        scores, rate = np.asarray(self.calibration_scores_), self.target_false_alarm_rate
        if warn:
            warn_if_too_few(len(scores), rate)
        self._set_thresholds(scores, partial(threshold_for_rate, rate=rate))

    def _set_thresholds(self, scores: np.ndarray, rule: Callable[[np.ndarray], float]) -> None:
        self.offset_, self._margin = self._with_margin(scores, float(rule(scores)))
        lowest = self.offset_
        if not self._has_one_threshold():
            normal = -self._calibration_peaks
            lowest, _ = self._with_margin(normal, float(rule(normal)))
        self.heatmap_threshold_ = -lowest

    def _with_margin(self, scores: np.ndarray, threshold: float) -> tuple[float, float]:
        """Lower a threshold by rounding where images tie at it; also return by how much."""
        margin = margin_at_ties(scores, threshold, self._rounding_of(-threshold))
        return threshold - margin, margin

    def _rounding_of(self, anomaly: float) -> float:
        """How far an anomaly score may move where a processor rounds otherwise than this one."""
        return 1e-5 * abs(anomaly)

    # ----------------------------------------------------------------- predictions

    def decision_function(self, X: Any) -> np.ndarray:
        """Signed distance to the threshold.

        Parameters
        ----------
        X : images
            As in ``fit``; n images.

        Returns
        -------
        ndarray of shape (n,), float64
            ``score_samples(X) - offset_``; negative = defective.
        """
        now = self._as_fitted()
        return now.score_samples(X) - now.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Tell good from defective images.

        Parameters
        ----------
        X : images
            As in ``fit``; n images.

        Returns
        -------
        ndarray of shape (n,), int
            +1 good, -1 defective.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def anomaly_p_value(self, X: Any) -> np.ndarray:
        """Conformal p-value of each image among the good training images.

        The fraction of out-of-sample training scores that are at least as anomalous, the image itself
        counted in. Calling an image defective when its value is at most 0.01 raises at most 1 % false
        alarms, as long as good images keep coming from where the training images came from.

        Parameters
        ----------
        X : images
            As in ``fit``; n images.

        Returns
        -------
        ndarray of shape (n,), float64
            In (0, 1]; the smallest possible value is
            ``1 / (len(calibration_scores_) + 1)``.

        Raises
        ------
        ValueError
            If the detector was fitted on a single image.
        """
        now = self._as_fitted()
        if now.calibration_scores_ is None:
            raise ValueError(
                "p-values need scores of good training images that were held out; this detector has "
                "none (fitted on one image, or with validation_fraction=0)."
            )
        return now._p_values_of(now.score_samples(X))

    def _p_values_of(self, scores: np.ndarray) -> np.ndarray:
        """P-values of images that were scored, where there are calibration scores."""
        known = np.asarray(self.calibration_scores_)
        lower = np.searchsorted(known, scores + self._margin, side="right")
        return (1 + lower) / (1 + len(known))

    @overload
    def predict_heatmap(self, X: Any) -> np.ndarray | list[np.ndarray]: ...
    @overload
    def predict_heatmap(
        self, X: Any, return_scores: bool
    ) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]: ...

    @one_call()
    def predict_heatmap(self, X: Any, return_scores: bool = False) -> Any:
        """Anomaly of each pixel, in the coordinates of the images as given.

        Parameters
        ----------
        X : images
            As in ``fit``; n images.
        return_scores : bool, default=False
            Also return ``score_samples(X)``, from the same pass over the images.

        Returns
        -------
        maps : ndarray of shape (n, H, W), float32, or list of n such arrays of shape (H_i, W_i)
            Higher = more anomalous; a list if the images differ in size. NaN where the geometry
            ``"crop"`` did not look. Images with an EXIF orientation count as displayed.
        scores : ndarray of shape (n,), float64
            Only with ``return_scores=True``.

        Notes
        -----
        Maps take 4 bytes per pixel of all images; where a detector has ``max_memory``, more than that is
        refused before work starts. :meth:`predict_regions` takes no such arrays.

        The map is computed on the canvas that the network sees, and interpolated at the pixels of the
        image. With ``image_score="map"`` the score is minus the highest value on the canvas: between
        pixels of a small image it may be missed.
        """
        now = self._as_fitted()
        now._check_room_for_maps(X)
        maps, scores = [], []
        for found in now._iter_maps(X):
            scores.append(-found.score)
            maps.append(found.heatmap())
        same = len({heatmap.shape for heatmap in maps}) == 1
        heatmaps = np.stack(maps) if same else maps
        return (heatmaps, np.array(scores)) if return_scores else heatmaps

    def _check_room_for_maps(self, X: Any) -> None:
        """Refuse before any work what would take more memory than a user allows."""

    @one_call()
    def predict_regions(self, X: Any, *, min_area: float = 0) -> Regions:
        """Find what is defective in each image: the regions above the threshold.

        With ``image_score="map"`` and ``min_area=0``, an image has a region exactly if
        :meth:`predict` calls it defective: both compare one map with one threshold. With another
        `image_score` regions lie above ``heatmap_threshold_``, which is calibrated on its own, and the
        two can disagree.

        Parameters
        ----------
        X : images
            As in ``fit``; n images.
        min_area : float, default=0
            Leave out regions of fewer pixels of the image. What :meth:`predict` says does not change:
            above 0, a defective image may have no region.

        Returns
        -------
        Regions
            For each image a list of :class:`skad.Region`, the highest peak first: bounding box, area,
            centroid, peak, mean, mask and contour, in the coordinates of the image as given.

        Notes
        -----
        Regions are found on the canvas that the network sees and carried to the image: each pixel of
        the image belongs to the canvas pixel in which its centre lies, and a region covers at least
        one pixel. Pixels above the threshold that touch, at a corner at least, make one region. Of it
        remains what reaches half of the way from the median peak of the calibration images to the
        highest value near by: a map is blurred, and blobs above the threshold are wider than defects.
        This shapes regions, and neither adds nor removes one.

        Memory does not grow with the size of images: masks are made when they are asked for.
        """
        now = self._as_fitted()
        found, shapes = [], []
        for image in now._iter_maps(X):
            found.append(now._regions_of(image, min_area))
            shapes.append(image.frame.shape)
        return Regions(found, shapes)

    def inspect(self, X: Any, *, min_area: float = 0) -> Iterator[Inspection]:
        """Find all there is to know of image after image: verdict, score, p-value, regions and map.

        What a line needs of an image takes one pass here, and one for each of :meth:`predict`,
        :meth:`anomaly_p_value`, :meth:`predict_regions` and :meth:`predict_heatmap`.

        Parameters
        ----------
        X : images
            As in ``fit``; n images.
        min_area : float, default=0
            Leave out regions of fewer pixels of the image, as in :meth:`predict_regions`.

        Yields
        ------
        Inspection
            Of each image, as soon as it is scored; the thresholds are those of the call. Only what is
            kept of them takes memory: maps are brought to the image when they are asked for.

        Notes
        -----
        Nothing is opened before the first one is asked for. An image that cannot be used is an error
        then, which names it.

        Examples
        --------
        >>> for found in det.inspect(paths):  # doctest: +SKIP
        ...     if found.verdict < 0:
        ...         print(found.score, [region.box for region in found.regions])
        """
        now = self._as_fitted()
        return in_one_call(map(partial(now._inspected, min_area=min_area), now._iter_maps(X)))

    def _inspected(self, image: MappedImage, min_area: float) -> Inspection:
        """Judge an image that was scored."""
        score, p_value = -image.score, None
        if self.calibration_scores_ is not None:
            p_value = float(self._p_values_of(np.array([score]))[0])
        return Inspection(
            verdict=1 if score - self.offset_ >= 0 else -1,
            score=score,
            p_value=p_value,
            regions=self._regions_of(image, min_area),
            shape=image.frame.shape,
            _mapped=image,
        )

    def _regions_of(self, image: MappedImage, min_area: float = 0) -> list[Region]:
        """Find the regions of an image that was scored."""
        return regions_of(
            image.canvas,
            self.heatmap_threshold_,
            image.geometry,
            image.frame.shape,
            min_area=min_area,
            usual_peak=float(np.median(self._calibration_peaks)),
        )
