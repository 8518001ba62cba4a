"""Convolutions in 8-bit integers: less time on ResNets, at scores that are not quite the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from skad._common.forks import LOADING
from skad._export.graph import quiet
from skad._runtime.detector import ExportedDetector

# Images that set the ranges of the integers; more change little.
_N_RANGES = 32
# Levels of ONNX Runtime's log; warnings are its default.
_WARNINGS, _ERRORS = 2, 3


def quantised(model: Any, exported: ExportedDetector, good: Any) -> Any:
    """Write the convolutions of a model in 8-bit integers, by ONNX Runtime's quantiser.

    The search of the bank stays as it is: distances of near vectors are small differences of large
    products.

    Parameters
    ----------
    model : onnx.ModelProto
        In float32; not changed.
    exported : ExportedDetector
        Reads images as the file will.
    good : images
        Good images, whose values fix the ranges of the integers.

    Returns
    -------
    onnx.ModelProto
    """
    with LOADING:
        import onnx
        import onnxruntime
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Canvases(CalibrationDataReader):
        """Canvases of images, one by one."""

        def __init__(self) -> None:
            self._waiting = exported._iter_inputs(good)
            self._left = _N_RANGES

        def get_next(self) -> dict[str, np.ndarray] | None:
            self._left -= 1
            return next(self._waiting, None) if self._left >= 0 else None

    with tempfile.TemporaryDirectory() as folder, quiet(), _errors_alone(onnxruntime):
        before, after = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_static(
            before,
            after,
            Canvases(),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(after)


@contextmanager
def _errors_alone(onnxruntime: Any) -> Iterator[None]:
    """Keep ONNX Runtime's own log, which is none of Python's, to errors; it does not say what it was."""
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
