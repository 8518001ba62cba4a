"""Results as files: one for every row, category and seed, written when complete."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from skad._common.files import write_text
from skad._common.version import __version__
from skad.benchmark._rows import FREE
from skad.benchmark._tasks import Task

_LIBRARIES = ("numpy", "scikit-learn", "torch", "timm", "pillow", "joblib")


def is_done(task: Task, out: Path) -> bool:
    """Tell whether all results of a task are there.

    Parameters
    ----------
    task : Task
    out : Path

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If there are some of other settings, or a file that is no result.
    """
    files = {category: _file(task, category, out) for category in task.categories}
    for category, file in files.items():
        settings = json.loads(json.dumps(_identity(task, category)["settings"]))
        if file.is_file() and read_result(file)["settings"] != settings:
            raise ValueError(
                f"{os.fspath(file)!r} holds a result of other settings: choose another folder, or "
                "delete it."
            )
    return all(file.is_file() for file in files.values())


def write_result(
    task: Task,
    category: str,
    figures: Mapping[str, float],
    images: Mapping[str, list[Any]],
    out: Path,
) -> None:
    """Write the figures of a category, whole or not at all.

    Parameters
    ----------
    task : Task
    category : str
    figures : mapping of str to float
    images : mapping of str to list
        ``names``, ``labels`` and ``scores`` of the test images, from which intervals are computed.
    out : Path
    """
    file = _file(task, category, out)
    file.parent.mkdir(parents=True, exist_ok=True)
    result = {**_identity(task, category), "figures": figures, "images": images}
    write_text(file, json.dumps(result, indent=1))


def read_results(out: Path) -> list[dict[str, Any]]:
    """Read all results in a folder.

    Parameters
    ----------
    out : Path

    Returns
    -------
    list of dict
        In the order of the files' names.

    Raises
    ------
    ValueError
        If a file is no result.
    """
    return [read_result(file) for file in sorted(out.glob("*/*.json"))]


def read_result(file: Path) -> dict[str, Any]:
    """Read what :func:`write_result` has written.

    Parameters
    ----------
    file : Path

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is no such file.
    """
    name = repr(os.fspath(file))
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        if {"preset", "category", "seed", "settings", "figures"} <= result.keys():
            return result
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{name} is no result of a benchmark ({error}): move it elsewhere."
        ) from error
    raise ValueError(f"{name} is no result of a benchmark: move it elsewhere.")


def _file(task: Task, category: str, out: Path) -> Path:
    return out / task.row.folder / f"{task.dataset}-{category}-{task.seed}.json"


def _identity(task: Task, category: str) -> dict[str, Any]:
    """Say what a result belongs to, and where it came from."""
    row = task.row
    detector = row.detector(task.categories[0], task.seed)
    return {
        "preset": row.name,
        "title": row.preset.title,
        "dataset": task.dataset,
        "category": category,
        "seed": task.seed,
        "changes": row.changes,
        "settings": {
            "detector": type(detector).__name__,
            "params": {name: repr(value) for name, value in _flat(detector).items()},
            "categories": list(task.categories),
            "shots": row.preset.shots,
            "images": row.n_images,
            "augmented": row.preset.augmented,
            # Left out where there are none: results of before have no such line.
            **({"rotations": row.n_directions} if row.n_directions > 1 else {}),
            "map_size": task.map_size,
        },
        "environment": _environment(),
    }


def _flat(detector: Any) -> dict[str, Any]:
    """Parameters that decide about the figures."""
    members = {name for name, _ in getattr(detector, "estimators", [])}
    return {
        name: value
        for name, value in detector.get_params().items()
        if name not in members and name.rsplit("__", 1)[-1] not in FREE
    }


def _environment() -> dict[str, Any]:
    return {
        "skad": __version__,
        **{name: metadata.version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
