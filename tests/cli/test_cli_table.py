"""`skad fit --table`: a detector for each row, and what is there already."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import plant, run, scheduler_here

import skad
from skad import PatchCoreDetector

ROOT = Path(__file__).parents[2]
SMALL = ["--backbone", "skad_nano", "--set", "image_size=32", "coreset_size=0.25"]
SMALL += ["--false-alarm-rate", "0.2"]
COMMAND = ("fit", "--table", "lines.csv", "-o", "out", *SMALL)
TABLE = """\
name,images,output,n_neighbors,layers,detector
a,parts/good,,,,
b,parts/good/*.png,second.skad,3,"(2, 3)",patchcore
"""


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    plant(tmp_path, monkeypatch)
    Path("lines.csv").write_text(TABLE)
    return tmp_path


@pytest.fixture(scope="module")
def scheduler():
    with scheduler_here() as address:
        yield address


def stored():
    """Size and date of each file: what is fitted once more has another date."""
    return {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir()}


def test_a_detector_for_each_row_as_a_fit_alone_makes_it(capsys):
    result = run(capsys, *COMMAND)
    assert (result.code, result.err) == (0, "skad: 2 rows: 2 fitted, 0 there already\n")
    a, b = result.out.splitlines()
    assert a.startswith("a: learned from 14 good images in ")
    assert "PatchCoreDetector, skad_nano, 32 x 32 pixels; threshold: " in b
    assert sorted(stored()) == ["a.skad", "second.skad"]
    detector = skad.load("out/second.skad")
    assert (detector.n_neighbors, detector.layers) == (3, (2, 3))
    np.testing.assert_array_equal(
        skad.load("out/a.skad").calibration_scores_, skad.load("line3.skad").calibration_scores_
    )


def test_on_a_cluster_the_same(scheduler, capsys, monkeypatch):
    (Path("parts") / "good" / "00.png").replace("parts/first.png")
    with open("lines.csv", "a") as file:
        file.write("bad,parts/new/gone.png,,,,\n")
    alone = run(capsys, *COMMAND)
    wanted = {path.name: skad.load(path).calibration_scores_ for path in Path("out").iterdir()}
    for path in Path("out").iterdir():
        path.unlink()
    together = run(capsys, *COMMAND, "--cluster", scheduler)
    assert together.code == alone.code == 1
    assert together.lines[-1] == "skad: 3 rows: 2 fitted, 0 there already, 1 could not be fitted"
    assert "not fitted: 'bad': " in together.err
    assert len(wanted) == 2
    for name, scores in wanted.items():
        np.testing.assert_array_equal(skad.load(Path("out", name)).calibration_scores_, scores)
    # What a worker has fitted is there for a run without a cluster, and the other way round.
    before = stored()
    assert run(capsys, *COMMAND).lines[-1].startswith("skad: 3 rows: 0 fitted, 2 there already")
    assert stored() == before


def test_a_row_that_fails_stops_no_other(capsys):
    Path("lines.csv").write_text("name,images\nbad,parts/new\ngood,parts/good\n")
    Path("parts/new/02.png").write_bytes(b"no image")
    result = run(capsys, *COMMAND)
    assert result.code == 1
    assert result.lines[0].startswith("skad: not fitted: 'bad': ")
    assert "02.png'): is not an image that Pillow can read" in result.lines[0]
    assert result.lines[-1] == "skad: 2 rows: 1 fitted, 0 there already, 1 could not be fitted"
    assert list(stored()) == ["good.skad"]


def test_what_is_there_of_the_same_settings_is_left(capsys):
    run(capsys, *COMMAND)
    before = stored()
    result = run(capsys, *COMMAND)
    assert (result.code, result.out) == (0, "")
    assert result.lines[0] == "skad: a: 'out/a.skad' is there already"
    assert result.lines[-1] == "skad: 2 rows: 0 fitted, 2 there already"
    assert stored() == before


def new_image():
    Path("parts/good/99.png").write_bytes(Path("parts/good/00.png").read_bytes())


def changed_image():
    os.utime("parts/good/00.png", (0, 0))


def other_neighbours():
    Path("lines.csv").write_text(TABLE.replace(",3,", ",5,"))


@pytest.mark.parametrize(
    ("change", "more", "told", "n"),
    [
        (new_image, (), "another images", 2),
        (changed_image, (), "another images", 2),
        (other_neighbours, (), "another n_neighbors", 1),
        (None, ("--set", "patch_size=1"), "another patch_size", 2),
        (None, ("--include-backbone",), "another include_backbone", 2),
        (None, ("--set", "n_jobs=1"), None, 0),
    ],
)
def test_what_has_changed_is_fitted_once_more(change, more, told, n, capsys):
    run(capsys, *COMMAND)
    if change is not None:
        change()
    result = run(capsys, *COMMAND, *more)
    assert result.code == 0
    assert result.lines[-1] == f"skad: 2 rows: {n} fitted, {2 - n} there already"
    assert sum(f"once more, for {told}" in line for line in result.lines) == n


def test_what_was_calibrated_since_is_not_replaced(capsys):
    run(capsys, *COMMAND)
    assert run(capsys, "calibrate", "out/second.skad", "--false-alarm-rate", "0.3").code == 0
    before = stored()
    result = run(capsys, *COMMAND)
    assert (result.code, len(result.lines), result.out) == (1, 1, "")
    assert (
        "row 3: 'out/second.skad' is there, and not as a fit of a table has left it" in result.err
    )
    assert stored() == before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name\na\n", "has no column 'images', only name: its first line must name"),
        ("path\na\n", "has no column 'name', only path"),
        ("", "has no column 'name', only none"),
        ("name,images\n", "'lines.csv' has no rows"),
        ("name,images\na,\n", "row 2: 'images' is empty"),
        ("name,images\na,parts/good\na,parts/new\n", "row 3: the name 'a' is that of row 2 too"),
        ("name,images,output\na,parts/good,x.skad\nb,parts/new,./x.skad\n", "row 3: the output '"),
        ("name,images\na,parts\n", "row 2: no images in 'parts'"),
        ("name,images\na,parts/none/*.png\n", "row 2: no file matches"),
        ("name,images,sise\na,parts/good,\n", "the column 'sise' is no parameter"),
        ("name,images,imagesize\na,parts/good,3\n", "did you mean image_size"),
        (
            "name,images,epochs\na,parts/good,3\n",
            "row 2: a column, or --set: PatchCoreDetector has no",
        ),
        ("name,images,k,k\na,parts/good,3,3\n", "has two columns 'k'"),
        ("name,images,n_neighbors\na,parts/good,many\n", "row 2: The 'n_neighbors' parameter"),
        ("name,images,layers\na,parts/good,(2, 3)\n", "row 2: a cell stands in no named column"),
        ('name,images,layers\na,parts/good,"2,3"\n', "a tuple is written in brackets"),
        ("name,images,detector\na,parts/good,best\n", "row 2: there is no detector 'best'"),
        (
            "name,images,output\na,parts/good,a.pkl\n",
            "row 2: the file 'out/a.pkl' must end in .skad",
        ),
        (
            "name,images,output\na,parts/good,no/a.skad\n",
            "row 2: the folder 'out/no' does not exist",
        ),
    ],
)
def test_a_table_is_checked_before_the_first_fit(table, message, capsys, monkeypatch):
    monkeypatch.setattr(PatchCoreDetector, "fit", lambda *_: pytest.fail("a fit has begun"))
    Path("lines.csv").write_text(table)
    result = run(capsys, *COMMAND)
    assert (result.code, len(result.lines), result.out) == (1, 1, "")
    assert message in result.err
    assert not os.path.exists("out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "-o", "a.skad"), "name images of good parts, or a --table"),
        (("fit", "parts/good", "--table", "lines.csv", "-o", "out"), "not both"),
        (("fit", "--table", "lines.csv", "-o", "line3.skad"), "with --table, name a folder"),
        (("fit", "parts/good", "-o", "a.skad", "--cluster", "tcp://a:1"), "the rows of a --table"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    result = run(capsys, *arguments)
    assert (result.code, len(result.lines)) == (2, 1)
    assert message in result.err


def test_a_table_of_a_spreadsheet(capsys):
    text = "\ufeffName;Images;false_alarm_rate;\r\na;parts/good;0.5;\r\n;;;\r\n"
    Path("lines.csv").write_text(text, encoding="utf-8", newline="")
    small = [word for word in COMMAND if word not in ("--false-alarm-rate", "0.2")]
    assert run(capsys, *small).code == 0
    assert skad.load("out/a.skad").target_false_alarm_rate == 0.5


def test_a_signal_ends_it_and_the_next_goes_on(capsys, monkeypatch):
    fit, seen = PatchCoreDetector.fit, []

    def ended_in_the_second(self, X, y=None):
        seen.append(len(X))
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return fit(self, X, y)

    monkeypatch.setattr(PatchCoreDetector, "fit", ended_in_the_second)
    result = run(capsys, *COMMAND)
    assert result.code == 1
    assert result.lines[-1] == "skad: stopped by SIGTERM: what is written so far is whole."
    before = stored()
    assert list(before) == ["a.skad"]
    result = run(capsys, *COMMAND)
    assert (result.code, result.lines[-1]) == (0, "skad: 2 rows: 1 fitted, 1 there already")
    assert stored().items() >= before.items()


def test_workers_that_die_or_share_no_folder(capsys, scheduler, monkeypatch):
    from skad.cli import _cluster, _fits

    found = [_cluster.Died(), _fits.Outcome("learned", True)]
    monkeypatch.setattr(_cluster.Cluster, "_result", lambda self, future: found.pop(0))
    monkeypatch.setattr(_fits, "fit_one", lambda task: None)
    result = run(capsys, *COMMAND, "--cluster", scheduler)
    assert result.code == 1
    assert result.lines[0].startswith("skad: not fitted: 'a': every worker that had it has died")
    assert "workers must share the folder" in result.lines[1]


@pytest.mark.slow
def test_a_killed_process_is_gone_on_from(capsys):
    """SIGKILL as soon as the first detector is there; the rest is fitted by the next run."""
    with open("lines.csv", "a") as file:
        file.writelines(f"c{i},parts/good,,,,\n" for i in range(6))
    process = subprocess.Popen(
        [sys.executable, "-m", "skad", *COMMAND],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 600
    while not os.path.exists("out/a.skad") and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    before = {name: date for name, date in stored().items() if name.endswith(".skad")}
    assert 1 <= len(before) < 8
    result = run(capsys, *COMMAND)
    assert (result.code, len(result.out.splitlines())) == (0, 8 - len(before))
    assert {name: stored()[name] for name in before} == before
    # What the killed process was writing is gone.
    assert len(stored()) == 8
