"""Rows of tables: presets, with parameters changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn.model_selection import ParameterGrid

from skad.benchmark._preset import Preset, build_detector

# Parameters that decide about time and messages, not about figures.
FREE = ("device", "n_jobs", "verbose", "memory", "max_memory", "batch_size", "estimators")

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Row:
    """A preset with some parameters changed.

    Parameters
    ----------
    name : str
        Of the preset.
    preset : Preset
    params : mapping, default={}
        Parameters set on top of the preset's.
    varied : tuple of str, default=()
        Those that not all rows share; progress names them.
    n_images : int or None, default=None
        Training images per category, at most; None: all.
    rotations : int or None, default=None
        Directions in which each training image is learned; None: the preset's.
    """

    name: str
    preset: Preset
    params: Mapping[str, Any] = field(default_factory=dict)
    varied: tuple[str, ...] = ()
    n_images: int | None = None
    rotations: int | None = None

    @property
    def n_directions(self) -> int:
        """Directions in which each training image is learned."""
        return self.preset.rotations if self.rotations is None else self.rotations

    @property
    def changes(self) -> dict[str, str]:
        """What differs from the preset and decides about the figures."""
        changes = {name: repr(value) for name, value in self.params.items() if name not in FREE}
        if self.n_images is not None:
            changes["training images"] = str(self.n_images)
        if self.n_directions != self.preset.rotations:
            changes["rotations"] = str(self.rotations)
        return changes

    @property
    def label(self) -> str:
        """How a line of progress names it."""
        varied = {name: str(value) for name, value in self.params.items() if name in self.varied}
        return ", ".join([self.name, *(f"{name}={value}" for name, value in varied.items())])

    @property
    def folder(self) -> str:
        """Name of the folder of its results: other changes, another folder."""
        if not self.changes:
            return self.name
        text = json.dumps(self.changes, sort_keys=True)
        return f"{self.name}-{hashlib.blake2b(text.encode(), digest_size=5).hexdigest()}"

    def detector(self, category: str, seed: int) -> Any:
        """Make its detector for a category, unfitted."""
        return build_detector(self.preset, category, seed, self.params)


def rows_of(
    presets: Mapping[str, Preset],
    grid: Grid | None,
    n_images: int | None = None,
    rotations: int | None = None,
) -> list[Row]:
    """Combine every preset with every combination of values.

    Parameters
    ----------
    presets : mapping of str to Preset
    grid : mapping of str to sequence, sequence of mappings, or None
        Values of parameters, as for scikit-learn's ParameterGrid.
    n_images : int or None, default=None
        Training images per category, at most; None: all.
    rotations : int or None, default=None
        Directions in which each training image is learned; None: the presets'.

    Returns
    -------
    list of Row
    """
    if n_images is not None and n_images < 1:
        raise ValueError(f"n_images={n_images} must be at least 1, or None for all.")
    if rotations is not None and rotations < 1:
        raise ValueError(f"rotations={rotations} must be at least 1, or None for the presets'.")
    grids = [grid] if isinstance(grid, Mapping) else list(grid or [{}])
    combinations = [params for part in grids for params in _combinations(part)]
    varied = _varied(combinations)
    rows = (
        Row(name, preset, params, varied, n_images, rotations)
        for name, preset in presets.items()
        for params in combinations
    )
    return list({row.folder: row for row in rows}.values())


def _combinations(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for params in ParameterGrid(grid):
        yield {name: params[name] for name in grid}  # in the order given


def _varied(combinations: list[dict[str, Any]]) -> tuple[str, ...]:
    """Name the parameters that differ, or are not in all combinations."""
    names = dict.fromkeys(name for params in combinations for name in params)
    values = {n: {repr(params.get(n, ...)) for params in combinations} for n in names}
    return tuple(name for name in names if len(values[name]) > 1)


def with_defaults(method: str) -> Preset:
    """Make a preset of skad's own defaults for a method.

    Parameters
    ----------
    method : {"patchcore", "reconpatch", "recontrast", "dinomaly", "padim", "spade"}

    Returns
    -------
    Preset
    """
    return Preset(f"{method}, skad's defaults", method, {})
