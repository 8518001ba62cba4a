"""Tables from results: means, spreads, published figures."""

import csv
import json

import pytest

from skad.benchmark import published, write_tables
from skad.benchmark._tables import markdown


def result(category, draw=0, preset="patchcore-25", dataset="mvtec_ad", **figures):
    return {
        "preset": preset,
        "title": "PatchCore, 25 %",
        "dataset": dataset,
        "category": category,
        "draw": draw,
        "settings": {},
        "changes": {},
        "environment": {"skad": "0.1.0", "date": f"2026-01-0{draw + 1}", "gpu": None},
        "figures": {"image_auroc": 0.9, **figures},
    }


def line(text, first):
    return next(row for row in text.splitlines() if row.startswith(f"| {first} |"))


def test_published_figures_stand_beside_ours():
    paper = published("patchcore-25", "mvtec_ad")["image_auroc"]
    text = markdown([result("screw", image_auroc=0.95), result("cable", image_auroc=0.99)])
    assert f"95.0 ({paper['screw']:.1f}, {95 - paper['screw']:+.1f})" in line(text, "screw")
    mean = (paper["screw"] + paper["cable"]) / 2
    assert f"97.0 ({mean:.1f}, {97 - mean:+.1f})" in line(text, "**mean**")


def test_printed_means_need_all_categories():
    """Only a mean is printed for low-shot runs: it compares with 15 categories, not with two."""
    two = [result(c, preset="patchcore-10-1shot") for c in ("screw", "cable")]
    assert line(markdown(two), "**mean**") == "| **mean** | 90.0 |"
    all_of_them = [result(str(i), preset="patchcore-10-1shot") for i in range(15)]
    assert "90.0 (83.4, +6.6)" in line(markdown(all_of_them), "**mean**")


def test_spread_over_draws():
    rows = [result("a", draw, image_auroc=v) for draw, v in enumerate((0.8, 0.9))]
    rows += [result("b", draw, image_auroc=v) for draw, v in enumerate((0.6, 0.9))]
    text = markdown(rows)
    assert "85.0 ± 7.1" in line(text, "a")
    assert "80.0 ± 14.1" in line(text, "**mean**")  # of the draws' means 0.7 and 0.9


def test_unfinished_draws_do_not_enter_the_mean():
    rows = [result("a", 0), result("b", 0), result("a", 1, image_auroc=0.1)]
    assert line(markdown(rows), "**mean**") == "| **mean** | 90.0 |"


def test_counts_are_no_percentages():
    text = markdown([result("a", fit_s=12.3, score_ms=4.6)])
    assert line(text, "a") == "| a | 90.0 | 12 | 5 |"


def test_environments_and_changes():
    rows = [result("a", 0), result("a", 1)]
    rows[0]["changes"] = {"backbone": "'skad_nano'"}
    text = markdown(rows)
    assert "Settings changed: backbone='skad_nano'." in text
    assert "- skad 0.1.0; 2026-01-01 to 2026-01-02" in text


def test_files(tmp_path):
    (tmp_path / "patchcore-25").mkdir()
    (tmp_path / "patchcore-25/screw-0.json").write_text(json.dumps(result("screw")))
    files = write_tables(tmp_path)
    assert [file.name for file in files] == ["results.md", "results.csv", "results.json"]
    with files[1].open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["category"] == "screw"
    assert float(row["value"]) == 0.9
    assert float(row["published_percent"]) > 90
    assert json.loads(files[2].read_text())[0]["category"] == "screw"


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        write_tables(tmp_path)
