"""Images and detectors that are exported in tests; what is needed for that may be missing."""

import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import make_detector

import skad

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")

# What a process runs first that is to have only what an exported file needs.
WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "sklearn", "faiss", "torchvision", "joblib",
                                      "safetensors", "adamp", "jinja2", "pandas", "onnx", "onnxscript"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocked())
"""


def need_libraries():
    for name in LIBRARIES:
        pytest.importorskip(name, reason=f"{name} is not installed (skad[onnx])")


def varied_images(n=12, seed=0):
    """Images that differ more than those of other tests: thresholds are large beside rounding."""
    rng = np.random.default_rng(seed)
    wave = 110 + 40 * np.sin(np.arange(48) / 3)[None, None, :, None]
    noise = rng.normal(0, 40, size=(n, 40, 48, 3))
    return np.clip(wave + noise, 0, 255).astype(np.uint8)


def varied_defects():
    images = varied_images(4)
    images[:, 8:20, 30:42] = 250
    return images


def of_several_sizes():
    """Good and defective images; the last are cut or enlarged."""
    bad = varied_defects()
    others = [bad[0][:30], bad[0][:, 6:], np.repeat(bad[1], 3, axis=0), bad[2][:, :, 0]]
    return [*varied_images(6, seed=1), *bad, *others]


def region_mask():
    mask = np.zeros((40, 48), dtype=bool)
    mask[5:35, 10:44] = True
    mask[:20, :20] = False
    return mask


@cache
def exported_line() -> Path:
    """A file line3.onnx, made once in a run of tests; nothing may be written beside it."""
    need_libraries()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")  # processes of one run share it
    folder = Path(
        tempfile.gettempdir(), f"skad-tests-{run}" if run else f"skad-tests-{os.getpid()}"
    )
    path = folder / "line3.onnx"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        skad.export_onnx(make_detector().fit(varied_images()), path, of_several_sizes())
    return path
