"""tools/distil_published.py: the files of published figures are what it makes, to the byte."""

import csv
import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skad" / "benchmark"
FILES = ("published.csv", "published_others.csv")


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        return importlib.import_module("distil_published")


@pytest.fixture
def distil(script, monkeypatch, tmp_path):
    def run(file):
        monkeypatch.setattr("sys.argv", ["", str(file), "--out", str(tmp_path)])
        script.main()
        return {name: (tmp_path / name).read_text(encoding="utf-8") for name in FILES}

    return run


def committed():
    return {name: (PACKAGE / name).read_text(encoding="utf-8") for name in FILES}


def transcripts(script, file):
    """Records from which the rows of a file may have been made."""
    datasets = {ours: theirs for theirs, ours in script.DATASETS.items()}
    wanted = script.criteria()
    for row in csv.DictReader(committed()[file].splitlines()):
        # Only a row that belongs to a preset, by a rule of the script, has a method and settings.
        method, _, config = wanted.get(row.get("preset"), (row.get("method"), (), {}))
        method, _, backbone = (method or "").partition(" with ")
        metric, category = row["metric"], row["category"]
        if row["dataset"] == "mvtec_loco":
            metric, _, category = metric.rpartition("_")
        shots = {"shots": int(row["shots"])} if row.get("shots") else {}
        yield {
            "method": method,
            "dataset": datasets[row["dataset"]],
            "metric": metric,
            "category": "all" if category == row["dataset"] else category,
            "value": json.loads(row["value"]),
            "unit": "count" if metric.startswith("false_") else "percent",
            "source": row["source"],
            "backbone": backbone,
            "config": {**config, **shots},
        }


def test_every_row_has_a_rule(script, distil, tmp_path):
    """A row that was written by hand, or merged, would be lost when the script is run again."""
    records = [record for name in FILES for record in transcripts(script, name)]
    file = tmp_path / "records.json"
    file.write_text(json.dumps({"records": records}), encoding="utf-8")
    assert distil(file) == committed()


@pytest.mark.real
def test_the_papers_make_the_same_files(distil, shared):
    assert distil(shared / "spec" / "reference_results.json") == committed()
