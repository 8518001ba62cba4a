"""Detectors that earlier versions have written: they load, say so, and score as they did."""

import json
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import tiny_resnet  # noqa: F401  (registers a backbone)
from safetensors import safe_open

import skad
from skad._common import pickles

RELEASES = sorted(path for path in (Path(__file__).parent / "data").iterdir() if path.is_dir())
FILES = [file for folder in RELEASES for file in sorted(folder.iterdir()) if file.suffix != ".npz"]


def read(file):
    return joblib.load(file) if file.suffix == ".joblib" else skad.load(file)


def test_this_version_has_written_its_files():
    """If this fails after a change of the version: ``python tools/write_release_files.py``."""
    assert skad.__version__ in [folder.name for folder in RELEASES]
    assert len(FILES) == 8 * len(RELEASES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_scores_as_it_did(file):
    expected = np.load(file.parent / "expected.npz")
    if file.parent.name == skad.__version__:
        detector = read(file)
    else:
        with pytest.warns(UserWarning, match=f"skad {file.parent.name}"):
            detector = read(file)
    images = expected["images"]
    maps, scores = detector.predict_heatmap(images, return_scores=True)
    # Other processors and libraries round otherwise; bitwise equality is tested within a process.
    np.testing.assert_allclose(scores, expected[f"{file.stem}.scores"], rtol=1e-4)
    np.testing.assert_allclose(maps[:, ::4, ::4], expected[f"{file.stem}.heatmaps"], rtol=1e-3)
    np.testing.assert_array_equal(detector.anomaly_p_value(images), expected[f"{file.stem}.p"])


def test_pickles_of_another_version_warn(monkeypatch, tmp_path):
    file = RELEASES[-1] / "patchcore.joblib"
    monkeypatch.setattr(pickles, "__version__", "99.0")
    with pytest.warns(
        UserWarning, match=r"PatchCoreDetector was pickled with skad .* \(now 99\.0\)"
    ):
        joblib.load(file)


def test_only_a_version_of_skad_warns(monkeypatch):
    """Libraries alone change scores by rounding; they are named where skad differs too."""
    installed = {**pickles._versions_of_libraries(), "torch": "1.0"}
    monkeypatch.setattr(pickles, "_versions_of_libraries", lambda: installed)
    file = RELEASES[-1] / "patchcore.joblib"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joblib.load(file)
    monkeypatch.setattr(pickles, "__version__", "99.0")
    with pytest.warns(UserWarning, match=r"torch .* \(now 1\.0\)"):
        joblib.load(file)


def test_files_say_what_wrote_them():
    for file in FILES:
        if file.suffix == ".skad":
            with safe_open(file, framework="np") as opened:
                header = opened.metadata()
            assert header["skad_version"] == file.parent.name
            assert json.loads(header["content"])
