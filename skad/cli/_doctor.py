"""``skad doctor``: whether this machine has what skad needs."""

from __future__ import annotations

import importlib
import os
import platform
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from typing import NamedTuple

from skad._common.forks import LOADING
from skad._common.version import __version__
from skad.cli._messages import one_line

NAME = "doctor"
HELP = "whether this machine has what skad needs"
DESCRIPTION = """\
Print versions, devices, where weights are looked for, and how a detector fits, scores and is saved on
generated images. The exit code is 1 if anything is broken.
"""
EXAMPLES = """\
  skad doctor
"""
_NEEDED = {"torch": "torch", "timm": "timm", "scikit-learn": "sklearn", "numpy": "numpy"}
_OPTIONAL = {
    ("faiss-cpu", "faiss-gpu"): 'pip install "skad[cpu]" makes large banks faster',
    ("onnxruntime", "onnxruntime-gpu"): "for exported detectors",
    ("matplotlib",): 'pip install "skad[plot]" for reports',
}
_SIDE, _N_IMAGES = 64, 12


class Line(NamedTuple):
    """What was found, and whether it is as it should be."""

    name: str
    text: str
    ok: bool = True


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing: the command needs no arguments."""


def run(args: Namespace) -> int:
    """Look at everything, one line each."""
    broken = 0
    for line in _lines():
        print(f"{'ok     ' if line.ok else 'BROKEN '} {line.name:<14} {line.text}", flush=True)
        broken += not line.ok
    print("all well" if not broken else f"{broken} broken")
    return int(broken > 0)


def _lines() -> Iterator[Line]:
    yield Line("python", f"{platform.python_version()}, {platform.platform()}")
    yield Line("skad", __version__)
    for name, module in _NEEDED.items():
        yield _needed(name, module)
    for names, remedy in _OPTIONAL.items():
        yield _optional(names, remedy)
    for name, look in (
        ("devices", _devices),
        ("threads", _threads),
        ("weights", _weights),
        ("self-test", self_test),
    ):
        yield _tried(name, look)


def _needed(name: str, module: str) -> Line:
    def version() -> str:
        with LOADING:
            if module == "timm":
                from skad._features._timm import import_timm

                import_timm()  # beside a torch of another build its torchvision needs a hand
            else:
                importlib.import_module(module)
        return _version(name) or "from a folder of its own"

    return _tried(name, version)


def _optional(names: tuple[str, ...], remedy: str) -> Line:
    found = [Line(name, version) for name in names if (version := _version(name))]
    return found[0] if found else Line(names[0], f"not installed ({remedy})")


def _version(name: str) -> str | None:
    """Version of an installed distribution; None if there is none."""
    with LOADING:
        from importlib import metadata
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _tried(name: str, look: Callable[[], str]) -> Line:
    try:
        return Line(name, look())
    except Exception as error:
        return Line(name, one_line(error), ok=False)


def _devices() -> str:
    with LOADING:
        import torch
    if not torch.cuda.is_available():
        return "no CUDA: the processor does the work"
    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"CUDA {torch.version.cuda}: {', '.join(found)}"


def _threads() -> str:
    with LOADING:
        import torch
    asked = os.environ.get("OMP_NUM_THREADS")
    by = f" (OMP_NUM_THREADS={asked})" if asked else ""
    return f"{torch.get_num_threads()} of {os.cpu_count()} processors{by}"


def _weights() -> str:
    """Say where the hub's files are looked for."""
    with LOADING:
        from huggingface_hub import constants
    offline = ", offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    there = "" if os.path.isdir(constants.HF_HUB_CACHE) else " (empty)"
    return f"skad_nano in the package; others in {constants.HF_HUB_CACHE}{there}{offline}"


def self_test() -> str:
    """Fit, save, load and score on generated images.

    Returns
    -------
    str
        What it took.

    Raises
    ------
    RuntimeError
        If a planted defect is not found, or the file scores otherwise than what was saved.
    """
    with LOADING:
        import numpy as np

        import skad
    good = np.random.default_rng(0).integers(90, 120, (_N_IMAGES, _SIDE, _SIDE, 3), np.uint8)
    defective = good[:2].copy()
    defective[:, 16:40, 16:40] = 250
    detector = skad.PatchCoreDetector(
        "skad_nano", image_size=_SIDE, target_false_alarm_rate=0.2, random_state=0
    ).fit(good)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "test.skad")
        skad.save(detector, path)
        loaded = skad.load(path)
    start = time.perf_counter()
    scores = loaded.score_samples(np.concatenate([good, defective]))
    milliseconds = 1000 * (time.perf_counter() - start) / len(scores)
    if not np.array_equal(scores[:_N_IMAGES], detector.score_samples(good)):
        raise RuntimeError("a detector scores otherwise after it was saved and loaded.")
    if (scores[_N_IMAGES:] >= loaded.offset_).any():
        raise RuntimeError("a planted defect was not found.")
    return (
        f"fit, save, load, score: as they should be; {milliseconds:.1f} ms per image of {_SIDE} px"
    )
