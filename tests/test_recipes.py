"""Detectors beside other libraries: the blocks of docs/recipes.md, by `make test-recipes`."""

import importlib.metadata
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from PIL import Image
from test_docs import workshop  # noqa: F401  a fixture

import skad
from skad import DefectClassifier, PatchCoreDetector

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = {
    text.splitlines()[0]: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for text in PAGE.split("\n## ")
}
# What the page says, and what takes seconds instead.
SMALLER = {
    "epochs=20": "epochs=1, image_size=32, coreset_size=0.5",
    "n_trials=30": "n_trials=3",
}

pytestmark = [
    pytest.mark.recipes,
    # Whatever other libraries warn of; a dozen images promise no small rate.
    pytest.mark.filterwarnings("default"),
    pytest.mark.usefixtures("workshop"),
]


def need(*packages: str) -> None:
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed")


def at_hand() -> dict:
    good, new = (sorted(str(p) for p in Path("parts", f).iterdir()) for f in ("good", "new"))
    return {"good_paths": good, "new_paths": new}


def code_of(title: str) -> str:
    code = "\n".join([*SECTIONS["# Recipes"], *SECTIONS[title]])
    for said, smaller in SMALLER.items():
        code = code.replace(said, smaller)
    return code


def cook(title: str, *packages: str) -> dict:
    """Run the block of a section behind the one of the beginning, and return what it has defined."""
    need(*packages)
    known = at_hand()
    exec(compile(code_of(title), title, "exec"), known)
    return known


def run_apart(code: str) -> bytes:
    """Run code as a script, and return what it prints."""
    Path("script.py").write_text(code, encoding="utf-8")
    paths = os.pathsep.join(map(str, [ROOT, *sys.path]))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"], capture_output=True, check=True,
        env={**os.environ, "PYTHONPATH": paths},
    ).stdout  # fmt: skip


def same_scores(one, other, images):
    np.testing.assert_array_equal(one.score_samples(images), other.score_samples(images))


def test_optuna():
    known = cook("optuna", "optuna")
    assert len(known["study"].trials) == 3
    assert np.isfinite(known["study"].best_value)
    assert known["chosen"].get_params()["k"] == known["study"].best_params["k"]
    assert set(known["chosen"].predict(known["new_paths"])) == {-1}


def test_mlflow(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    known = cook("MLflow", "mlflow")
    same_scores(known["loaded"], known["det"], known["paths"])


def test_skops():
    known = cook("skops", "skops")
    same_scores(known["loaded"], known["det"], known["paths"])
    clf = DefectClassifier(known["det"], defect_label=-1).fit(known["paths"], known["y"])
    loaded = skops.io.loads(skops.io.dumps(clf), trusted=skad.SKOPS_TYPES)
    np.testing.assert_array_equal(
        loaded.predict_proba(known["paths"]), clf.predict_proba(known["paths"])
    )


def test_cloudpickle():
    """The process that reads the file knows nothing of the function but what the file tells."""
    need("cloudpickle")
    things = at_hand()
    header = "".join(f"{name} = {value!r}\n" for name, value in things.items())
    tell = "print(*own.score_samples(new_paths))"
    written = run_apart(f"{header}{code_of('cloudpickle')}\n{tell}")
    reader = "import pickle\nwith open('line3.pkl', 'rb') as file:\n    own = pickle.load(file)\n"
    assert run_apart(f"{header}{reader}{tell}") == written
    assert len(written.split()) == len(things["new_paths"])


def test_onnx():
    known = cook("ONNX", "onnx", "onnxruntime", "onnxscript")
    assert known["line"].predict(known["paths"]).tolist() == known["det"].predict(
        known["paths"]
    ).tolist()  # fmt: skip


def test_fastapi():
    known = cook("FastAPI", "fastapi", "python-multipart", "httpx")
    from fastapi.testclient import TestClient

    path, buffer = Path(known["new_paths"][0]), io.BytesIO()
    Image.open(known["good_paths"][0]).save(buffer, "PNG")
    client = TestClient(known["app"])
    answer = client.post(
        "/inspect",
        files=[("images", (path.name, path.read_bytes())), ("images", ("good", buffer.getvalue()))],
    ).json()
    assert [found["name"] for found in answer] == [path.name, "good"]
    assert [found["good"] for found in answer] == [False, True]
    expected = known["det"].anomaly_p_value([path, known["good_paths"][0]])
    assert [found["p_value"] for found in answer] == expected.tolist()


def test_dask():
    known = cook("dask", "distributed")
    fitted_here = known["search"].best_estimator_
    alone = PatchCoreDetector(**fitted_here.get_params()).fit(known["good_paths"])
    same_scores(fitted_here, alone, known["paths"])


def test_ray():
    known = cook("ray", "ray")
    for line, images in known["lines"].items():
        # The defaults of this process are those of the workshop, smaller than ray's workers have them.
        alone = PatchCoreDetector(**known["fitted"][line].get_params()).fit(images)
        same_scores(known["fitted"][line], alone, known["paths"])


def test_ray_behind_joblib():
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from joblib import parallel_config
    from ray.util.joblib import register_ray

    known = cook("skops")
    ray.init(num_cpus=2)
    try:
        register_ray()
        search = known["search"].set_params(scoring=lambda *fitted: os.getpid())
        with parallel_config(backend="ray", n_jobs=2):
            search.fit(known["paths"], known["y"])
    finally:
        ray.shutdown()
    for fold in range(3):
        assert os.getpid() not in search.cv_results_[f"split{fold}_test_score"]
    assert set(search.predict(known["new_paths"])) == {-1}


def test_what_is_made_smaller_is_still_said():
    assert [text for text in SMALLER if text not in PAGE] == []
