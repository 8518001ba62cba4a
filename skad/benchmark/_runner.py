"""Runs presets over the categories of a data set; every result is a file, written when complete."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.utils import Bunch

from skad._system.files import write_text
from skad._validation.text import readable
from skad._version import __version__
from skad.benchmark._augmentation import write_augmented
from skad.benchmark._evaluation import evaluate
from skad.benchmark._presets import Preset, build_detector
from skad.datasets import DATASETS

_ALL = "all"
# Parameters that decide about time and messages, not about figures.
_FREE = ("device", "n_jobs", "verbose", "memory", "max_memory", "batch_size", "estimators")
_LIBRARIES = ("numpy", "scikit-learn", "torch", "timm", "pillow", "joblib")


@dataclass(frozen=True)
class Task:
    """A fit, and what it is measured on.

    Parameters
    ----------
    name : str
        Of the preset.
    preset : Preset
    dataset : str
        A name in :data:`skad.datasets.DATASETS`.
    path : str
        Where the data set lies.
    categories : tuple of str
        One, or all that share a model.
    draw : int
    seed : int
    changes : mapping
        Parameters set on top of the preset's.
    map_size : int or None
        As for :func:`evaluate`.
    """

    name: str
    preset: Preset
    dataset: str
    path: str
    categories: tuple[str, ...]
    draw: int
    seed: int
    changes: Mapping[str, Any]
    map_size: int | None

    @property
    def label(self) -> str:
        """How a line of progress names it."""
        what = _ALL if self.preset.one_model else self.categories[0]
        return f"{self.name}, {what}" + (f", draw {self.draw}" if self.preset.draws > 1 else "")


def run(
    path: str | os.PathLike[str],
    presets: Mapping[str, Preset],
    out: str | os.PathLike[str],
    *,
    dataset: str = "folder",
    categories: Sequence[str] | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    map_size: int | None = 256,
    n_jobs: int | None = None,
    backend: str | None = None,
    verbose: int = 0,
) -> Path:
    """Run presets over categories; what is finished in `out` is not run again.

    Parameters
    ----------
    path : path-like
        The data set's folder.
    presets : mapping of str to Preset
        By the names of their folders in `out`.
    out : path-like
        Gets ``<preset>/<category>-<draw>.json`` for every result; made if absent.
    dataset : str, default="folder"
        A name in :data:`skad.datasets.DATASETS`.
    categories : sequence of str, default=None
        Some of them; None: all.
    seed : int, default=0
        `random_state` of the first draw; draw i takes seed + i.
    changes : mapping, default=None
        Parameters set on top of the presets'.
    map_size : int or None, default=256
        As for :func:`evaluate`.
    n_jobs : int or None, default=None
        Fits at the same time, as joblib counts them.
    backend : str or None, default=None
        joblib's backend ("loky", "dask", ...).
    verbose : int, default=0
        1: a line a result.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    FileNotFoundError
        If the data set is not there; the message shows its layout.
    ValueError
        For an unknown data set, category or parameter, a category that lacks good or defective test
        images, or if `out` holds results of other settings: before the first fit.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset={dataset!r} is unknown; there are {', '.join(DATASETS)}.")
    found = DATASETS[dataset].categories(path)
    unknown = sorted(set(categories or ()) - set(found))
    if unknown:
        raise ValueError(
            f"no category {', '.join(unknown)} in {os.fspath(path)!r}; there are {', '.join(found)}."
        )
    chosen = tuple(found) if categories is None else tuple(dict.fromkeys(categories))
    if not chosen:
        raise ValueError("categories is empty: name some, or pass None for all.")
    if map_size is not None and map_size < 1:
        raise ValueError(f"map_size={map_size} must be at least 1, or None.")
    out = Path(out)
    tasks = [
        Task(
            name, preset, dataset, os.fspath(path), part, draw, seed + draw, changes or {}, map_size
        )
        for name, preset in presets.items()
        for part in ([chosen] if preset.one_model else [(c,) for c in chosen])
        for draw in range(preset.draws)
    ]
    # What is wrong with the last task is found before the first fit.
    open_tasks = [task for task in tasks if not _is_done(task, out)]
    _check(open_tasks)
    _make_folder(out)
    if verbose and len(open_tasks) < len(tasks):
        print(
            f"{len(tasks) - len(open_tasks)} of {len(tasks)} fits are finished already", flush=True
        )
    with parallel_config(backend=backend) if backend else ExitStack():
        Parallel(n_jobs=n_jobs)(
            delayed(run_task)(task, out, f"[{i}/{len(open_tasks)}]" if verbose else "")
            for i, task in enumerate(open_tasks, start=1)
        )
    return out


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"out={os.fspath(folder)!r} is a file: name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"out={os.fspath(folder)!r} cannot be written into.")


def _check(tasks: Sequence[Task]) -> None:
    """Read the lists of all images, and look at all parameters."""
    parts: dict[tuple[str, str, str], Bunch] = {}
    for task in tasks:
        detector = build_detector(task.preset, task.categories[0], task.seed, task.changes)
        for part in [detector, *(member for _, member in getattr(detector, "estimators", []))]:
            part._validate_params()
        for category in task.categories:
            key = task.dataset, task.path, category
            if key not in parts:
                parts[key] = DATASETS[task.dataset].load(task.path, category)
            _check_part(parts[key], category, task.preset.shots)


def _check_part(part: Bunch, category: str, shots: int | None) -> None:
    for label, kind in ((1, "good"), (-1, "defective")):
        if not np.any(part.y_test == label):
            raise ValueError(
                f"category {category!r} has no {kind} test images, and every figure needs some: add "
                "them, or leave the category out."
            )
    if shots is not None and shots > len(part.X_train):
        raise ValueError(
            f"category {category!r} has {len(part.X_train)} training images; {shots} are asked for."
        )


def run_task(task: Task, out: Path, prefix: str = "") -> None:
    """Fit, measure, and write a file for every category.

    Parameters
    ----------
    task : Task
    out : Path
    prefix : str, default=""
        Of a line of progress; empty: none.
    """
    parts = {c: DATASETS[task.dataset].load(task.path, c) for c in task.categories}
    detector = build_detector(task.preset, task.categories[0], task.seed, task.changes)
    with tempfile.TemporaryDirectory() as folder:
        if task.preset.augmented:
            parts = {c: _changed(part, Path(folder) / c, task.seed) for c, part in parts.items()}
        X = [image for c, part in parts.items() for image in _chosen(task, c, part.X_train)]
        start = time.perf_counter()
        detector.fit(X)
        fit_s = time.perf_counter() - start
        for category, part in parts.items():
            figures = evaluate(
                detector, part.X_test, part.y_test, part.masks_test, map_size=task.map_size
            )
            figures |= {"fit_s": fit_s, "n_train": len(X), "n_test": len(part.X_test)}
            _write(_file(task, category, out), {**_identity(task, category), "figures": figures})
            if prefix:
                auroc = figures["image_auroc"]
                label = task.label if len(parts) == 1 else f"{task.name}, {category}"
                print(
                    f"{prefix} {readable(label)}: image AUROC {auroc:.4f}, fit {fit_s:.0f} s",
                    flush=True,
                )


def _chosen(task: Task, category: str, images: Sequence[str]) -> list[str]:
    """All good images, or as many as a low-shot preset may see, drawn anew in each draw."""
    if task.preset.shots is None:
        return list(images)
    rng = np.random.default_rng([task.seed, zlib.crc32(category.encode())])
    order = rng.permutation(len(images))[: task.preset.shots]
    return [images[i] for i in np.sort(order)]


def _changed(part: Bunch, folder: Path, seed: int) -> Bunch:
    """Change the images of a part at random; its masks would not fit them any more."""
    copies = {}
    for name in ("X_train", "X_test"):
        (folder / name).mkdir(parents=True)
        copies[name] = write_augmented(part[name], folder / name, seed)
    return Bunch(**{**part, **copies, "masks_test": None})


# ---- files ----------------------------------------------------------------------------------------


def _file(task: Task, category: str, out: Path) -> Path:
    return out / task.name / f"{category}-{task.draw}.json"


def _identity(task: Task, category: str) -> dict[str, Any]:
    """Say what a result belongs to, and where it came from."""
    detector = build_detector(task.preset, task.categories[0], task.seed, task.changes)
    return {
        "preset": task.name,
        "title": task.preset.title,
        "dataset": task.dataset,
        "category": category,
        "draw": task.draw,
        "settings": {
            "detector": type(detector).__name__,
            "params": {name: repr(value) for name, value in _flat(detector).items()},
            "categories": list(task.categories),
            "shots": task.preset.shots,
            "augmented": task.preset.augmented,
            "map_size": task.map_size,
        },
        "changes": {n: repr(value) for n, value in task.changes.items() if n not in _FREE},
        "environment": _environment(),
    }


def _flat(detector: Any) -> dict[str, Any]:
    """Parameters that decide about the figures."""
    members = {name for name, _ in getattr(detector, "estimators", [])}
    return {
        name: value
        for name, value in detector.get_params().items()
        if name not in members and name.rsplit("__", 1)[-1] not in _FREE
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


def _is_done(task: Task, out: Path) -> bool:
    files = {category: _file(task, category, out) for category in task.categories}
    for category, file in files.items():
        settings = json.loads(json.dumps(_identity(task, category)["settings"]))
        if file.is_file() and read_result(file)["settings"] != settings:
            raise ValueError(
                f"{os.fspath(file)!r} holds a result of other settings: choose another folder, or "
                "delete it."
            )
    return all(file.is_file() for file in files.values())


def read_result(file: Path) -> dict[str, Any]:
    """Read what :func:`run_task` has written.

    Parameters
    ----------
    file : Path

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is none of ours.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        if {"preset", "category", "settings", "figures"} <= result.keys():
            return result
    except (ValueError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(file)!r} is no result of a benchmark: {error}") from error
    raise ValueError(f"{os.fspath(file)!r} is no result of a benchmark.")


def _write(file: Path, result: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(result, indent=1))


def with_defaults(method: str) -> Preset:
    """Make a preset of skad's own defaults for a method.

    Parameters
    ----------
    method : {"patchcore", "reconpatch", "recontrast"}

    Returns
    -------
    Preset
    """
    return Preset(f"{method}, skad's defaults", method, {})
