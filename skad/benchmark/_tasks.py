"""What a run has to do: rows, data sets, categories and seeds; all of it checked before it starts."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skad.benchmark._rows import Row
from skad.datasets import DATASETS

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Task:
    """A fit, and what it is measured on.

    Parameters
    ----------
    row : Row
    dataset : str
        A name in :data:`skad.datasets.DATASETS`.
    path : str
        Where the data set lies.
    categories : tuple of str
        One, or all that share a model.
    seed : int
    map_size : int or None
        As for :func:`evaluate`.
    """

    row: Row
    dataset: str
    path: str
    categories: tuple[str, ...]
    seed: int
    map_size: int | None

    def label(self, category: str) -> str:
        """How a line of progress names a result."""
        return f"{self.row.label}, {category}, seed {self.seed}"

    def load(self, category: str) -> Bunch:
        """Read the list of a category's images, and choose from those to learn from."""
        part = DATASETS[self.dataset].load(self.path, category)
        images = _spread(part.X_train, self.row.n_images)
        return Bunch(
            **{**part, "X_train": _drawn(images, self.row.preset.shots, category, self.seed)}
        )


def _spread(images: Sequence[str], n: int | None) -> list[str]:
    """At most n of the images, evenly over the list."""
    if n is None or n >= len(images):
        return list(images)
    return [images[i] for i in np.linspace(0, len(images) - 1, n).round().astype(int)]


def _drawn(images: list[str], shots: int | None, category: str, seed: int) -> list[str]:
    """Draw the images of a low-shot preset, others for every seed; all images for other presets."""
    if shots is None:
        return images
    if shots > len(images):
        raise ValueError(
            f"category {category!r} has {len(images)} training images and the preset needs {shots}: "
            "add some, or leave the category out."
        )
    rng = np.random.default_rng([seed, zlib.crc32(category.encode())])
    return [images[i] for i in np.sort(rng.permutation(len(images))[:shots])]


# ---- from what the user asks for ------------------------------------------------------------------


def find_parts(
    paths: PathLike | Sequence[PathLike],
    datasets: str | Sequence[str],
    categories: Sequence[str] | None,
) -> list[tuple[str, str, tuple[str, ...]]]:
    """List data sets with the categories that are asked for.

    Parameters
    ----------
    paths : path-like or sequence of path-like
    datasets : str or sequence of str
        One for all paths, or one for each.
    categories : sequence of str or None
        None: all.

    Returns
    -------
    list of (dataset, path, categories)
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    datasets = [datasets] * len(paths) if isinstance(datasets, str) else list(datasets)
    datasets = datasets * len(paths) if len(datasets) == 1 else datasets
    if not paths or len(datasets) != len(paths):
        raise ValueError(
            f"{len(paths)} folders and {len(datasets)} names of data sets: give one name for all "
            "folders, or one for each."
        )
    for name in datasets:
        if name not in DATASETS:
            raise ValueError(f"dataset={name!r} is unknown; there are {', '.join(DATASETS)}.")
    found = [
        (name, os.fspath(path), tuple(DATASETS[name].categories(path)))
        for name, path in zip(datasets, paths, strict=True)
    ]
    parts = found if categories is None else _chosen(found, categories)
    _check_distinct(parts)
    return parts


def _check_distinct(parts: list[tuple[str, str, tuple[str, ...]]]) -> None:
    """Two categories of one name would share a file of results."""
    seen: dict[tuple[str, str], str] = {}
    for dataset, path, names in parts:
        for name in names:
            other = seen.setdefault((dataset, name), path)
            if other != path:
                raise ValueError(
                    f"category {name!r} is in {other!r} and in {path!r}: run them one after the other "
                    "with different folders for the results."
                )


def _chosen(
    found: list[tuple[str, str, tuple[str, ...]]], categories: Sequence[str]
) -> list[tuple[str, str, tuple[str, ...]]]:
    if not categories:
        raise ValueError("categories is empty: name some, or pass None for all.")
    known = [name for _, _, names in found for name in names]
    unknown = sorted(set(categories) - set(known))
    if unknown:
        paths = ", ".join(repr(path) for _, path, _ in found)
        raise ValueError(
            f"no category {', '.join(unknown)} in {paths}; there are {', '.join(known)}."
        )
    wanted = [
        (dataset, path, tuple(c for c in dict.fromkeys(categories) if c in names))
        for dataset, path, names in found
    ]
    return [part for part in wanted if part[2]]


def make_tasks(
    rows: Sequence[Row],
    parts: Sequence[tuple[str, str, tuple[str, ...]]],
    seeds: Sequence[int] | None,
    map_size: int | None,
) -> list[Task]:
    """List all fits.

    Parameters
    ----------
    rows : sequence of Row
    parts : sequence of (dataset, path, categories)
    seeds : sequence of int or None
        None: as many as the preset asks for.
    map_size : int or None

    Returns
    -------
    list of Task
    """
    if map_size is not None and map_size < 1:
        raise ValueError(f"map_size={map_size} must be at least 1, or None.")
    if seeds is not None and not len(seeds):
        raise ValueError("seeds is empty: name some, or pass None for the presets' own.")
    return [
        Task(row, dataset, path, group, seed, map_size)
        for row in rows
        for dataset, path, categories in parts
        for group in ([categories] if row.preset.one_model else [(c,) for c in categories])
        for seed in dict.fromkeys(range(row.preset.n_seeds) if seeds is None else seeds)
    ]


def check(tasks: Sequence[Task]) -> None:
    """Read the lists of all images, and look at all parameters.

    Parameters
    ----------
    tasks : sequence of Task

    Raises
    ------
    FileNotFoundError, ValueError
        For what would fail later: what is wrong with the last task is found before the first fit.
    """
    for task in tasks:
        detector = task.row.detector(task.categories[0], task.seed)
        for part in [detector, *(member for _, member in getattr(detector, "estimators", []))]:
            part._validate_params()
    for part in _distinct_parts(tasks):
        _check_labels(*part)


def _distinct_parts(tasks: Sequence[Task]) -> Iterator[tuple[str, Any]]:
    """Read every category once, although several rows and seeds use it."""
    seen = set()
    for task in tasks:
        for category in task.categories:
            key = task.dataset, task.path, category, task.row.n_images, task.row.preset.shots
            if key not in seen:
                seen.add(key)
                yield category, task.load(category)


def _check_labels(category: str, part: Bunch) -> None:
    for label, kind in ((1, "good"), (-1, "defective")):
        if not np.any(part.y_test == label):
            raise ValueError(
                f"category {category!r} has no {kind} test images, and every figure needs some: add "
                "them, or leave the category out."
            )
