"""The service as a process of its own, without torch: its page in a browser, and several workers."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import environments
import pytest
from browser import Browser, find_browser
from exported_files import exported_line, varied_defects, varied_images
from PIL import Image
from scripts import ROOT

import skad

pytestmark = pytest.mark.deploy

SECONDS = 60


def ask(address, body=None):
    """Status and content of an answer; of one that is refused, too."""
    try:
        with urllib.request.urlopen(address, body, timeout=SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def free_port():
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a service of two workers, in an environment without torch and scikit-learn."""
    port, python = free_port(), environments.service().python
    log = tmp_path_factory.mktemp("service") / "service.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python, ROOT / "examples/serve.py", exported_line(), "--workers", "2", "--port", str(port)],
            stdout=out, stderr=out, env=env, cwd=log.parent, start_new_session=True,
        )  # fmt: skip
    found = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: log.read_text().count("startup complete") == 2, log)
        yield found
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(happened, log):
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of a good image, a defective one, one of another shape, and of a file that is no image."""
    place = tmp_path_factory.mktemp("pictures")
    good, bad = varied_images(1)[0], varied_defects()[0]
    for name, image in {"good.png": good, "defective.png": bad, "flat.jpg": bad[:30]}.items():
        Image.fromarray(image).save(place / name)
    (place / "notes.txt").write_text("no image")
    return [place / name for name in ("good.png", "defective.png", "flat.jpg", "notes.txt")]


@pytest.fixture
def browser(tmp_path):
    program = find_browser()
    if program is None:
        pytest.skip("there is no Chromium")
    opened = Browser(program, tmp_path)
    yield opened
    opened.close()


def test_pictures_are_chosen_and_dropped(address, pictures, browser, tmp_path):
    good, bad, flat, notes = pictures
    browser.open(address)
    browser.wait_for("document.querySelector('#about')?.textContent.includes('line3.onnx')")
    browser.choose("#files", good)
    browser.wait_for("document.querySelector('article.good .heat')?.complete")
    browser.drop(400, 150, bad, flat, notes)
    browser.wait_for("document.querySelectorAll('article').length === 4")
    browser.wait_for("!document.querySelector('article.waiting')")
    told = {
        name: (kind, text)
        for name, kind, text in browser.ask(
            "Array.from(document.querySelectorAll('article'),"
            " card => [card.querySelector('.name').textContent, card.className, card.innerText])"
        )
    }
    line = skad.load(exported_line())
    for path in (good, bad, flat):
        score, kind = line.score_samples([path])[0], line.predict([path])[0]
        assert told[path.name][0] == ("good" if kind > 0 else "defective")
        shown = re.search(r"score\s+(-?[\d.]+)", told[path.name][1])[1]
        assert float(shown) == pytest.approx(score, rel=1e-3)
    assert told["notes.txt"][0] == "failed"
    assert "this is no PNG" in told["notes.txt"][1]
    # A map, as large as its picture, and an outline where there is a defect.
    sizes = browser.ask(
        "Array.from(document.querySelectorAll('.heat'), one => [one.naturalWidth, one.naturalHeight])"
    )
    assert sorted(sizes) == [[48, 30], [48, 40], [48, 40]]
    outlines = browser.ask(
        "Array.from(document.querySelectorAll('article.defective .outlines path'),"
        " one => one.getBoundingClientRect().width)"
    )
    assert min(outlines) > 10
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as seen:
        assert len(seen.convert("RGB").getcolors(1 << 24)) > 100
    asked = browser.ask("performance.getEntriesByType('resource').map(one => one.name)")
    assert asked
    assert [one for one in asked if not one.startswith((address, "data:", f"blob:{address}"))] == []


def test_commands_of_the_documentation_run(address, pictures, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    shutil.copy(pictures[1], tmp_path / "part.png")
    said = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    commands = re.findall(r"^curl .*", said, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        here = command.replace("http://127.0.0.1:8000/", address)
        done = subprocess.run(
            here, shell=True, cwd=tmp_path, capture_output=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
    with Image.open(tmp_path / "heatmap.png") as picture:
        assert picture.size == (48, 40)


def test_workers_count_together(address, pictures):
    def count():
        text = ask(address + "metrics")[1].decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    before, body = count(), pictures[1].read_bytes()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(address + "predict", body), range(40)))
    assert {status for status, _ in answers} == {200}
    (score,) = {json.loads(content)["score"] for _, content in answers}
    assert score == skad.load(exported_line()).score_samples([pictures[1]])[0]
    name, after = 'skad_images_total{verdict="defective"}', count()
    assert after[name] - before.get(name, 0) == 40
    assert after["skad_seconds_count"] - before.get("skad_seconds_count", 0) == 40
    assert sum(name.startswith("skad_drift_log10_evidence{pid=") for name in after) >= 2


def test_a_worker_that_dies_is_replaced(address, pictures):
    def workers():
        told = ask(address + "metrics")[1].decode()
        return {int(pid) for pid in re.findall(r'skad_drift_log10_evidence\{pid="(\d+)"', told)}

    before, body = workers(), pictures[0].read_bytes()
    os.kill(min(before), signal.SIGKILL)
    end = time.monotonic() + SECONDS
    new: set[int] = set()
    while not new:
        assert time.monotonic() < end, "no process has taken its place"
        with suppress(OSError):  # what the process held when it died
            assert ask(address + "predict", body)[0] == 200
            new = workers() - before
    answers = [ask(address + "predict?heatmap=true", body) for _ in range(10)]
    assert {status for status, _ in answers} == {200}
    heatmap = json.loads(answers[0][1])["heatmap"].partition(",")[2]
    assert base64.b64decode(heatmap).startswith(b"\x89PNG")
