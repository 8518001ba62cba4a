"""What the tests of the command line share: a detector in a file, images, and a way to run commands."""

import logging
import shutil
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import make_detector
from PIL import Image

import skad
from skad.cli import main
from skad.utils.estimator_checks import defective_images, good_images


@cache
def stored() -> Path:
    """A folder with line3.skad, and images in parts/good (14), parts/new (2 good, 2 defective)."""
    folder = Path(tempfile.mkdtemp(prefix="skad-tests-"))
    pictures = {
        "parts/good": good_images(14),
        "parts/new": [*good_images(2, seed=10), *defective_images(2)],
    }
    for name, images in pictures.items():
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{i:02}.png")
    good = sorted(map(str, (folder / "parts/good").iterdir()))
    skad.save(make_detector().fit(good), folder / "line3.skad")
    return folder


def plant(folder: Path, monkeypatch) -> None:
    """Copy these files into a folder of the test, which becomes the current one."""
    shutil.copytree(stored(), folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)


def run(capsys, *arguments):
    """Run a command in this process; exit code, and what it printed."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return SimpleNamespace(code=code, out=out, err=err, lines=err.splitlines())


@contextmanager
def scheduler_here(n_threads=1):
    """A cluster of dask with one worker, all in this process; yields its address.

    Of a busy machine dask tells on stderr, where tests look for what skad says.
    """
    distributed = pytest.importorskip("distributed")
    settings = {"dashboard_address": ":0", "silence_logs": logging.ERROR, "processes": False}
    with distributed.LocalCluster(1, threads_per_worker=n_threads, **settings) as cluster:
        yield cluster.scheduler_address
