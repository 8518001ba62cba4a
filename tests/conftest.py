"""Small detectors and images that all tests share.

Nothing here imports torch before a test does: the process that hands out the tests does without.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import skad

if TYPE_CHECKING:
    from skad import (
        DinomalyDetector,
        PaDiMDetector,
        PatchCoreDetector,
        ReConPatchDetector,
        ReContrastDetector,
        SPADEDetector,
    )


def pytest_configure(config):
    """All tests but those of a GPU run on the CPU, whose results are the same to the last bit."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session, exitstatus):
    session.config.stash[STATUS] = int(exitstatus)


def pytest_unconfigure(config):
    """End at once if threads would be waited for.

    A progress bar of scikit-learn's that a test has made may stay alive, and its threads end with it.
    """
    waited_for = [thread for thread in threading.enumerate() if not thread.daemon]
    if STATUS in config.stash and len(waited_for) > 1 and not hasattr(config, "workerinput"):
        sys.stdout.flush()
        os._exit(config.stash[STATUS])


SHARED = Path(os.environ.get("SKAD_SHARED", Path(__file__).parents[2] / "shared"))


def make_detector(**params) -> PatchCoreDetector:
    """A detector with the bundled backbone on small squares, fitted in a fraction of a second."""
    defaults = {
        "backbone": "skad_nano",
        "image_size": 32,
        "coreset_size": 0.25,
        "target_false_alarm_rate": 0.2,
        "random_state": 0,
    }
    return skad.PatchCoreDetector(**{**defaults, **params})


def make_reconpatch(**params) -> ReConPatchDetector:
    """The same with a small embedding, trained for a moment."""
    defaults = {
        **make_detector().get_params(),
        "embedding_dim": 48,
        "projection_dim": 16,
        "epochs": 3,
        "lr": 1e-3,
        "train_batch_size": 64,
    }
    return skad.ReConPatchDetector(**{**defaults, **params})


def make_recontrast(**params) -> ReContrastDetector:
    """The network on the bundled backbone, trained for a moment."""
    defaults = {
        "backbone": "skad_nano",
        "image_size": 32,
        "max_iter": 4,
        "batch_size": 4,
        "validation_fraction": 0.3,
        "target_false_alarm_rate": 0.2,
        "random_state": 0,
    }
    return skad.ReContrastDetector(**{**defaults, **params})


@cache
def vit_weights() -> str:
    """A file with weights of a tiny transformer, the same on all processors."""
    from skad._features._timm import import_timm

    rng = np.random.default_rng(0)
    state = import_timm().create_model("test_vit").state_dict()
    drawn = {
        name: np.float32(
            rng.normal("norm" in name and name.endswith("weight"), 0.02, tuple(tensor.shape))
        )
        for name, tensor in state.items()
    }
    path = os.path.join(tempfile.mkdtemp(prefix="skad-tests-"), "test_vit.safetensors")
    save_file(drawn, path)
    return path


def make_dinomaly(**params) -> DinomalyDetector:
    """The decoder of a transformer of random weights, trained for a moment."""
    defaults = {
        "backbone": "test_vit",
        "weights": vit_weights(),
        "image_size": 64,
        "max_iter": 4,
        "batch_size": 4,
        "validation_fraction": 0.3,
        "target_false_alarm_rate": 0.2,
        "random_state": 0,
    }
    return skad.DinomalyDetector(**{**defaults, **params})


def make_padim(**params) -> PaDiMDetector:
    """Gaussians of a few channels of the bundled backbone."""
    defaults = {
        "backbone": "skad_nano",
        "image_size": 32,
        "n_features": 20,
        "target_false_alarm_rate": 0.2,
        "random_state": 0,
    }
    return skad.PaDiMDetector(**{**defaults, **params})


def make_spade(**params) -> SPADEDetector:
    """The nearest of a few images by the bundled backbone."""
    defaults = {
        "backbone": "skad_nano",
        "image_size": 32,
        "k": 5,
        "target_false_alarm_rate": 0.2,
        "random_state": 0,
    }
    return skad.SPADEDetector(**{**defaults, **params})


@pytest.fixture
def detector() -> PatchCoreDetector:
    return make_detector()


@pytest.fixture(scope="session")
def good() -> np.ndarray:
    """Twelve images of 40 x 48 pixels with a common texture: (12, 40, 48, 3) uint8."""
    rng = np.random.default_rng(0)
    wave = 110 + 40 * np.sin(np.arange(48) / 3)[None, None, :, None]
    noise = rng.normal(0, 8, size=(12, 40, 48, 3))
    return np.clip(wave + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def defective(good) -> np.ndarray:
    """Four of the good images with a bright square at rows 8 to 20, columns 30 to 42."""
    images = good[:4].copy()
    images[:, 8:20, 30:42] = 250
    return images


@pytest.fixture
def opened():
    """A function that opens a file by Pillow, as users do; the file is closed after the test."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(Image.open(path))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights; tests that need it are skipped without."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real images at {SHARED} (set SKAD_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """Two categories in MVTec layout, small enough to be run in seconds."""
    from skad.utils.estimator_checks import defective_images, good_images

    root = tmp_path_factory.mktemp("parts")
    mask = np.zeros((40, 48), np.uint8)
    mask[8:24, 26:42] = 255
    for seed, name in enumerate(["bottle", "cable"]):
        images = {
            "train/good": good_images(8, seed=seed),
            "test/good": good_images(3, seed=seed + 5),
            "test/spot": defective_images(3, seed=seed + 9),
        }
        for folder, pictures in images.items():
            (root / name / folder).mkdir(parents=True)
            for i, picture in enumerate(pictures):
                Image.fromarray(picture).save(root / name / folder / f"{i}.png")
        (root / name / "ground_truth/spot").mkdir(parents=True)
        for i in range(3):
            Image.fromarray(mask).save(root / name / f"ground_truth/spot/{i}_mask.png")
    return root
