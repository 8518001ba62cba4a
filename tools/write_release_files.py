"""Write fitted detectors of this version to tests/data, where all later versions must read them.

Run once at every release, and commit what it writes::

    python tools/write_release_files.py

A folder that exists already is refused: what a released version has written is not written again.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np

import skad
from skad.utils.estimator_checks import defective_images, good_images

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_resnet
from conftest import make_detector, make_reconpatch, make_recontrast

DATA = tiny_resnet.WEIGHTS.parent
# Importing it has registered the backbone; ReContrast's files would be large with any other.
TINY = {"backbone": "tiny_resnet"}


def detectors() -> dict[str, skad.PatchCoreDetector]:
    """Make one detector of every kind, small enough for the repository."""
    small = {"coreset_size": 20, "image_size": 64}
    return {
        "patchcore": make_detector(**small, geometry="pad", b=3, image_score="patch"),
        "reconpatch": make_reconpatch(**small, epochs=1),
        "recontrast": make_recontrast(**TINY, image_size=64, max_iter=4),
        "fusion": skad.ScoreFusionDetector(
            [
                ("fine", make_detector(**small, layers=(1, 2))),
                ("network", make_recontrast(**TINY, image_size=64, max_iter=2, bn="stable")),
            ],
            target_false_alarm_rate=0.2,
        ),
    }


def write(folder: Path) -> None:
    """Fit, and write pickles, files of skad's own format, images and what was made of them."""
    folder.mkdir(parents=True)
    images = np.concatenate([good_images(2, seed=5), defective_images(2)])
    expected = {"images": images}
    for name, detector in detectors().items():
        detector.fit(good_images())
        joblib.dump(detector, folder / f"{name}.joblib", compress=9)
        skad.save(detector, folder / f"{name}.skad")
        heatmaps, scores = detector.predict_heatmap(images, return_scores=True)
        expected |= {
            f"{name}.scores": scores,
            f"{name}.heatmaps": heatmaps[:, ::4, ::4],
            f"{name}.p": detector.anomaly_p_value(images),
        }
    np.savez_compressed(folder / "expected.npz", **expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA / skad.__version__)
    folder = parser.parse_args().out
    if folder.exists():
        raise SystemExit(f"{folder} exists: a released version is not written twice.")
    warnings.filterwarnings("ignore", "target_false_alarm_rate", UserWarning)
    write(folder)
    for file in sorted(folder.iterdir()):
        print(f"{file.stat().st_size:>9,} bytes  {file}")


if __name__ == "__main__":
    main()
