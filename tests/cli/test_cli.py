"""The command line as a whole: help, errors in one line, exit codes, start-up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import plant, run

import skad
from skad.cli import _fit, main
from skad.cli._parser import _COMMANDS, build_parser
from skad.cli._signals import Stopped, stoppable, whole

ROOT = Path(__file__).parents[2]
NAMES = [module.NAME for module in _COMMANDS]


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    plant(tmp_path, monkeypatch)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_help_teaches(name, capsys):
    result = run(capsys, name, "--help")
    assert result.code == 0
    assert f"skad {name}" in result.out or "python -m skad.benchmark" in result.out
    assert "examples:" in result.out


def test_help_of_all_lists_every_command(capsys):
    result = run(capsys, "--help")
    assert result.code == 0
    assert [name for name in NAMES if f"\n    {name}" not in result.out] == []


def test_version(capsys):
    assert run(capsys, "--version").out == f"skad {skad.__version__}\n"


def test_help_imports_nothing_heavy():
    code = """
        import sys
        from skad.cli import main
        for arguments in [[], *([name] for name in sys.argv[1:])]:
            try:
                main([*arguments, "--help"])
            except SystemExit as stop:
                assert stop.code == 0
        heavy = {"torch", "timm", "sklearn", "numpy", "scipy", "PIL", "safetensors", "matplotlib"}
        print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
    """
    lines = [line[8:] for line in code.splitlines()]
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *NAMES],
        capture_output=True, text=True, timeout=60, check=True, cwd=ROOT,
    )  # fmt: skip
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "arguments are required: COMMAND"),
        (("fitt",), "invalid choice: 'fitt'"),
        (("predict", "line3.skad"), "arguments are required: IMAGES"),
        (("predict", "line3.pkl", "parts/new"), "must be a .skad or .onnx file"),
        (("report", "line3.onnx", "parts/new", "-o", "r.html"), "must be a .skad file"),
        (("report", "line3.skad", "parts/new", "-o", "r.pdf"), "must end in .html"),
        (("report", "line3.skad", "parts/new", "-o", "r.html", "--examples", "0"), "at least 1"),
        (("calibrate", "line3.skad"), "name fresh good images, or a --false-alarm-rate"),
        (("calibrate", "line3.skad", "--false-alarm-rate", "2"), "between 0 and 1"),
        (("watch", "line3.skad", "parts/new"), "arguments are required: --jsonl"),
        (("watch", "line3.skad", ".", "--jsonl", "a", "--interval", "0"), "--interval"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments, message, capsys):
    result = run(capsys, *arguments)
    assert (result.code, result.out) == (2, "")
    assert len(result.lines) == 1
    assert result.err.startswith("skad: ")
    assert message in result.err
    assert result.err.endswith("--help)\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "other.skad", "parts/new"), "'other.skad': there is no such file."),
        (
            ("predict", "line3.skad", "parts"),
            "no images in 'parts', but in its subfolders (good, new)",
        ),
        (("predict", "line3.skad", "parts/*.bmp"), "no file matches"),
        (("predict", "line3.skad", "parts/new", "--csv", "no/v.csv"), "'no' does not exist"),
        (("predict", "line3.skad", "parts/new", "--csv", "parts"), "'parts' is a folder"),
        (("fit", "parts/good", "nowhere.png", "-o", "a.skad"), "nowhere.png'): no such file"),
        (("watch", "line3.skad", "nowhere", "--jsonl", "a"), "there is no such folder"),
        (("info", "damaged.skad"), "is damaged, incomplete or no file of skad's"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_code_1(arguments, message, capsys, workshop):
    (workshop / "damaged.skad").write_bytes(b"x" * 100)
    result = run(capsys, *arguments)
    assert (result.code, result.out) == (1, "")
    assert len(result.lines) == 1
    assert message in result.err


def test_a_folder_that_must_not_be_written_to_is_found_before_a_fit(capsys, monkeypatch):
    monkeypatch.setattr("skad.cli._models.os.access", lambda path, mode: mode != os.W_OK)
    result = run(capsys, "fit", "parts/good", "-o", "parts/a.skad")
    assert (result.code, result.err) == (1, "skad: the folder 'parts' must not be written to.\n")


def test_a_bug_is_one_line_with_its_class(capsys, monkeypatch):
    monkeypatch.setattr(_fit, "find_images", lambda _: {}["gone"])
    arguments = "fit", "parts/good", "-o", "a.skad"
    result = run(capsys, *arguments)
    assert result.code == 1
    assert result.err == "skad: KeyError: 'gone' (--traceback shows where)\n"
    result = run(capsys, *arguments, "--traceback")
    assert "Traceback (most recent call last)" in result.err
    assert result.lines[-1].startswith("skad: KeyError")


def test_warnings_are_one_line(capsys, workshop):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run(capsys, "calibrate", "line3.skad", "--false-alarm-rate", "0.001")
    assert result.code == 0
    assert len(result.lines) == 1
    assert result.err.startswith("skad: warning: target_false_alarm_rate=0.001")


def test_the_benchmark_is_handed_over(capsys):
    result = run(capsys, "benchmark", "--list")
    assert result.code == 0
    assert "patchcore-table-s1" in result.out


def test_a_reader_that_has_gone(monkeypatch, capsys):
    def gone(args):
        raise BrokenPipeError

    monkeypatch.setattr("skad.cli._info.run", gone)
    before = os.dup(1)
    try:
        monkeypatch.setattr("sys.stdout.fileno", lambda: 1, raising=False)
        assert main(["info", "line3.skad"]) == 1
    finally:
        os.dup2(before, 1)
        os.close(before)


def test_a_signal_waits_until_what_is_written_is_whole():
    import signal

    done = []
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():  # noqa: PT012
        with whole():
            with whole():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append(1)
            done.append(2)
        done.append(3)
    assert done == [1, 2]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_as_an_installed_script():
    script = Path(sys.executable).parent / ("skad.exe" if os.name == "nt" else "skad")
    if not script.exists():
        pytest.skip(f"skad is not installed with its script: no {script.name} beside python")
    result = subprocess.run(
        [script, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, f"skad {skad.__version__}\n")


def test_every_command_is_in_the_parser():
    assert build_parser().prog == "skad"
    files = {path.stem for path in (ROOT / "skad" / "cli").glob("_*.py")}
    assert {f"_{name}" for name in NAMES} <= files
