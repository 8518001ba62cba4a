"""Going on after a kill: what the tables hold beyond the last note is cut off, and nothing else is."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
from command_line import plant, run

from skad.cli import _journal

NEW = [f"parts/new/{i:02}.png" for i in range(4)]
COMMAND = ("predict", "line3.skad", "parts/new", "--csv", "v.csv", "--jsonl", "r.jsonl", "--resume")
NOTES = Path("v.csv.progress")


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    plant(tmp_path, monkeypatch)
    monkeypatch.setattr(_journal, "PORTION", 1)


@pytest.fixture
def complete(capsys):
    """What a run has written: CSV, JSON lines and notes."""
    assert run(capsys, *COMMAND).code == 3
    return {name: Path(name).read_bytes() for name in ("v.csv", "r.jsonl", str(NOTES))}


def test_notes_tell_of_each_portion(complete):
    header, *points = map(json.loads, complete[str(NOTES)].splitlines())
    assert set(header["settings"]) == {
        *("detector", "version of skad", "set of tables", "folder of pictures", "current folder"),
    }
    assert [point["done"] for point in points] == [1, 2, 3, 4]
    for i, point in enumerate(points, 1):
        table = b"".join(complete["v.csv"].splitlines(keepends=True)[: i + 1])
        assert point["files"][0][0] == len(table)
    assert (points[-1]["good"], points[-1]["defective"]) == (2, 2)


@pytest.mark.parametrize("n", range(5))
@pytest.mark.parametrize("more", [b"", b"parts/new/0", b"parts/new/03.png,1.0,0.5,good\n"])
def test_whatever_the_moment_of_the_kill(n, more, complete, capsys):
    """The tables are ahead of the notes by a part of a row, or by rows; the last note is cut."""
    notes = complete[str(NOTES)].splitlines(keepends=True)
    NOTES.write_bytes(b"".join(notes[: n + 1]) + b'{"done": 4, "na')
    for name, header in (("v.csv", 1), ("r.jsonl", 0)):
        kept = complete[name].splitlines(keepends=True)[: n + header if n else 0]
        Path(name).write_bytes(b"".join(kept) + more)
    result = run(capsys, *COMMAND)
    assert (result.code, result.lines[-1]) == (3, "skad: 4 images: 2 good, 2 defective")
    assert {name: Path(name).read_bytes() for name in complete} == complete
    told = f"skad: {n} of 4 images are done already"
    assert result.lines[:-1] == ([told] if n else [])


def test_an_archive_that_has_grown_at_its_end(complete, capsys):
    os.link(NEW[3], "parts/new/zz.png")
    result = run(capsys, *COMMAND)
    assert (result.code, result.lines[0]) == (3, "skad: 4 of 5 images are done already")
    assert Path("v.csv").read_bytes().startswith(complete["v.csv"])
    assert Path("v.csv").read_text().splitlines()[-1].startswith("parts/new/zz.png,")


def other_detector():
    import skad

    skad.load("line3.skad").calibrate(target_false_alarm_rate=0.5)
    detector = skad.load("line3.skad").calibrate(target_false_alarm_rate=0.5)
    skad.save(detector, "line3.skad")


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (other_detector, (), "'v.csv' was begun with another detector."),
        (None, ("--heatmaps", "out"), "was begun with another folder of pictures."),
        (lambda: os.link(NEW[3], "parts/new/0.png"), (), "was begun with other images: the 4 that"),
        (lambda: os.remove(NEW[2]), (), "was begun with other images: the 4 that are done"),
        (lambda: os.remove("r.jsonl"), (), "'r.jsonl' is not what the notes on it tell"),
        (
            lambda: Path("v.csv").write_text("path\n"),
            (),
            "'v.csv' is not what the notes on it tell",
        ),
        (lambda: os.remove(NOTES), (), "'v.csv' is there, but no 'v.csv.progress'"),
        (lambda: NOTES.write_text("mine\n"), (), "'v.csv.progress' holds no notes of skad's"),
        (lambda: NOTES.write_text("{}\n"), (), "'v.csv.progress' holds no notes of skad's"),
    ],
)
def test_another_run_is_not_gone_on_with(change, more, message, complete, capsys):
    if change is not None:
        change()
    before = {str(p): p.read_bytes() for p in Path().iterdir() if p.is_file()}
    result = run(capsys, *COMMAND, *more)
    assert (result.code, len(result.lines)) == (1, 1)
    assert message in result.err
    assert {str(p): p.read_bytes() for p in Path().iterdir() if p.is_file()} == before


def test_without_resume_it_is_begun_anew(complete, capsys):
    Path("v.csv").write_text("mine\n")
    result = run(capsys, *COMMAND[:-1])
    assert (result.code, len(result.lines)) == (3, 1)
    assert Path("v.csv").read_bytes() == complete["v.csv"]
    # The notes of the older run fit: the table is the same again.
    assert run(capsys, *COMMAND).lines[0] == "skad: 4 of 4 images are done already"


@pytest.mark.parametrize("end", ["signal", "disk"])
def test_what_ends_a_run_while_it_takes_notes(end, complete, capsys, monkeypatch):
    """Of a note that failed at the disk, half may be there; no other follows it."""
    Path(NEW[0]).write_bytes(b"no image")
    wanted = run(capsys, *COMMAND[:-1])
    files = {name: Path(name).read_bytes() for name in ("v.csv", "r.jsonl")}
    for name in complete:
        os.remove(name)
    write, seen = _journal.Lines.write, []

    def ended(self, text):
        if text.startswith('{"done"'):
            seen.append(text)
            if len(seen) == 2 and end == "disk":
                write(self, text[:20])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, text)
        if len(seen) == 2 and end == "signal":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(_journal.Lines, "write", ended)
        assert run(capsys, *COMMAND).code == 1
    result = run(capsys, *COMMAND)
    n = 2 if end == "signal" else 1
    assert result.lines == [f"skad: {n} of 4 images are done already", *wanted.lines]
    assert {name: Path(name).read_bytes() for name in files} == files


@pytest.mark.parametrize("more", [(), ("--csv", os.devnull)])
def test_notes_need_a_table(more, capsys):
    result = run(capsys, "predict", "line3.skad", "parts/new", "--resume", *more)
    assert (result.code, len(result.lines)) == (2, 1)
    assert "--resume goes on with a table" in result.err


def test_notes_never_take_the_place_of_an_image(capsys):
    os.link(NEW[0], "a.progress")
    result = run(capsys, "predict", "line3.skad", "a.progress", "--csv", "a", "--resume")
    assert (result.code, "is read by this command" in result.err) == (2, True)
