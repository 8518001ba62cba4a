"""Reads whatever skad has written, by its suffix; brings in no more than the file needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from skad._common.forks import LOADING

_SUFFIXES = (".skad", ".onnx")


def load(
    path: str | os.PathLike[str],
    *,
    providers: Sequence[Any] | None = None,
    n_threads: int | None = None,
) -> Any:
    """Read a detector that :func:`save` or :func:`export_onnx` has written.

    Parameters
    ----------
    path : path-like
        Ends in ``.skad`` (of :func:`save`) or ``.onnx`` (of :func:`export_onnx`).
    providers : sequence of str or of (str, dict), default=None
        For ``.onnx`` only: ONNX Runtime's execution providers, in the order of preference, such as
        ``["CUDAExecutionProvider", "CPUExecutionProvider"]``. None: the CPU.
    n_threads : int, default=None
        For ``.onnx`` only: threads that one image is computed by. None: ONNX Runtime decides.

    Returns
    -------
    detector
        Fitted; scores as it did. Of ``.onnx``: a :class:`skad.ExportedDetector`, which needs no torch.
        Where a ``.skad`` file holds the weights of the backbone, its `weights` is `path`, made absolute.

    Raises
    ------
    OSError
        If there is no such file (FileNotFoundError), or it must not be read (PermissionError).
    ValueError
        If the file is truncated, was changed, is none of skad's, or holds what no detector can; the
        message names the attribute. If `providers` are not there, or given for a ``.skad`` file.
    ImportError
        If onnxruntime is missing.

    Warns
    -----
    UserWarning
        If it was written by another version of skad.

    Notes
    -----
    A checksum tells damage, not intent: whoever writes a file chooses the scores. What a file of
    strangers cannot do is run code, name a folder to be written to (`memory` is never read), or make
    scoring fail in other ways than by an error. A ``.skad`` file can name a file of weights, which is
    read as tensors when the detector first scores, and refused unless it is the backbone of the fit; to
    read none, pass one of your own with ``set_params(weights=...)`` first. The graph of an ``.onnx``
    file is run by ONNX Runtime, and nothing else of it.
    """
    suffix = Path(path).suffix
    if suffix not in _SUFFIXES:
        raise ValueError(f"path={os.fspath(path)!r} must end in '.skad' or '.onnx'.")
    if suffix == ".onnx":
        with LOADING:
            exported = import_module("skad._runtime.detector").ExportedDetector
        return exported(path, providers, n_threads)
    if providers is not None or n_threads is not None:
        raise ValueError(
            "providers and n_threads are for files of export_onnx; a detector of torch's has the "
            "parameter device."
        )
    with LOADING:
        read = import_module("skad.persistence").load
    return read(path)
