"""The HTTP service of examples/serve.py: verdicts as of the file, and limits that hold."""

import asyncio
import base64
import importlib
import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import make_detector
from exported_files import exported_line, of_several_sizes, varied_defects, varied_images
from PIL import Image
from scripts import ROOT, run

import skad

pytest.importorskip("fastapi", reason="fastapi is not installed (skad[serve])")
PAGE = (ROOT / "examples" / "serve.html").read_text(encoding="utf-8")


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.fixture
def file():
    return exported_line()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("serve")


@pytest.fixture
def client_for(serve, file):
    """A function that starts the service with settings, and returns a client of it."""
    from fastapi.testclient import TestClient

    def start(path=file, **settings):
        app = serve.create_app(serve.Settings(str(path), **settings))
        return TestClient(app, raise_server_exceptions=False)

    return start


@pytest.fixture
def client(client_for):
    return client_for()


def figures(client):
    """The metrics, by name and labels."""
    lines = client.get("/metrics").text.splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_it_answers_what_the_file_says(client, file):
    line, images = skad.load(file), of_several_sizes()
    answers = [client.post("/predict", content=encoded(image)).json() for image in images]
    assert [a["score"] for a in answers] == line.score_samples(images).tolist()
    assert [a["p_value"] for a in answers] == line.anomaly_p_value(images).tolist()
    verdicts = ["good" if v > 0 else "defective" for v in line.predict(images)]
    assert [a["verdict"] for a in answers] == verdicts
    assert {a["offset"] for a in answers} == {line.offset_}
    assert [(a["height"], a["width"]) for a in answers] == [image.shape[:2] for image in images]
    for answer, regions in zip(answers, line.predict_regions(images), strict=True):
        assert answer["regions"] == [region.to_dict() for region in regions]


def test_an_image_comes_as_body_or_in_a_form(client):
    body = encoded(varied_defects()[0])
    raw = client.post("/predict", content=body).json()
    assert raw["verdict"] == "defective"
    assert client.post("/predict", files={"image": ("part.png", body)}).json() == raw
    assert client.post("/predict", data={"note": "x"}, files={"a": ("", body)}).status_code == 422
    assert client.post("/predict", content=encoded(varied_defects()[0], "TIFF")).json() == raw


def test_heat_maps_are_drawn(client, file):
    image = varied_defects()[0]
    answer = client.post("/predict?heatmap=true", content=encoded(image)).json()
    start, _, code = answer["heatmap"].partition(",")
    assert start == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(code))) as layer:
        opacity = np.asarray(layer)[..., 3]
    heat = skad.load(file).predict_heatmap([image])[0]
    assert opacity.shape == heat.shape
    assert opacity.max() > 100
    order = np.argsort(heat, axis=None)
    assert (np.diff(opacity.ravel()[order].astype(int)) >= 0).all()
    assert answer["regions"][0]["contour"]
    drawn = client.post("/heatmap", content=encoded(image))
    assert drawn.headers["content-type"] == "image/png"
    assert drawn.headers["x-skad-verdict"] == "defective"
    assert float(drawn.headers["x-skad-score"]) == answer["score"]
    with Image.open(io.BytesIO(drawn.content)) as picture:
        assert picture.size == (48, 40)


def test_a_detector_of_torch_is_served_too(client_for, tmp_path):
    detector = make_detector().fit(varied_images())
    skad.save(detector, tmp_path / "line3.skad")
    answer = client_for(tmp_path / "line3.skad").post(
        "/predict", content=encoded(varied_images()[0])
    )
    assert answer.json()["score"] == detector.score_samples(varied_images()[:1])[0]


def refused(answer, status, said):
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert said in detail
    assert "\n" not in detail


def test_what_is_too_large_is_refused(client_for):
    body, noise = encoded(varied_defects()[0]), encoded(varied_images()[0])
    client = client_for(max_bytes=len(noise) - 1, max_pixels=47 * 40)
    refused(client.post("/predict", content=noise), 413, f"more than {len(noise) - 1} bytes")
    refused(client.post("/predict", content=iter([noise, noise])), 413, "bytes")  # length untold
    for more in (0, 20_000):
        form = {"image": ("a.png", noise + bytes(more))}
        refused(client.post("/predict", files=form), 413, "bytes")
    refused(client.post("/predict", content=body), 413, "48 x 40 pixels are more than 1880")
    bomb = encoded(varied_images()[0], "BMP")
    sides = (65_536).to_bytes(4, "little") * 2
    with_sides = client_for().post("/predict", content=bomb[:18] + sides + bomb[26:])
    refused(with_sides, 413, "more than 50000000 pixels")
    assert figures(client)['skad_errors_total{status="413"}'] == "5.0"


def test_what_is_no_image_is_refused(client):
    body = encoded(varied_images()[0])
    refused(client.post("/predict", content=b"nonsense"), 415, "this is no PNG, JPEG")
    refused(client.post("/predict"), 415, "this is no PNG, JPEG")
    refused(client.post("/predict", content=b"%!PS-Adobe-3.0 EPSF-3.0\n"), 415, "this is no PNG")
    refused(client.post("/predict", content=body[:500]), 422, "the image cannot be read")
    refused(client.post("/predict", content=encoded(varied_images()[0, :4])), 422, "at least 16")
    refused(client.post("/predict", data={"image": "text"}), 415, "this is no PNG")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/predict", content=body, headers=broken), 400, "the form cannot be read")
    unbounded = {"content-type": "multipart/form-data"}
    refused(
        client.post("/predict", content=body, headers=unbounded), 400, "the form cannot be read"
    )
    empty = b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\ntext\r\n--x--\r\n'
    refused(client.post("/predict", content=empty, headers=broken), 422, "the form has no file")
    refused(client.post("/heatmap", content=b"nonsense"), 415, "this is no PNG")
    assert client.get("/health").json()["status"] == "ok"


def test_too_many_at_once_are_refused(client_for):
    answer = client_for(max_waiting=0).post("/predict", content=encoded(varied_images()[0]))
    refused(answer, 503, "too many images at once")
    assert answer.headers["retry-after"] == "1"


def test_an_error_ends_its_own_request_alone(client, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("out of\nsomething")

    body = encoded(varied_images()[0])
    with monkeypatch.context() as patched:
        patched.setattr("skad._scoring.judging.Judge.inspect", broken)
        refused(client.post("/predict", content=body), 500, "the log of the service says why")
    assert "out of\nsomething" in caplog.text
    assert client.post("/predict", content=body).status_code == 200
    assert figures(client)['skad_errors_total{status="500"}'] == "1.0"


def test_an_image_must_arrive_in_time(client, serve, monkeypatch):
    monkeypatch.setattr(serve, "TIMEOUT", 0.05)

    async def never(_):
        yield b"\x89PNG"
        await asyncio.sleep(60)

    monkeypatch.setattr(serve.Request, "stream", never)
    refused(client.post("/predict", content=b"\x89PNG"), 408, "did not arrive in time")


def test_images_at_once_are_judged_as_one_by_one(client_for, file):
    images = [*varied_images(12, seed=5), *varied_defects()]
    client = client_for(threads=4)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: client.post("/predict", content=encoded(one)), images))
    scores = [answer.json()["score"] for answer in answers]
    assert scores == skad.load(file).score_samples(images).tolist()
    found, n_defective = figures(client), sum(a.json()["verdict"] == "defective" for a in answers)
    assert found["skad_seconds_count"] == "16.0"
    assert found['skad_images_total{verdict="defective"}'] == f"{n_defective:.1f}"
    assert n_defective >= 4


def test_drift_is_told(client):
    """The same good image again and again is not what good images look like."""
    assert figures(client)["skad_drift_alarm"] == "0.0"
    body = encoded(varied_images()[0])
    for _ in range(60):
        assert client.post("/predict", content=body).json()["verdict"] == "good"
    assert float(figures(client)["skad_drift_log10_evidence"]) > 0
    assert figures(client)['skad_images_total{verdict="good"}'] == "60.0"


def test_the_page_asks_nobody_else(client):
    answer = client.get("/")
    assert answer.text == PAGE
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert PAGE.replace("http://www.w3.org/2000/svg", "").count("://") == 0


def test_settings_are_handed_to_processes(serve, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    given = serve.Settings("line3.onnx", workers=3, threads=2, max_bytes=5)
    given.to_environment()
    assert os.environ["SKAD_SERVE_MAX_BYTES"] == "5"
    assert serve.Settings.of_environment() == given
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert given.share() == (2, 2)
    assert serve.Settings(workers=3).share() == (4, 1)
    assert serve.Settings(workers=40).share() == (1, 1)


def test_a_missing_file_is_named(tmp_path):
    result = run("examples/serve.py", tmp_path / "missing.onnx")
    assert result.returncode == 1
    assert "missing.onnx': there is no such file." in result.stderr


def test_an_exported_file_is_served_without_torch(file, tmp_path):
    (tmp_path / "part.png").write_bytes(encoded(varied_defects()[0]))
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'examples')!r})\n"
        "import serve\n"
        "from fastapi.testclient import TestClient\n"
        f"client = TestClient(serve.create_app(serve.Settings({str(file)!r})))\n"
        f"body = open({str(tmp_path / 'part.png')!r}, 'rb').read()\n"
        "print(client.post('/predict?heatmap=true', content=body).json()['verdict'])\n"
        "assert client.post('/heatmap', content=body).status_code == 200\n"
        "assert 'skad_images_total' in client.get('/metrics').text\n"
        "print(*{'torch', 'timm', 'sklearn', 'pandas', 'onnx'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["defective"]
