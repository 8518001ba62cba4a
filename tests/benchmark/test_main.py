"""The command line: what it reads, runs, prints and refuses."""

import runpy
import sys
import warnings

import pytest

from skad.benchmark.__main__ import main

SMALL = {"backbone": "skad_nano", "image_size": 32, "coreset_size": 0.25, "contamination": 0.2}


def test_help_and_list(capsys):
    main(["--list"])
    assert "patchcore-table-s1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "patchcor-25"], "Did you mean patchcore-25"),
        ([], "nothing to run: name a --preset"),
        (["--method", "patchcore", "--set", "image_size"], "write NAME=VALUE"),
        (["--method", "patchcore", "--set", "sise=3"], "no parameter 'sise'"),
    ],
)
def test_errors_are_one_line(parts, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        main([str(parts), "--out", str(tmp_path), *arguments])


def test_needs_data_and_out(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--method", "patchcore"])
    assert "DATA and --out are needed" in capsys.readouterr().err


def test_as_a_module(parts, tmp_path, monkeypatch, capsys):
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    arguments = [parts, "--preset", "patchcore-1", "--dataset", "mvtec_ad", "--out", tmp_path]
    arguments += ["--set", *settings, "--set", "n_neighbors=1,3", "--seeds", 0, 1]
    monkeypatch.setattr(sys, "argv", ["skad.benchmark", *map(str, arguments)])
    with warnings.catch_warnings():
        # __main__ is among what the tests have imported.
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        runpy.run_module("skad.benchmark", run_name="__main__")
    printed = capsys.readouterr().out
    assert "[8/8] patchcore-1, n_neighbors=3, cable, seed 1: image AUROC 1.0000" in printed
    assert "| bottle | 100.0 ± 0.0 (100.0, +0.0) |" in printed
    assert "| PatchCore, 1 %; n_neighbors=3 | 100.0 ± 0.0 / " in printed
