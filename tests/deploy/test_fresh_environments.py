"""skad as users install it: from its wheel, in an environment of its own."""

import json

import environments
import numpy as np
import pytest
from exported_files import exported_line, of_several_sizes
from PIL import Image

import skad
from skad.utils.estimator_checks import defective_images, good_images

pytestmark = pytest.mark.deploy

JUDGE = """
import importlib.util, json, sys
import skad
line = skad.load(sys.argv[1])
paths = sys.argv[2:]
print(json.dumps({
    "file": skad.__file__,
    "verdicts": line.predict(paths).tolist(),
    "scores": line.score_samples(paths).tolist(),
    "p_values": line.anomaly_p_value(paths).tolist(),
    "peaks": [float(heatmap.max()) for heatmap in line.predict_heatmap(paths)],
    "regions": [len(regions) for regions in line.predict_regions(paths)],
    "there": [name for name in ("torch", "torchvision", "timm", "sklearn", "joblib", "onnx")
              if importlib.util.find_spec(name)],
}))
"""


def test_an_exported_file_needs_four_libraries(tmp_path):
    environment, line = environments.runtime(), skad.load(exported_line())
    listed = environments.pip(environment.python, "list", "--format", "json")
    names = {one["name"].lower() for one in json.loads(listed)}
    # What pip brings along, and what onnxruntime itself asks for.
    others = {"pip", "setuptools", "flatbuffers", "protobuf", "packaging"}
    assert names - others == {"skad", *environments.RUNTIME}
    paths = []
    for i, image in enumerate(of_several_sizes()):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    done = environments.run(environment.python, "-W", "error", "-c", JUDGE, exported_line(), *paths)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"].startswith(str(environment.root))
    assert found["there"] == []
    assert found["verdicts"] == line.predict(paths).tolist()
    assert {-1, 1} == {*found["verdicts"]}
    assert found["p_values"] == line.anomaly_p_value(paths).tolist()
    assert found["regions"] == [len(regions) for regions in line.predict_regions(paths)]
    np.testing.assert_allclose(found["scores"], line.score_samples(paths), rtol=1e-6)
    peaks = [heatmap.max() for heatmap in line.predict_heatmap(paths)]
    np.testing.assert_allclose(found["peaks"], peaks, rtol=1e-6)


@pytest.fixture
def parts(tmp_path):
    """parts/good, parts/fresh, parts/new with defects, and parts/broken with a damaged file."""
    pictures = {
        "good": good_images(14),
        "fresh": good_images(20, seed=4),
        "new": [*good_images(2, seed=10), *defective_images(2)],
        "broken": good_images(1, seed=11),
    }
    for name, images in pictures.items():
        (tmp_path / "parts" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "parts" / name / f"{i:02}.png")
    (tmp_path / "parts/broken/damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path


def test_the_installed_command_goes_from_fit_to_line(parts):
    environment = environments.installed()

    def skad_(code, *arguments):
        done = environments.run(environment.skad, *arguments, cwd=parts)
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    where = environments.run(
        environment.python, "-c", "import skad; print(skad.__file__)", cwd=parts
    )
    assert where.stdout.startswith(str(environment.root))
    small = ("--set", "image_size=32", "random_state=0")
    skad_(0, "fit", "parts/good", "--backbone", "skad_nano", "--false-alarm-rate", 0.2, *small,
          "-o", "line3.skad")  # fmt: skip
    skad_(
        3, "predict", "line3.skad", "parts/new", "--csv", "verdicts.csv", "--heatmaps", "pictures"
    )
    rows = (parts / "verdicts.csv").read_text().splitlines()
    assert [row.rsplit(",", 1)[1] for row in rows[3:]] == ["defective"] * 2
    assert len(list((parts / "pictures").iterdir())) == 4
    skad_(0, "report", "line3.skad", "parts/new", "-o", "report.html")
    assert "data:image/png" in (parts / "report.html").read_text()
    skad_(0, "calibrate", "line3.skad", "parts/fresh", "--false-alarm-rate", 0.1)
    skad_(0, "export", "line3.skad", "line3.onnx", "--images", "parts/new", "--tolerance", 1e-3)
    assert "PatchCore" in skad_(0, "info", "line3.onnx")
    skad_(3, "predict", "line3.onnx", "parts/new", "--csv", "exported.csv")
    exported = (parts / "exported.csv").read_text().splitlines()
    assert [row.rsplit(",", 1)[1] for row in exported[3:]] == ["defective"] * 2
    watched = (
        "watch",
        "line3.onnx",
        "parts/new",
        "--jsonl",
        "seen.jsonl",
        "--once",
        "--settle",
        0.1,
    )
    skad_(3, *watched)
    lines = [json.loads(line) for line in (parts / "seen.jsonl").read_text().splitlines()]
    assert sum(line["verdict"] == "defective" for line in lines) >= 2
    assert len(lines) == 4
    skad_(0, *watched)  # nothing is scored twice
    skad_(1, "predict", "line3.onnx", "parts/broken")
    skad_(2, "predict", "line3.onnx")
    skad_(2, "predict", "line3.pkl", "parts/new")
