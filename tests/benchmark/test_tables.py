"""Tables from results: means, spreads, published figures."""

import csv
import json

import pytest

from skad.benchmark import published, write_tables
from skad.benchmark._tables import markdown


def result(category, seed=0, preset="patchcore-25", dataset="mvtec_ad", **figures):
    return {
        "preset": preset,
        "title": "PatchCore, 25 %",
        "dataset": dataset,
        "category": category,
        "seed": seed,
        "settings": {},
        "changes": {},
        "environment": {"skad": "0.1.0", "date": f"2026-01-0{seed + 1}", "gpu": None},
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


def test_spread_over_seeds():
    rows = [result("a", seed, image_auroc=v) for seed, v in enumerate((0.8, 0.9))]
    rows += [result("b", seed, image_auroc=v) for seed, v in enumerate((0.6, 0.9))]
    text = markdown(rows)
    assert "85.0 ± 7.1" in line(text, "a")
    assert "80.0 ± 14.1" in line(text, "**mean**")  # of the seeds' means 0.7 and 0.9


def test_unfinished_seeds_do_not_enter_the_mean():
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


def changed(category, seed=0, **changes):
    values = {name: repr(value) for name, value in changes.items()}
    return {**result(category, seed), "changes": values}


def test_rows_side_by_side():
    rows = [
        changed(c, seed, b=b, k=3) for b in (None, 9) for seed in (0, 1) for c in ("screw", "cable")
    ]
    for row in rows:
        row["figures"]["image_auroc"] = 0.8 + 0.1 * row["seed"]
        if row["category"] == "screw":
            row["figures"] |= {"aupro": 0.5, "d_prime": 1.234}
    text = markdown(rows)
    assert "## All rows on mvtec_ad: image AUROC / AUPRO" in text
    assert "Settings changed in all rows: k=3." in text
    assert line(text, "row") == (
        "| row | screw | cable | mean | published | d' | false alarms | recall | fit, s | ms per image |"
    )
    cells = line(text, "PatchCore, 25 %; b=9").strip("| ").split(" | ")
    # Means of figures that some categories lack are of the others.
    both, mean = "85.0 ± 7.1", "85.0 ± 7.1 / - / 50.0 ± 0.0"
    assert cells[1:4] == [mean, both, mean]
    paper = published("patchcore-25", "mvtec_ad")
    expected = (paper["image_auroc"]["screw"] + paper["image_auroc"]["cable"]) / 2
    assert cells[4].startswith(f"{expected:.1f} / ")
    assert cells[5] == "1.23 ± 0.00"


def test_one_row_needs_no_overview():
    assert "All rows" not in markdown([result("a", 0), result("b", 1)])


def test_the_order_of_rows(tmp_path):
    """As in the papers, and numbers by their size, whatever the files are called."""
    rows = [
        changed("a", k=20),
        changed("a", k=3),
        result("a", preset="patchcore-1"),
        result("b", preset="patchcore-25"),
        result("a", preset="own"),
    ]
    for i, row in enumerate(rows):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "a.json").write_text(json.dumps(row))
    found = json.loads(write_tables(tmp_path)[2].read_text())
    names = [(row["preset"], *row["changes"].values()) for row in found]
    assert names == [
        ("patchcore-25",), ("patchcore-25", "3"), ("patchcore-25", "20"), ("patchcore-1",), ("own",),
    ]  # fmt: skip


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
