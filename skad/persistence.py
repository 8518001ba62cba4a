"""Detectors in files that hold numbers and text alone: nothing in them is ever executed.

A ``.skad`` file is a safetensors file. Its tensors are the arrays of the detector; its header holds the
rest as JSON, the versions it was written with, and a checksum over everything. Only classes of skad's
own list are ever made from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import sklearn
import torch
from sklearn.utils.validation import check_is_fitted

from skad._bank import Cover, MemoryBank
from skad._calibration import CalibrationLog
from skad._contract import BaseDetector
from skad._features import FeatureSpec, load_backbone
from skad._features.weight_files import BACKBONE_PREFIX
from skad._fusion import Member, RobustScale, ScoreFusionDetector
from skad._images import Geometry
from skad._patchcore import PatchCoreDetector
from skad._reconpatch import ReConPatchDetector
from skad._recontrast import ReContrastDetector
from skad._version import __version__

SUFFIX = ".skad"
_FORMAT = "1"
_DETECTORS = (PatchCoreDetector, ReConPatchDetector, ReContrastDetector, ScoreFusionDetector)
_CLASSES = {
    cls.__name__: cls
    for cls in (
        *_DETECTORS,
        Geometry,
        FeatureSpec,
        MemoryBank,
        Member,
        RobustScale,
        Cover,
        CalibrationLog,
    )
}


def save(
    detector: BaseDetector, path: str | os.PathLike[str], *, include_backbone: bool = False
) -> None:
    """Write a fitted detector to a file without pickle.

    Parameters
    ----------
    detector : detector
        Fitted. A ``memory`` is left behind, since its folder belongs to this machine.
    path : path-like
        Ends in ``.skad``. An older file of that name is replaced when the new one is complete.
    include_backbone : bool, default=False
        Also write the weights of the backbone, for a machine that has none of them. ``skad_nano`` comes
        with skad and needs no such thing.

    Raises
    ------
    ValueError
        For another suffix, or a parameter that is no number, text or path (a network of your own, a
        RandomState): such detectors can be pickled.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    See Also
    --------
    load : The way back.

    Examples
    --------
    >>> import skad
    >>> skad.save(det, "line3.skad")  # doctest: +SKIP
    >>> skad.load("line3.skad").predict(paths)  # doctest: +SKIP
    """
    path = _checked_path(path)
    if not isinstance(detector, _DETECTORS):
        raise TypeError(f"{type(detector).__name__} is no detector of skad.")
    check_is_fitted(detector, "_params_at_fit")
    writer = _Writer()
    metadata = {
        "skad_format": _FORMAT,
        "skad_version": __version__,
        "sklearn_version": sklearn.__version__,
        "content": json.dumps(writer.encode(detector)),
    }
    tensors = writer.tensors
    if include_backbone:
        tensors |= _backbone_tensors(detector)
    metadata["checksum"] = _checksum(metadata, tensors)
    from safetensors.numpy import save_file

    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        save_file(tensors, unfinished, metadata=metadata)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a detector that :func:`save` has written.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    detector
        Fitted; scores as it did. Where the file holds the weights of the backbone, its `weights` is
        `path`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, was changed, or is none of skad's; nothing is made of it then.

    Warns
    -----
    UserWarning
        If it was written by another version of skad.
    """
    path = _checked_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{os.fspath(path)!r}: there is no such file.")
    metadata, tensors = _read(path)
    if metadata.get("skad_format") != _FORMAT:
        raise ValueError(
            f"{os.fspath(path)!r} has format {metadata.get('skad_format')!r}; this skad "
            f"({__version__}) reads {_FORMAT!r}. Install the version it was written with: "
            f"{metadata.get('skad_version')}."
        )
    if metadata["skad_version"] != __version__:
        warnings.warn(
            f"{os.fspath(path)!r} was written by skad {metadata['skad_version']}, this is "
            f"{__version__}: compare its scores with known ones before you rely on it.",
            UserWarning,
            stacklevel=2,
        )
    try:
        detector = _Reader(tensors).decode(json.loads(metadata["content"]))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the content of {os.fspath(path)!r} is not what skad writes: {error!r}"
        ) from error
    if any(name.startswith(BACKBONE_PREFIX) for name in tensors):
        for member in _members(detector):
            member.weights = os.fspath(path)
    return detector


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if Path(path).suffix != SUFFIX:
        raise ValueError(f"path={os.fspath(path)!r} must end in {SUFFIX!r}.")
    return Path(path)


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors, if they are what was written."""
    from safetensors import SafetensorError, safe_open

    damaged = f"{os.fspath(path)!r} is damaged, incomplete or no file of skad's"
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{damaged}: {error}") from error
    if not {"content", "checksum", "skad_version"} <= metadata.keys():
        raise ValueError(f"{damaged}: it lacks skad's header.")
    if metadata["checksum"] != _checksum(metadata, tensors):
        raise ValueError(f"{damaged}: its checksum does not match.")
    return metadata, tensors


def _checksum(metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    header = {name: text for name, text in metadata.items() if name != "checksum"}
    digest.update(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, tensor.shape, tensor.dtype.str]).encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


# ---- backbones -------------------------------------------------------------------------------------


def _members(detector: Any) -> list[Any]:
    return list(detector.estimators_) if hasattr(detector, "estimators_") else [detector]


def _backbone_tensors(detector: Any) -> dict[str, np.ndarray]:
    members = _members(detector)
    if len({member.weights_digest_ for member in members}) > 1:
        raise ValueError(
            "include_backbone=True holds one backbone a file, and the members of this ensemble have "
            "several: ship their weights as files of their own (weights=)."
        )
    member = members[0]
    levels = member.feature_spec_.levels if hasattr(member, "feature_spec_") else (1, 2, 3)
    body = load_backbone(member.backbone, member.weights, levels, torch.device("cpu")).body
    state = getattr(body, "model", body).state_dict()
    return {
        f"{BACKBONE_PREFIX}{name}": _contiguous(tensor.numpy()) for name, tensor in state.items()
    }


# ---- objects <-> JSON and arrays -------------------------------------------------------------------


class _Writer:
    """Turns objects into JSON; arrays go to `tensors`, and what occurs twice is written once."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # ids are unique as long as their objects live

    def encode(self, value: Any, where: str = "") -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, int | float):
            return value
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, type) and value.__name__ in _CLASSES:
            return {"class": value.__name__}
        if id(value) in self._seen:
            return {"again": self._seen[id(value)]}
        self._seen[id(value)] = len(self._kept)
        self._kept.append(value)
        return self._encode_object(value, where)

    def _encode_object(self, value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            return self._encode_array(value)
        name = type(value).__name__
        if _CLASSES.get(name) is type(value):
            return {"object": name, "state": self._items(_state(value), where)}
        if isinstance(value, dict):
            return {"dict": self._items(value, where)}
        if isinstance(value, list | tuple):
            items = [self.encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
            return {type(value).__name__: items}
        raise ValueError(
            f"{where.lstrip('.')} holds a {name}, which a {SUFFIX} file cannot: use a number, a text or "
            "a path there, or pickle the detector."
        )

    def _items(self, items: dict, where: str) -> list[list[Any]]:
        return [[str(key), self.encode(item, f"{where}.{key}")] for key, item in items.items()]

    def _encode_array(self, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.kind in "OU":
            return {"texts": [str(text) for text in array]}
        name = f"array{len(self.tensors)}"
        self.tensors[name] = _contiguous(array)
        return {"array": name}


def _contiguous(array: np.ndarray) -> np.ndarray:
    # safetensors writes memory as it lies; ascontiguousarray makes vectors of single numbers.
    return np.ascontiguousarray(array).reshape(array.shape)


class _Reader:
    """Turns JSON and arrays back into objects of the classes it knows."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._tensors = tensors
        self._made: list[Any] = []

    def decode(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, content), *_) = value.items()
        if kind == "again":
            return self._made[content]
        if kind == "class":
            return _CLASSES[content]
        # The place is taken before the parts are read, as it was in writing.
        place = len(self._made)
        self._made.append(None)
        makers: dict[str, Callable[[], Any]] = {
            "array": lambda: self._tensors[content],
            "texts": lambda: np.array(content, dtype=object),
            "list": lambda: [self.decode(item) for item in content],
            "tuple": lambda: tuple(self.decode(item) for item in content),
            "dict": lambda: self._pairs(content),
            "object": lambda: _rebuilt(_CLASSES[content], self._pairs(value["state"])),
        }
        self._made[place] = makers[kind]()
        return self._made[place]

    def _pairs(self, items: list[list[Any]]) -> dict[str, Any]:
        return {key: self.decode(item) for key, item in items}


def _state(value: Any) -> dict[str, Any]:
    if isinstance(value, tuple):  # named
        return value._asdict()  # type: ignore[attr-defined]
    state = value.__getstate__() if isinstance(value, BaseDetector | MemoryBank) else vars(value)
    # The header of the file says the versions.
    return {
        name: None if name == "memory" else item
        for name, item in state.items()
        if name != "_versions"
    }


def _rebuilt(cls: type, state: dict[str, Any]) -> Any:
    if issubclass(cls, BaseDetector | MemoryBank):
        made = cls.__new__(cls)
        made.__setstate__(state)
        return made
    return cls(**state)
