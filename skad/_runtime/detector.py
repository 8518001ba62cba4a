"""An exported detector: judges images without torch, timm and scikit-learn."""

from __future__ import annotations

import copy
import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skad._common.forks import LOADING
from skad._common.text import shortened
from skad._common.version import __version__
from skad._common.warn import warn_user
from skad._images import (
    ImageSource,
    as_image_source,
    is_rows,
    one_call,
    refuse_other_kind,
)
from skad._runtime.content import Content, Thresholds
from skad._runtime.file import CONTENT_KEY, check_file
from skad._runtime.graphs import Graph, WholeGraph
from skad._runtime.thresholds_file import read_thresholds, write_thresholds
from skad._scoring.judging import Judge
from skad._scoring.results import MappedImage

if TYPE_CHECKING:
    from typing_extensions import Self

_MEANWHILE = (
    "another thread has calibrated this detector meanwhile. Call again, one call at a time."
)


class ExportedDetector(Judge):
    """A detector that :func:`skad.export_onnx` has written; :func:`skad.load` reads it.

    Scores, maps, verdicts and regions are those of the detector, up to the rounding that the export
    has verified. It needs NumPy, Pillow, SciPy and ONNX Runtime alone.

    Attributes
    ----------
    offset_, heatmap_threshold_, calibration_scores_, target_false_alarm_rate
        As in :class:`PatchCoreDetector`.
    content_ : Content
        What the file says of the detector: its class, backbone, geometry, versions, and on what the
        export was verified.
    providers_ : list of str
        The execution providers that ONNX Runtime uses.

    See Also
    --------
    skad.load : Reads it.

    Examples
    --------
    >>> import skad
    >>> line = skad.load("line3.onnx")  # doctest: +SKIP
    >>> line.predict(paths)  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Sequence[Any] | None = None,
        n_threads: int | None = None,
    ) -> None:
        self._arguments = (os.fspath(path), providers, n_threads)
        self._path = Path(path)
        self._checksum = check_file(self._path)
        session = _session(self._path, providers, n_threads)
        self.content_ = _content(session, self._path)
        self.providers_: list[str] = session.get_providers()
        self._graph = _graph(session, self.content_)
        own = self.content_.thresholds
        self._take(read_thresholds(self._path, self._checksum) or own)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.content_.detector} of {self._path.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def _take(self, thresholds: Thresholds) -> None:
        scores = thresholds.calibration_scores
        self.contamination = self.content_.contamination
        self.target_false_alarm_rate = thresholds.target_false_alarm_rate
        self.offset_, self._margin = thresholds.offset, thresholds.margin
        self.heatmap_threshold_ = thresholds.heatmap_threshold
        self.calibration_scores_ = None if scores is None else np.array(scores)
        self._calibration_peaks = np.array(thresholds.calibration_peaks)

    def _thresholds(self) -> Thresholds:
        scores = self.calibration_scores_
        return Thresholds(
            offset=float(self.offset_),
            margin=float(self._margin),
            heatmap_threshold=float(self.heatmap_threshold_),
            calibration_scores=None if scores is None else scores.tolist(),
            calibration_peaks=self._calibration_peaks.tolist(),
            target_false_alarm_rate=float(self.target_false_alarm_rate),
        )

    def _as_fitted(self) -> Self:
        return copy.copy(super()._as_fitted())

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__ = {**vars(self)}
        return copied

    def _has_one_threshold(self) -> bool:
        return self.content_.has_one_threshold

    def _rounding_of(self, anomaly: float) -> float:
        return self.content_.rounding.of(anomaly)

    # ---------------------------------------------------------------- scoring

    @one_call()
    def score_samples(self, X: Any) -> np.ndarray:
        """Score the normality of each image: minus the anomaly score of the paper.

        Parameters
        ----------
        X : images
            Paths, PIL images, encoded images (bytes, open files) or arrays of any sizes, in a list or a
            column of a table; an array of shape (n, H, W[, C]); n images.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher = more normal; no score depends on the other images of X.
        """
        return -np.array(list(self._graph.scores(self._open(X))))

    def _iter_maps(self, X: Any) -> Iterator[MappedImage]:
        return self._graph.maps(self._open(X))

    def _open(self, X: Any) -> ImageSource:
        """Take what the user holds, and check all images before any work starts."""
        shape = self.content_.image_shape
        if is_rows(X):
            if shape is None:
                refuse_other_kind(True)
            X = np.asarray(X)
        images = as_image_source(X, image_shape=shape)
        images.check(self.content_.smallest_side)
        roi = self.content_.roi
        if roi is not None:
            for i, size in images.known_shapes():
                roi.check_shape(size, images.describe(i))
        return images

    def _iter_inputs(self, X: Any) -> Iterator[dict[str, np.ndarray]]:
        """Yield what a whole graph takes of image after image."""
        assert isinstance(self._graph, WholeGraph)
        return self._graph.inputs(self._open(X))

    # ------------------------------------------------------------------ thresholds

    @one_call()
    def calibrate(
        self, X: Any = None, *, target_false_alarm_rate: float | None = None
    ) -> ExportedDetector:
        """Move the threshold, and write it beside the file: ``line3.onnx.calibration.json``.

        ``offset_``, ``heatmap_threshold_`` and the p-values follow together; scores stay as they are.
        Whoever loads the file finds the threshold. To go back to that of the export, delete the file
        beside it.

        Parameters
        ----------
        X : images, default=None
            Fresh good images, which the detector has not learned from: after a new lamp or camera.
            Their scores become ``calibration_scores_``. None: the calibration scores at hand.
        target_false_alarm_rate : float, default=None
            Another fraction of good images that may be called defective, in (0, 1). None: as it is.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            If there is neither X nor a rate; if X holds fewer than two images, or images that cannot
            be used; if the rate is not in (0, 1), or ``contamination`` is a number, which leaves no
            rate to choose.
        OSError
            If the file cannot be written; the threshold stays as it was.
        RuntimeError
            If another thread has calibrated the detector meanwhile.

        Warns
        -----
        UserWarning
            If the calibration scores are too few for the rate.
        """
        before, moved = vars(self), copy.copy(self)
        self._check_rate(X, target_false_alarm_rate)
        if target_false_alarm_rate is not None:
            moved.target_false_alarm_rate = float(target_false_alarm_rate)
        if X is None:
            moved._keep_rate()
        else:
            scores, peaks = moved._measure_fresh(X)
            moved._calibrate(scores, scores, peaks)
        if vars(self) is not before:
            raise RuntimeError(_MEANWHILE)
        write_thresholds(self._path, self._checksum, moved._thresholds())
        self.__dict__ = vars(moved)
        return self

    def _check_rate(self, X: Any, rate: float | None) -> None:
        if rate is None:
            if X is None:
                raise ValueError("calibrate needs fresh good images, or a target_false_alarm_rate.")
            return
        if not 0 < rate < 1:
            raise ValueError(f"target_false_alarm_rate must be in (0, 1); got {rate!r}.")
        if self.contamination != "auto":
            raise ValueError(
                f"contamination={self.contamination!r} sets the threshold to a percentile of scores: "
                'there is no false-alarm rate to choose. Fit with contamination="auto".'
            )


def _session(path: Path, providers: Sequence[Any] | None, n_threads: int | None) -> Any:
    try:
        with LOADING:
            import onnxruntime
    except ImportError as error:
        raise ImportError(
            'an exported file is run by ONNX Runtime: pip install "skad[onnx]", or onnxruntime alone'
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, which are raised as well
    # Else room is planned for a whole run at once. The arena stays: without it memory may go back to the
    # system and be fetched anew, image after image, which has taken a third of the time.
    options.enable_mem_pattern = False
    if n_threads is not None:
        options.intra_op_num_threads = int(n_threads)
    wanted = ["CPUExecutionProvider"] if providers is None else list(providers)
    names = [one if isinstance(one, str) else one[0] for one in wanted]
    available = onnxruntime.get_available_providers()
    missing = [name for name in names if name not in available]
    if missing:
        raise ValueError(
            f"providers={names}: this ONNX Runtime ({onnxruntime.__version__}) has {available}. Install "
            "the build of it that has the others: onnxruntime-gpu, onnxruntime-openvino."
        )
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=wanted)
    except Exception as error:  # its errors have no common class of their own
        raise ValueError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {shortened(os.fspath(path))!r}: "
            f"{shortened(' '.join(str(error).split()))}"
        ) from error
    _give_back_memory()
    return session


def _give_back_memory() -> None:
    """Give what reading the file took back to the system: glibc would keep it, as much as the file."""
    with suppress(OSError, AttributeError):  # another system, or another library of C
        ctypes.CDLL(None).malloc_trim(0)


def _graph(session: Any, content: Content) -> Graph:
    if not content.parts:
        return WholeGraph(session, content)
    with LOADING:  # brings in what whole graphs do without, and 19 MB
        from skad._runtime.parts import GraphInParts
    return GraphInParts(session, content)


def _content(session: Any, path: Path) -> Content:
    text = session.get_modelmeta().custom_metadata_map.get(CONTENT_KEY, "")
    name = shortened(os.fspath(path))
    try:
        content = Content.of_json(text)
    except ValueError as error:
        raise ValueError(f"{name!r} cannot be used: {error}.") from error
    if content.versions.get("skad") != __version__:
        warn_user(
            f"{name!r} was written by skad {shortened(content.versions.get('skad', ''), 60)}, this is "
            f"{__version__}: compare its scores with known ones before you rely on it."
        )
    return content
