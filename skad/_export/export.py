"""A fitted detector in one ONNX file, verified before it is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from skad._common.files import replacing
from skad._common.forks import LOADING
from skad._common.warn import warn_user
from skad._export.description import describe, verified_on
from skad._export.detectors import first_member, network_of, on_cpu
from skad._export.graph import of_canvas, to_onnx
from skad._export.int8 import quantised
from skad._export.parts import Parts, needs_parts
from skad._export.refusals import refuse
from skad._export.verification import compare, probe
from skad._images import one_call
from skad._runtime.content import Content
from skad._runtime.detector import ExportedDetector
from skad._runtime.file import CONTENT_KEY, SUFFIX, with_checksum
from skad._verdicts import BaseDetector

# Largest differences allowed of a file, and of one whose convolutions are in integers.
_TOLERANCE, _OF_INT8 = 1e-5, 0.2
# Of a graph that ends at verdicts; the last is missing where there are no calibration scores.
_OUTPUTS = ("score", "verdict", "map", "p_value")


@one_call()
def export_onnx(
    detector: BaseDetector,
    path: str | os.PathLike[str],
    X: Any = None,
    *,
    tolerance: float | None = None,
    int8_from: Any = None,
) -> None:
    """Write a fitted detector to an ONNX file that needs neither torch nor scikit-learn.

    The file holds the network, the memory bank, the map, and in its header all that verdicts need:
    threshold, calibration scores, geometry, region of interest, versions. :func:`skad.load` reads it.

    The file is run beside the detector before it is written. It is refused if a score or a value of a
    map differs by more than `tolerance`, or if a verdict differs whose score is farther than that from
    the threshold.

    Parameters
    ----------
    detector : detector
        Fitted.
    path : path-like
        Ends in ``.onnx``. An older file of that name is replaced when the new one is complete.
    X : images, default=None
        Images by which the file is compared with the detector: some of the line's, good and defective.
        None: patterns drawn always alike, and a warning.
    tolerance : float, default=None
        The largest difference of scores, and of values of maps, as a fraction of the anomaly threshold
        and a tenth of the value itself: what float32 does not resolve of large ones. The header of the
        file says it. None: 1e-5, and 0.2 with `int8_from`.
    int8_from : images, default=None
        Good images from which the detector has not learned. The convolutions are written in 8-bit
        integers, whose ranges, and the thresholds of the file, come from these images. Scores and
        verdicts are others than the detector's: ``docs/deploy.md`` says what that costs and when it
        pays. Only of detectors with a memory bank, whose images have one canvas. None: float32.

    Raises
    ------
    ValueError
        For another suffix, a tolerance that is not positive, images that cannot be read, or a detector
        of which something cannot be exported; the message names it.
    RuntimeError
        If the file scores otherwise than the detector; nothing was written.
    ImportError
        If onnx, onnxscript or onnxruntime are missing: ``pip install "skad[onnx]"``.
    OSError
        If the file cannot be written; what was there stays.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Warns
    -----
    UserWarning
        If there is no X: the file is not verified on images.

    See Also
    --------
    skad.load : Reads the file.
    skad.save : Writes a detector that can go on learning.

    Notes
    -----
    Inputs of the graph: ``canvas`` (B, H, W, 3), uint8, images resized to the canvas; with
    ``geometry="pad"`` also ``content`` (B, 4), int64, where on it each image lies: top, bottom, left,
    right. Outputs: ``score`` (B,), higher = more normal; ``verdict`` (B,), +1 good, -1 defective;
    ``map`` (B, H, W), higher = more anomalous; ``p_value`` (B,). Verdicts and p-values of the graph are
    those of the export, whatever is calibrated later.

    With ``tiles="native"``, of ensembles whose members see different canvases, and with a region of
    interest on more than 1024 x 1024 pixels, the graph ends at grids of patch scores, of which
    :func:`skad.load` makes maps and scores.

    Examples
    --------
    >>> import skad
    >>> skad.export_onnx(det, "line3.onnx", X=some_images)  # doctest: +SKIP
    >>> skad.load("line3.onnx").predict(paths)  # doctest: +SKIP
    """
    path = _checked_path(path)
    if not isinstance(detector, BaseDetector):
        raise TypeError(f"{type(detector).__name__} is no detector of skad.")
    check_is_fitted(detector, "_params_at_fit")
    is_int8 = int8_from is not None
    tolerance = (_TOLERANCE, _OF_INT8)[is_int8] if tolerance is None else tolerance
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1); got {tolerance!r}.")
    refuse(detector, int8=is_int8)
    _import_libraries()
    fitted = on_cpu(detector)
    member = first_member(fitted)
    # Before the graph is made, which takes longer.
    for given in (X, int8_from):
        if given is not None:
            member._open(given, reset=False).check()
    images = _probe_of(member) if X is None else X
    with replacing(path) as unfinished:
        model, content = _graph_of(fitted), describe(fitted)
        unfinished.write_bytes(_with_header(model, content))
        if is_int8:
            model, content = _in_int8(fitted, model, unfinished, int8_from)
            unfinished.write_bytes(_with_header(model, content))
        file = ExportedDetector(unfinished)
        found = compare(fitted, file, images, tolerance, verdicts=not is_int8)
        noted = {
            "on": "not verified on images" if X is None else "images",
            "n_images": found.n_images,
            "largest_difference_of_scores": found.score,
            "largest_difference_of_maps": found.heatmap,
            "tolerance": tolerance,
            "convolutions": "int8" if is_int8 else "float32",
        }
        unfinished.write_bytes(_with_header(model, verified_on(content, noted)))
    if X is None:
        warn_user(
            f"{os.fspath(path)!r} was not verified on images, but on patterns alone: pass some of the "
            "line's, export_onnx(det, path, X=images)."
        )


def _graph_of(fitted: Any) -> Any:
    if needs_parts(fitted):
        parts = Parts(fitted)
        return to_onnx(parts, parts.arguments, parts.outputs)
    member = first_member(fitted)
    takes_content = member.geometry_.mode == "pad" and member._roi() is None
    return to_onnx(network_of(fitted), of_canvas(member.geometry_.canvas, takes_content), _OUTPUTS)


def _in_int8(fitted: Any, model: Any, unfinished: Path, good: Any) -> tuple[Any, Content]:
    """Make a model in integers of that which the file holds, with thresholds of its own."""
    exported = ExportedDetector(unfinished)
    model = quantised(model, exported, good)
    unfinished.write_bytes(_with_header(model, describe(fitted)))
    scores, peaks = ExportedDetector(unfinished)._measure_fresh(good)
    # Another detector by its thresholds alone, which the graph holds: it is made again.
    moved = on_cpu(fitted)
    moved._calibrate(scores, scores, peaks)
    return quantised(_graph_of(moved), exported, good), describe(moved)


def _probe_of(detector: Any) -> list:
    """Draw images that the detector takes."""
    roi = detector._roi()
    if roi is not None:
        return probe(roi.mask.shape, varied=False)
    return probe(detector.geometry_.canvas, varied=detector.geometry_.mode != "squash")


def _with_header(model: Any, content: Content) -> bytes:
    del model.metadata_props[:]
    model.metadata_props.add(key=CONTENT_KEY, value=content.to_json())
    return with_checksum(model.SerializeToString())


def _import_libraries() -> None:
    try:
        with LOADING:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'export_onnx needs {error.name}: pip install "skad[onnx]", which brings onnx, onnxscript '
            "and onnxruntime"
        ) from error


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if Path(path).suffix != SUFFIX:
        raise ValueError(f"path={os.fspath(path)!r} must end in {SUFFIX!r}.")
    return Path(path)
