"""What is there for speed alone can be deleted: SKAD_PLAIN=1 runs the rest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import skad

PACKAGE = Path(skad.__file__).parent
ACCELERATORS = (
    *("_scoring/fast.py", "_scoring/lazy_scores.py", "_scoring/gpu.py", "_scoring/several.py"),
    *("_bank/bounds.py", "_features/layers.py", "_learning/fast_losses.py"),
    "_bank/correspondences.py",
    *("_torch/fusing.py", "_torch/cuda_graphs.py", "_torch/transfers.py"),
    "_torch/capturable_adamp.py",
)
# Every detector learns and scores, by numbers alone: no test helper is imported.
CODE = """
import sys
import numpy as np
import skad

images = np.load(sys.argv[1])
good, defective = images[:12], images[12:]
common = {"image_size": 32, "device": "cpu", "target_false_alarm_rate": 0.4, "random_state": 0}
bank = {**common, "coreset_size": 0.5}
makers = {
    "patchcore": skad.PatchCoreDetector("skad_nano", b=3, image_score="patch", **bank),
    "reconpatch": skad.ReConPatchDetector("skad_nano", epochs=1, embedding_dim=16, **bank),
    "recontrast": skad.ReContrastDetector("skad_nano", max_iter=2, batch_size=4, **common),
    "padim": skad.PaDiMDetector("skad_nano", n_features=10, **common),
    "spade": skad.SPADEDetector("skad_nano", k=3, **common),
    "fusion": skad.ScoreFusionDetector(
        [("a", skad.PatchCoreDetector("skad_nano", **bank)),
         ("b", skad.PatchCoreDetector("skad_nano", layers=(2,), **bank))],
        target_false_alarm_rate=0.2,
    ),
}
found = {}
for name, detector in makers.items():
    maps, scores = detector.fit(good).predict_heatmap(defective, return_scores=True)
    found[name + ".scores"], found[name + ".maps"] = scores, maps
np.savez(sys.argv[2], **found)
"""


def test_what_is_for_speed_alone_can_be_deleted(good, defective, tmp_path, monkeypatch):
    """Scores are those of the whole package in plain mode, bit by bit."""
    less, images = tmp_path / "less" / "skad", tmp_path / "images.npy"
    for name in ACCELERATORS:
        assert (PACKAGE / name).is_file()
    shutil.copytree(PACKAGE, less, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ACCELERATORS:
        (less / name).unlink()
    np.save(images, np.concatenate([good, defective]))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, images, tmp_path / "less.npz"],
        env={**os.environ, "SKAD_PLAIN": "1", "PYTHONPATH": str(less.parent)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr

    monkeypatch.setenv("SKAD_PLAIN", "1")
    monkeypatch.setattr(sys, "argv", ["", images, tmp_path / "whole.npz"])
    exec(CODE, {})
    found, whole = (np.load(tmp_path / f"{name}.npz") for name in ("less", "whole"))
    assert set(found) == set(whole)
    for name, expected in whole.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
