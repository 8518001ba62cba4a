"""The command line: what it reads, runs, prints and refuses."""

import runpy
import sys
import warnings

import pytest

from skad.benchmark.__main__ import main

SMALL = {"backbone": "skad_nano", "image_size": 32, "coreset_size": 0.25, "contamination": 0.2}


def test_help_and_list(capsys):
    main(["--list"])
    printed = capsys.readouterr().out
    assert "patchcore-table-s1" in printed
    assert "superadd: one bank of the four blocks joined" in printed
    assert "  Table A7   --preset recontrast-table-a7; beside it, as published: RD4AD," in printed
    assert "  Figure S1  benchmarks/reconpatch_figures.py umap" in printed
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "patchcor-25"], "Did you mean patchcore-25"),
        ([], "nothing to run: name a --preset"),
        (["--method", "patchcore", "--set", "image_size"], "write NAME=VALUE"),
        (["--method", "patchcore", "--set", "sise=3"], "no parameter 'sise'"),
        (["--method", "patchcore", "--row", "k=3", "--set", "k=5"], "--row and --set both name"),
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
    assert (
        "| bottle | n_neighbors=1 | 100.0 ± 0.0 [100.0, 100.0] (100.0, +0.0) |  | 100.0" in printed
    )
    assert "| **mean** | n_neighbors=3 | 100.0 ± 0.0 [100.0, 100.0] (" in printed


def test_rows_come_and_are_compared_in_the_order_given(parts, tmp_path, capsys):
    arguments = [str(parts), "--method", "patchcore", "--out", str(tmp_path), "--set"]
    arguments += [f"{name}={value}" for name, value in SMALL.items() if name != "image_size"]
    arguments += ["--categories", "cable", "--row", "image_size=64", "n_neighbors=3"]
    main([*arguments, "--row", "image_size=32", "n_neighbors=1,2"])
    printed = capsys.readouterr().out
    assert "[1/3] patchcore-defaults, image_size=64, n_neighbors=3, cable, seed 0" in printed
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if "| cable" in line]
    assert [line[1] for line in lines] == [
        "image_size=64, n_neighbors=3",
        "image_size=32, n_neighbors=1",
        "image_size=32, n_neighbors=2",
    ]
    same = "+0.0 [+0.0, +0.0]"
    assert [same in line for line in lines] == [False, True, True]
    main([*arguments, "--row", "image_size=32", "n_neighbors=1,2", "--within", "image_size"])
    printed = capsys.readouterr().out
    assert "3 of 3 fits are done already" in printed
    assert [same in line for line in printed.splitlines() if "| cable" in line] == [
        False,
        False,
        True,
    ]
