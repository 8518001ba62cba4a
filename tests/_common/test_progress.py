"""Progress: lines of `verbose`, scikit-learn's callbacks, and none of it when not asked for."""

import pytest
from callback_recorder import Recorder
from conftest import make_detector


def test_silent_by_default(good, capsys):
    make_detector().fit(good)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_line_a_stage(good, capsys):
    make_detector(verbose=1).fit(good)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("] ")[1].split(":")[0] for line in lines] == [
        "extraction",
        "coreset",
        "calibration",
    ]
    assert lines[0].startswith("[PatchCoreDetector] extraction: 12 in ")
    assert lines[1].startswith("[PatchCoreDetector] coreset: 48 in ")


def test_progress_inside_a_stage(good, capsys, monkeypatch):
    monkeypatch.setattr("skad._common.progress._SECONDS_BETWEEN_LINES", 0.0)
    make_detector(verbose=2, batch_size=4).fit(good)
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 12" in line]
    assert [line.split(": ")[1].split(",")[0] for line in lines[:3]] == [
        "4 of 12",
        "8 of 12",
        "12 of 12",
    ]


def test_later_passes_do_not_report_as_extraction(good, capsys, monkeypatch):
    monkeypatch.setattr("skad._common.progress._SECONDS_BETWEEN_LINES", 0.0)
    make_detector(verbose=2, max_memory="60kB", coreset_projection_dim=16).fit(good)
    lines = capsys.readouterr().err.splitlines()
    finished = next(i for i, line in enumerate(lines) if "extraction: 12 in" in line)
    assert not any("extraction" in line for line in lines[finished + 1 :])


def test_callbacks_of_scikit_learn_see_every_stage(good):
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    make_detector().set_callbacks(recorder).fit(good)
    stages = [(name, n) for name, n in recorder.begun if "step" not in name]
    assert stages == [("fit", 3), ("extraction", 12), ("coreset", 48), ("calibration", 12)]
    assert recorder.ended.count("extraction step") == 12
    assert recorder.ended.count("calibration step") == 12
    assert recorder.ended[-1] == "fit"
    assert recorder.torn_down == 1


def test_callbacks_are_torn_down_when_fit_fails(good):
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    with pytest.raises(ValueError, match="bank of"):
        make_detector(coreset_size=10_000).set_callbacks(recorder).fit(good)
    assert recorder.torn_down == 1


def test_long_stages_report_at_most_a_hundred_steps(good):
    pytest.importorskip("sklearn.callback")
    from skad._common.progress import FitProgress

    recorder = Recorder()
    det = make_detector().set_callbacks(recorder)
    progress = FitProgress(det, 1)
    with progress.fitting(), progress.stage("work", 7777) as advance:
        for done in range(1, 7778):
            advance(done)
    assert recorder.ended.count("work step") == 100
