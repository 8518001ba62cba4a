"""Runs rows over the categories of data sets; what is finished is not run again."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from sklearn.utils import Bunch

from skad._common.text import readable
from skad.benchmark._augmentation import write_augmented, write_rotated
from skad.benchmark._evaluation import evaluate, kind_figures
from skad.benchmark._preset import Preset
from skad.benchmark._results import is_done, write_result
from skad.benchmark._rows import Grid, rows_of
from skad.benchmark._tasks import PathLike, Task, check, find_parts, make_tasks


def run(
    path: PathLike | Sequence[PathLike],
    presets: Mapping[str, Preset],
    out: PathLike,
    *,
    dataset: str | Sequence[str] = "folder",
    categories: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    grid: Grid | None = None,
    n_images: int | None = None,
    rotations: int | None = None,
    map_size: int | None = 256,
    n_jobs: int | None = None,
    backend: str | None = None,
    verbose: int = 0,
) -> Path:
    """Run presets over categories; what is finished in `out` is not run again.

    Parameters
    ----------
    path : path-like or sequence of path-like
        Folders of the data sets.
    presets : mapping of str to Preset
        By their names in tables.
    out : path-like
        Gets a file for every result, in a folder for every row; made if absent.
    dataset : str or sequence of str, default="folder"
        A name in :data:`skad.datasets.DATASETS`, or one for each path.
    categories : sequence of str, default=None
        Some of them; None: all.
    seeds : sequence of int, default=None
        Values of `random_state`; tables show means and standard deviations over them. None: 0, or as
        many as the preset asks for.
    grid : mapping of str to sequence, or sequence of mappings, default=None
        Values of parameters, set on top of the presets'. Every combination is a row; several mappings
        are combined one after the other, as by scikit-learn's ParameterGrid.
    n_images : int or None, default=None
        Training images per category, at most, spread evenly over its folder; None: all.
    rotations : int or None, default=None
        Directions, evenly over the circle, in which each training image is learned: itself, and rotated
        copies; None: the presets', which is mostly 1.
    map_size : int or None, default=256
        As for :func:`evaluate`.
    n_jobs : int or None, default=None
        Fits at the same time, as joblib counts them.
    backend : str or None, default=None
        joblib's backend ("loky", "dask", ...).
    verbose : int, default=0
        1: print a line per result.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    FileNotFoundError
        If a data set is not there; the message shows its layout.
    ValueError
        For an unknown data set, category or parameter, a category that lacks good or defective test
        images, or if `out` holds results of other settings: before the first fit.

    Examples
    --------
    >>> from skad.benchmark import PRESETS, run, write_tables
    >>> presets = {"patchcore-1": PRESETS["patchcore-1"]}
    >>> grid = {"backbone": ["skad_nano", "resnet18.tv_in1k"]}
    >>> run("mvtec_ad", presets, "tables", seeds=range(3), grid=grid)  # doctest: +SKIP
    >>> write_tables("tables")  # doctest: +SKIP
    """
    parts = find_parts(path, dataset, categories)
    tasks = make_tasks(rows_of(presets, grid, n_images, rotations), parts, seeds, map_size)
    out = Path(out)
    open_tasks = [task for task in tasks if not is_done(task, out)]
    check(open_tasks)
    _make_folder(out)
    if verbose and len(open_tasks) < len(tasks):
        print(f"{len(tasks) - len(open_tasks)} of {len(tasks)} fits are done already", flush=True)
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
        raise PermissionError(
            f"out={os.fspath(folder)!r} cannot be written to: name another folder."
        )


def run_task(task: Task, out: Path, prefix: str = "") -> None:
    """Fit, measure, and write a file for every category.

    Parameters
    ----------
    task : Task
    out : Path
    prefix : str, default=""
        Of the line that is printed per result; empty: none.
    """
    parts = {category: task.load(category) for category in task.categories}
    names = {
        category: [os.path.relpath(file, task.path).replace(os.sep, "/") for file in part.X_test]
        for category, part in parts.items()
    }
    detector = task.row.detector(task.categories[0], task.seed)
    with tempfile.TemporaryDirectory() as folder:
        if task.row.preset.augmented:
            parts = {c: _augmented(part, Path(folder) / c, task.seed) for c, part in parts.items()}
        if task.row.n_directions > 1:
            parts = {
                c: _turned(part, Path(folder) / "turned" / c, task) for c, part in parts.items()
            }
        X = [image for part in parts.values() for image in part.X_train]
        start = time.perf_counter()
        detector.fit(X)
        fit_s = time.perf_counter() - start
        for category, part in parts.items():
            figures, scores = evaluate(
                detector,
                part.X_test,
                part.y_test,
                part.masks_test,
                map_size=task.map_size,
                return_scores=True,
            )
            figures |= kind_figures(part.y_test, scores, part.defects_test)
            figures |= {"fit_s": fit_s, "n_train": len(X), "n_test": len(part.X_test)}
            images = {
                "names": names[category],
                "labels": part.y_test.tolist(),
                "scores": scores.tolist(),
            }
            write_result(task, category, figures, images, out)
            if prefix:
                print(
                    f"{prefix} {readable(task.label(category))}: image AUROC "
                    f"{figures['image_auroc']:.4f}, fit {fit_s:.0f} s",
                    flush=True,
                )


def _augmented(part: Bunch, folder: Path, seed: int) -> Bunch:
    """Change the images of a part at random; without its masks, which would not fit them any more."""
    copies = {}
    for name in ("X_train", "X_test"):
        (folder / name).mkdir(parents=True)
        copies[name] = write_augmented(part[name], folder / name, seed)
    return Bunch(**{**part, **copies, "masks_test": None})


def _turned(part: Bunch, folder: Path, task: Task) -> Bunch:
    """Add rotated copies of the images to learn from."""
    folder.mkdir(parents=True)
    return Bunch(**{**part, "X_train": write_rotated(part.X_train, folder, task.row.n_directions)})
