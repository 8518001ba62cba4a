"""`skad predict` and `skad report`: what is written, and which exit code answers."""

import csv
import json
import os
import signal

import pytest
from command_line import plant, run
from PIL import Image

import skad
from skad import PatchCoreDetector
from skad.cli._bar import Bar

NEW = [f"parts/new/{i:02}.png" for i in range(4)]


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    plant(tmp_path, monkeypatch)
    return tmp_path


def rows(path="v.csv"):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def lines(path="r.jsonl"):
    with open(path) as file:
        return [json.loads(line) for line in file]


def test_files_hold_what_python_gives(capsys, workshop):
    result = run(capsys, "predict", "line3.skad", "parts/new", "--csv", "v.csv", "--jsonl", "r.jsonl",
                 "--heatmaps", "out/pictures")  # fmt: skip
    assert (result.code, result.out) == (3, "")
    assert result.err == "skad: 4 images: 2 good, 2 defective\n"
    detector = skad.load("line3.skad")
    scores, p_values = detector.score_samples(NEW), detector.anomaly_p_value(NEW)
    found = rows()
    assert list(found[0]) == ["path", "score", "p_value", "verdict"]
    assert [row["path"] for row in found] == NEW
    assert [float(row["score"]) for row in found] == scores.tolist()
    assert [float(row["p_value"]) for row in found] == p_values.tolist()
    assert [row["verdict"] for row in found] == ["good", "good", "defective", "defective"]
    regions = detector.predict_regions(NEW)
    for i, line in enumerate(lines()):
        assert (line["image"], line["height"], line["width"]) == (NEW[i], 40, 48)
        assert (line["score"], line["p_value"]) == (scores[i], p_values[i])
        assert line["regions"] == [region.to_dict() for region in regions[i]]
    pictures = sorted((workshop / "out/pictures").iterdir())
    assert [picture.name for picture in pictures] == ["00.png", "01.png", "02.png", "03.png"]
    with Image.open(pictures[2]) as picture:
        assert (picture.size, picture.format) == ((48, 40), "PNG")


def test_the_table_alone_needs_no_maps(capsys, monkeypatch):
    def mapped(*_):
        raise AssertionError("a map was made")

    monkeypatch.setattr(PatchCoreDetector, "_iter_maps", mapped)
    result = run(capsys, "predict", "line3.skad", "parts/new")
    assert result.code == 3
    assert list(csv.DictReader(result.out.splitlines()))[3]["verdict"] == "defective"


def test_all_good_is_0(capsys):
    result = run(capsys, "predict", "line3.skad", *NEW[:2], "--csv", "v.csv")
    assert (result.code, len(rows())) == (0, 2)


@pytest.mark.parametrize("more", [[], ["--jsonl", "r.jsonl"]])
def test_an_image_that_cannot_be_read_is_named_and_the_others_are_written(more, capsys, workshop):
    (workshop / "parts/new/01.png").write_bytes((workshop / NEW[1]).read_bytes()[:400])
    named = ["parts/new", "gone.png"]
    result = run(capsys, "predict", "line3.skad", *named, "--csv", "v.csv", *more)
    assert result.code == 1
    assert [row["path"] for row in rows()] == [NEW[0], *NEW[2:]]
    damaged, gone, count = result.lines
    assert damaged.startswith("skad: not scored: 'parts/new/01.png': cannot be read (")
    assert gone == "skad: not scored: 'gone.png': no such file."
    assert count == "skad: 5 images: 1 good, 2 defective, 2 could not be scored"
    if more:
        assert [line["image"] for line in lines() if "error" in line] == [NEW[1], "gone.png"]


def test_an_error_of_the_detector_is_no_verdict(capsys, monkeypatch):
    score = PatchCoreDetector.score_samples

    def fails_at(self, X):
        if NEW[2] in X:
            raise RuntimeError("injected")
        return score(self, X)

    monkeypatch.setattr(PatchCoreDetector, "score_samples", fails_at)
    result = run(capsys, "predict", "line3.skad", "parts/new", "--csv", "v.csv")
    assert result.code == 1
    assert [row["path"] for row in rows()] == [*NEW[:2], NEW[3]]
    assert f"skad: not scored: {NEW[2]!r}: injected" in result.lines


def test_an_error_outside_of_images_is_code_1(capsys, monkeypatch):
    def broken(self):
        raise ValueError("the weights are gone")

    monkeypatch.setattr(PatchCoreDetector, "_find_network", broken)
    result = run(capsys, "predict", "line3.skad", "parts/new", "--csv", "v.csv")
    assert (result.code, result.err) == (1, "skad: the weights are gone\n")
    assert not os.path.exists("v.csv")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_whole_lines(number, capsys, monkeypatch):
    from skad.cli._outputs import Csv

    write = Csv.write

    def stopped_in_the_third(self, found):
        if found.path == NEW[2]:
            os.kill(os.getpid(), number)
        write(self, found)

    monkeypatch.setattr(Csv, "write", stopped_in_the_third)
    before = signal.getsignal(number)
    result = run(
        capsys, "predict", "line3.skad", "parts/new", "--csv", "v.csv", "--jsonl", "r.jsonl"
    )
    assert result.code == 1
    assert result.err == f"skad: stopped by {number.name}: what is written so far is whole.\n"
    # The image in hand is written to every file.
    assert [row["path"] for row in rows()] == [line["image"] for line in lines()] == NEW[:3]
    assert signal.getsignal(number) is before


def test_a_signal_while_scoring(capsys, monkeypatch):
    def stopped(self, X):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PatchCoreDetector, "score_samples", stopped)
    result = run(capsys, "predict", "line3.skad", "parts/new", "--csv", "v.csv")
    assert (result.code, rows()) == (1, [])


@pytest.mark.parametrize(
    "more",
    [
        ["--csv", "list.csv"],
        ["--jsonl", "line3.skad"],
        ["--csv", NEW[0]],
        ["--heatmaps", "parts/new"],
    ],
)
def test_nothing_that_is_read_is_written_over(more, capsys, workshop):
    (workshop / "list.csv").write_text("path\n" + "\n".join(NEW) + "\n")
    before = {path: path.read_bytes() for path in workshop.rglob("*") if path.is_file()}
    result = run(capsys, "predict", "line3.skad", "list.csv", *more)
    assert result.code == 2
    assert "is read by this command" in result.err
    assert {path: path.read_bytes() for path in workshop.rglob("*") if path.is_file()} == before


def test_names_that_are_no_text(capsys, workshop):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (workshop / name).write_bytes((workshop / NEW[0]).read_bytes())
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    assert (
        run(capsys, "predict", "line3.skad", name).out.splitlines()[1].startswith(r"caf\xe9.png,")
    )
    for written in ("v.csv", "again.csv"):  # a table of verdicts is a list of images
        named = name if written == "v.csv" else "v.csv"
        assert run(capsys, "predict", "line3.skad", named, "--csv", written).code == 0
    assert b"\ncaf\xe9.png," in (workshop / "again.csv").read_bytes()


def test_a_detector_without_calibration_scores_has_no_p_values(capsys):
    one = PatchCoreDetector("skad_nano", image_size=32, contamination=0.2, random_state=0)
    skad.save(one.fit(["parts/good/00.png"]), "one.skad")
    run(capsys, "predict", "one.skad", "parts/new", "--csv", "v.csv")
    assert [row["p_value"] for row in rows()] == [""] * 4


def test_an_image_that_goes_before_it_is_drawn(capsys, monkeypatch):
    from skad.cli._outputs import Csv

    write = Csv.write

    def gone(self, found):
        write(self, found)
        if found.path == NEW[1]:
            os.remove(found.path)

    monkeypatch.setattr(Csv, "write", gone)
    result = run(
        capsys, "predict", "line3.skad", "parts/new", "--csv", "v.csv", "--heatmaps", "out"
    )
    assert result.code == 1
    assert result.lines[0] == f"skad: no picture: {NEW[1]!r}: no such file."
    assert len(rows()) == 4
    assert sorted(os.listdir("out")) == ["00.png", "02.png", "03.png"]


def test_the_bar_is_for_terminals(capsys):
    for visible in (False, True):
        bar = Bar(2, visible)
        bar.advance()
        bar.advance()
        drawn = capsys.readouterr().err
        assert ("2 of 2" in drawn) is visible


# ---- reports --------------------------------------------------------------------------------------


def test_a_report_of_new_images(capsys):
    result = run(capsys, "report", "line3.skad", "parts/new", "-o", "r.html", "--title", "Line 3")
    assert (result.code, result.out) == (0, "written: r.html (4 images)\n")
    with open("r.html", encoding="utf-8") as file:
        page = file.read()
    assert "<title>Line 3</title>" in page
    assert "AUROC" not in page


def test_a_report_of_a_test_set_with_masks(parts, capsys):
    test, truth = parts / "bottle/test", parts / "bottle/ground_truth"
    result = run(capsys, "report", "line3.skad", test, "--masks", truth, "-o", "r.html")
    assert result.code == 0, result.err
    with open("r.html", encoding="utf-8") as file:
        page = file.read()
    assert "AUROC" in page
    assert "AUPRO" in page


def test_labels_and_masks_are_those_of_load_folder(parts, tmp_path):
    from skad.cli._report import find_test_set
    from skad.datasets import load_folder

    loaded = load_folder(parts / "bottle")
    found = find_test_set([str(parts / "bottle/test")], str(parts / "bottle/ground_truth"))
    assert found.images == list(loaded.X_test)
    assert found.labels == loaded.y_test.tolist()
    assert found.masks == list(loaded.masks_test)
    flat = find_test_set([str(parts / "bottle/test/spot")], str(parts / "bottle/ground_truth/spot"))
    assert flat.labels is None
    assert flat.masks == found.masks[3:]


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("test", "train", "3 of 3 defective images have no mask"),
        ("test", "nowhere", "there is no such folder"),
        ("test/spot", "train", "no mask in"),
    ],
)
def test_masks_that_do_not_fit(images, masks, message, parts, capsys):
    images, masks = parts / "bottle" / images, parts / "bottle" / masks
    result = run(capsys, "report", "line3.skad", images, "--masks", masks, "-o", "r.html")
    assert result.code == 1
    assert message in result.err
