"""`skad watch`: what arrives is scored once, whole, and after every kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import plant, run

import skad
from skad import PatchCoreDetector
from skad.cli import _watch

ROOT = Path(__file__).parents[2]
OLD = 1_000_000_000


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    plant(tmp_path, monkeypatch)
    (tmp_path / "incoming").mkdir()
    return tmp_path


def bring(i, name, *, size=None):
    """Copy a new image, or only its beginning, into the folder."""
    content = Path(f"parts/new/{i:02}.png").read_bytes()
    Path("incoming", name).write_bytes(content[:size])
    return str(Path("incoming", name).absolute())


def watch(capsys, *more):
    arguments = ["watch", "line3.skad", "incoming", "--jsonl", "w.jsonl", "--settle", "0.02"]
    return run(capsys, *arguments, "--once", *more)


def entries():
    return [json.loads(line) for line in Path("w.jsonl").read_text().splitlines()]


def test_what_has_arrived_is_scored_once(capsys):
    paths = [bring(0, "a.png"), bring(2, "b.png")]
    result = watch(capsys)
    assert (result.code, result.err) == (3, "skad: incoming: 1 good, 1 defective\n")
    assert [entry["image"] for entry in entries()] == paths
    assert [entry["score"] for entry in entries()] == skad.load("line3.skad").score_samples(
        paths
    ).tolist()
    assert entries()[1]["verdict"] == "defective"
    assert entries()[1]["regions"]
    assert watch(capsys).code == 0
    paths.append(bring(1, "c.png"))
    assert watch(capsys).code == 0
    assert [entry["image"] for entry in entries()] == paths


def test_a_file_that_still_grows_is_not_read(capsys, monkeypatch):
    bring(0, "a.png", size=300)

    def grow(seconds):
        bring(0, "a.png", size=600)

    monkeypatch.setattr(_watch.time, "sleep", grow)
    assert watch(capsys).code == 0
    assert entries() == []


def test_a_file_that_changes_while_it_is_scored_waits(capsys, monkeypatch):
    path = bring(0, "a.png")
    iter_maps = PatchCoreDetector._iter_maps

    def slow(self, X):
        found = list(iter_maps(self, X))
        os.utime(path, ns=(OLD, OLD))
        yield from found

    with monkeypatch.context() as patched:
        patched.setattr(PatchCoreDetector, "_iter_maps", slow)
        assert watch(capsys).code == 0
    assert entries() == []
    watch(capsys)
    assert [entry["mtime_ns"] for entry in entries()] == [OLD]


def test_what_cannot_be_decoded_is_said_once_until_it_is_whole(capsys):
    path = bring(0, "a.png", size=400)
    result = watch(capsys)
    assert result.code == 1
    assert result.lines[0].startswith(f"skad: not scored: {path!r}: cannot be read (")
    assert ["error" in entry for entry in entries()] == [True]
    assert watch(capsys).code == 0
    assert len(entries()) == 1
    bring(0, "a.png")
    assert watch(capsys).code == 0
    assert [entry.get("verdict") for entry in entries()] == [None, "good"]


def test_another_image_of_the_same_name_is_new(capsys):
    bring(0, "a.png")
    watch(capsys)
    bring(2, "a.png")
    assert watch(capsys).code == 3
    assert [entry["verdict"] for entry in entries()] == ["good", "defective"]


def test_the_oldest_comes_first(capsys):
    for age, name in enumerate(["c.png", "a.png", "b.png"]):
        os.utime(bring(0, name), ns=(OLD + age, OLD + age))
    watch(capsys)
    assert [Path(entry["image"]).name for entry in entries()] == ["c.png", "a.png", "b.png"]


def test_half_a_line_is_cut_off(capsys):
    bring(0, "a.png")
    bring(1, "b.png")
    watch(capsys)
    content = Path("w.jsonl").read_bytes()
    Path("w.jsonl").write_bytes(content[:-30])
    watch(capsys)
    assert [Path(entry["image"]).name for entry in entries()] == ["a.png", "b.png"]


def test_a_file_of_others_is_left_alone(capsys):
    Path("w.jsonl").write_text('{"mine": 1}\n')
    result = watch(capsys)
    assert (result.code, len(result.lines)) == (1, 1)
    assert "'w.jsonl', line 1: is no line that skad watch has written" in result.err
    assert Path("w.jsonl").read_text() == '{"mine": 1}\n'


def test_what_the_system_refuses_is_tried_again(capsys, monkeypatch):
    path = bring(0, "a.png")
    check = PatchCoreDetector._check_images

    def refused(self, images):
        try:
            raise PermissionError(13, "Permission denied", path)
        except PermissionError as error:
            raise ValueError(f"image 0 ({path!r}): cannot be read (Permission denied).") from error

    monkeypatch.setattr(PatchCoreDetector, "_check_images", refused)
    result = watch(capsys)
    assert (result.code, entries()) == (1, [])
    assert "Permission denied" in result.err
    monkeypatch.setattr(PatchCoreDetector, "_check_images", check)
    assert (watch(capsys).code, len(entries())) == (0, 1)


def test_an_error_of_the_detector_ends_it_and_notes_nothing(capsys, monkeypatch):
    bring(0, "a.png")

    def broken(self, X):
        raise RuntimeError("injected")

    monkeypatch.setattr(PatchCoreDetector, "_iter_maps", broken)
    result = watch(capsys)
    assert (result.code, result.err, entries()) == (1, "skad: injected\n", [])


def test_pictures(capsys):
    bring(2, "a.png")
    assert watch(capsys, "--heatmaps", "pictures").code == 3
    assert os.listdir("pictures") == ["a.png.png"]
    result = watch(capsys, "--heatmaps", "incoming")
    assert (result.code, "must be another folder" in result.err) == (2, True)


def test_sigterm_ends_it(capsys, monkeypatch):
    bring(0, "a.png")
    looks = []

    def look_and_end(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_watch.time, "sleep", look_and_end)
    result = run(capsys, "watch", "line3.skad", "incoming", "--jsonl", "w.jsonl", "--settle", "0",
                 "--interval", "0.25")  # fmt: skip
    assert (result.code, looks) == (1, [0.25] * 3)
    assert result.lines[-1] == "skad: stopped by SIGTERM: what is written so far is whole."
    assert len(entries()) == 1


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_process_is_gone_on_from(workshop, capsys):
    """The one test through ``python -m skad``: whatever the moment of the kill, each image once."""
    bring(0, "a.png")
    process = subprocess.Popen(
        [sys.executable, "-m", "skad", "watch", "line3.skad", "incoming", "--jsonl", "w.jsonl",
         "--settle", "0.05", "--interval", "0.01"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: Path("w.jsonl").exists() and len(entries()) == 1)
        for i in range(6):
            shutil.copy("parts/new/02.png", f"incoming/b{i}.png")
        wait_for(lambda: Path("w.jsonl").read_bytes().count(b"\n") >= 2)
    finally:
        process.kill()
        _, err = process.communicate(timeout=60)
    assert err == "skad: watching incoming; Ctrl-C ends it\n"
    watch(capsys)
    names = [Path(entry["image"]).name for entry in entries()]
    assert sorted(names) == ["a.png", *(f"b{i}.png" for i in range(6))]
