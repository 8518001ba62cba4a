"""`skad fit`, `skad calibrate` and `skad info`."""

import numpy as np
import pytest
from command_line import plant, run
from exported_files import need_libraries

import skad

SMALL = ["--backbone", "skad_nano", "--set", "image_size=32", "coreset_size=0.25"]
SMALL += ["--false-alarm-rate", "0.2"]


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    plant(tmp_path, monkeypatch)
    return tmp_path


def test_fits_saves_and_says_what_to_expect(capsys):
    result = run(capsys, "fit", "parts/good", "-o", "new.skad", *SMALL)
    assert (result.code, result.err) == (0, "")
    learned, threshold, below, saved = result.out.splitlines()
    assert learned.startswith("learned from 14 good images in ")
    assert learned.endswith("PatchCoreDetector, skad_nano, 32 x 32 pixels")
    detector = skad.load("new.skad")
    assert f"threshold: {detector.offset_:.6g} " in threshold
    assert threshold.endswith("expect 20 false alarms in 100 good images")
    n_below = int((detector.calibration_scores_ < detector.offset_).sum())
    assert below.startswith("of the 14 good images")
    assert f" {n_below} " in below
    assert saved.startswith("saved: new.skad (")


def test_two_fits_are_the_same(capsys):
    # The detector of the tests was fitted in Python, on the same images and with the same parameters.
    run(capsys, "fit", "parts/good/*.png", "-o", "new.skad", *SMALL)
    one, other = skad.load("new.skad"), skad.load("line3.skad")
    np.testing.assert_array_equal(one.calibration_scores_, other.calibration_scores_)


def test_another_detector_with_its_parameters(capsys):
    small = ["embedding_dim=16", "projection_dim=8", "epochs=1", "layers=(1,2)"]
    result = run(
        capsys, "fit", "parts/good", "-o", "new.skad", "--detector", "reconpatch", *SMALL,
        "--set", *small,
    )  # fmt: skip
    assert result.code == 0
    detector = skad.load("new.skad")
    assert type(detector) is skad.ReConPatchDetector
    assert (detector.epochs, detector.layers) == (1, (1, 2))


def test_the_backbone_goes_with_it(capsys):
    run(capsys, "fit", "parts/good", "-o", "new.skad", "--include-backbone", *SMALL)
    assert skad.load("new.skad").weights.endswith("new.skad")
    # And stays in whatever is made of the file.
    assert (
        run(capsys, "calibrate", "new.skad", "--false-alarm-rate", "0.3", "-o", "b.skad").code == 0
    )
    assert skad.load("b.skad").weights.endswith("b.skad")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "imagesize=32"], "has no parameter 'imagesize': did you mean image_size"),
        (["--set", "qqq=32"], "has no parameter 'qqq': it has aggregation, b, backbone"),
        (["--set", "image_size"], "write NAME=VALUE"),
        (["--set", "layers=1,2"], 'written in brackets, as in layers="(1, 2)"'),
        (["--set", "n_neighbors=many"], "The 'n_neighbors' parameter"),
        (["--false-alarm-rate", "1.5"], "The 'target_false_alarm_rate' parameter"),
        (["--backbone", "skad_nano", "--set", "backbone=resnet18"], "backbone is given twice"),
        (["--detector", "patchcor"], "invalid choice: 'patchcor'"),
    ],
)
def test_parameters_are_checked_before_any_work(more, message, capsys, workshop):
    result = run(capsys, "fit", "parts/good", "-o", "new.skad", *more)
    assert result.code == 2
    assert len(result.lines) == 1
    assert message in result.err
    assert not (workshop / "new.skad").exists()


def test_nothing_is_written_where_a_fit_fails(capsys, workshop):
    (workshop / "parts/good/05.png").write_bytes(b"no image")
    before = (workshop / "line3.skad").read_bytes()
    result = run(capsys, "fit", "parts/good", "-o", "line3.skad", *SMALL)
    assert result.code == 1
    assert "05.png'): is not an image that Pillow can read" in result.err
    assert (workshop / "line3.skad").read_bytes() == before


def test_calibrates_in_place(capsys):
    before = skad.load("line3.skad")
    result = run(capsys, "calibrate", "line3.skad", "--false-alarm-rate", "0.5")
    assert result.code == 0
    after = skad.load("line3.skad")
    assert after.offset_ > before.offset_
    assert f"threshold before: {before.offset_:.6g}" in result.out
    assert "expect 50 false alarms in 100 good images" in result.out


def test_calibrates_on_fresh_images_into_another_file(capsys, workshop):
    content = (workshop / "line3.skad").read_bytes()
    result = run(capsys, "calibrate", "line3.skad", "parts/new/0[01].png", "-o", "b.skad",
                 "--false-alarm-rate", "0.4")  # fmt: skip
    assert result.code == 0
    assert (workshop / "line3.skad").read_bytes() == content
    assert len(skad.load("b.skad").calibration_scores_) == 2
    assert "of the 2 good images" in result.out


def test_an_image_that_cannot_be_read_moves_no_threshold(capsys, workshop):
    content = (workshop / "line3.skad").read_bytes()
    (workshop / "parts/new/00.png").write_bytes(b"no image")
    result = run(capsys, "calibrate", "line3.skad", "parts/new")
    assert result.code == 1
    assert "00.png" in result.err
    assert (workshop / "line3.skad").read_bytes() == content


def test_info_builds_no_network(capsys, monkeypatch):
    def built(*_, **__):
        raise AssertionError("a network was built")

    monkeypatch.setattr("skad._patchcore.PatchCoreDetector._find_network", built)
    result = run(capsys, "info", "line3.skad")
    assert (result.code, result.err) == (0, "")
    facts = dict(line.split(None, 2)[1:] for line in result.out.splitlines() if "parameter" in line)
    assert facts["backbone"] == "skad_nano"
    for fact in ("written by skad", "images learned from", "threshold", "geometry", "calibration"):
        assert f"\n{fact}" in result.out


def test_info_of_an_ensemble_names_its_members(capsys):
    from conftest import make_detector

    members = [("a", make_detector()), ("b", make_detector(n_neighbors=3))]
    good = [f"parts/good/{i:02}.png" for i in range(14)]
    fusion = skad.ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
    skad.save(fusion, "fused.skad")
    result = run(capsys, "info", "fused.skad")
    assert result.code == 0
    (line,) = (line for line in result.out.splitlines() if "b: parameter n_neighbors" in line)
    assert line.split()[-1] == "3"


def test_export_and_what_becomes_of_the_file(capsys, workshop):
    need_libraries()
    command = ("export", "line3.skad", "line3.onnx", "--images", "parts/new", "--tolerance", "0.01")
    result = run(capsys, *command)
    assert result.code == 0
    assert result.out.startswith("written: line3.onnx (")
    told = run(capsys, "info", "line3.onnx").out
    assert "exported from" in told
    assert "PatchCoreDetector" in told
    assert "verified: n_images" in told
    before = run(capsys, "predict", "line3.skad", "parts/new")
    after = run(
        capsys, "predict", "line3.onnx", "parts/new", "--jsonl", "r.jsonl", "--heatmaps", "out"
    )
    assert before.code == after.code == 3
    assert len((workshop / "r.jsonl").read_text().splitlines()) == 4
    assert len(list((workshop / "out").iterdir())) == 4
    result = run(capsys, "calibrate", "line3.onnx", "parts/good", "--false-alarm-rate", "0.3")
    assert result.code == 0
    assert (workshop / "line3.onnx.calibration.json").exists()
    assert run(capsys, "watch", "line3.onnx", "parts/new", "--jsonl", "w.jsonl", "--once").code in (
        0,
        3,
    )


def test_what_cannot_be_exported(capsys, workshop):
    need_libraries()
    result = run(capsys, "export", "line3.skad", "line3.onnx", "--images", "parts/none")
    assert result.code == 1
    assert not (workshop / "line3.onnx").exists()


def test_doctor(capsys):
    result = run(capsys, "doctor")
    assert result.code == 0
    assert result.out.endswith("all well\n")
    for name in ("python", "skad", "torch", "timm", "scikit-learn", "faiss", "threads", "weights"):
        assert f"\nok      {name}" in f"\n{result.out}"
    assert " ms per image" in result.out


def test_doctor_finds_what_is_broken(capsys, monkeypatch):
    from skad.cli import _doctor

    def finds_nothing(self, X):
        return np.zeros(len(X))

    monkeypatch.setattr(skad.PatchCoreDetector, "score_samples", finds_nothing)
    monkeypatch.setitem(_doctor._NEEDED, "timmm", "timmm")
    result = run(capsys, "doctor")
    assert result.code == 1
    assert "BROKEN  self-test      a planted defect was not found." in result.out
    assert "BROKEN  timmm" in result.out
    assert result.out.endswith("2 broken\n")
