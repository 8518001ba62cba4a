"""Tables from results: means, spreads, published figures."""

import csv
import json

import numpy as np
import pytest

from skad.benchmark import Preset, published, write_tables
from skad.benchmark._evaluation import image_figures
from skad.benchmark._intervals import wilson
from skad.benchmark._rows import Row
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


def test_sources_and_departures_are_said_once():
    rows = [result("screw", seed, preset="anomalydino-1shot") for seed in (0, 1)]
    said = [row for row in markdown(rows).splitlines() if row.startswith("- anomalydino-1shot")]
    assert len(said) == 1
    assert "AnomalyDINO Table 2, https://arxiv.org/abs/2405.14529 (v3)" in said[0]
    assert "without the mask of the foreground" in said[0]
    assert "## Published" not in markdown([result("screw", preset="own")])


def test_other_methods_stand_below_ours_as_printed():
    """PatchCore's supplement, Table S1: methods that skad does not have."""
    text = markdown([result(c, image_auroc=0.95) for c in ("screw", "cable")])
    assert "| **mean** | ITAE, as PatchCore prints it | (91.6) |" in text
    assert text.index("| **mean** | PatchCore, 25 % |") < text.index("| **mean** | GeoTrans, as")
    # Below the means alone; what is printed for pixels needs figures of ours beside it.
    assert "| screw | GANomaly" not in text
    assert "Student" not in text.split("## Published")[0]
    assert "- GANomaly, mvtec_ad: as printed in PatchCore supp Table S1" in text
    assert "as PatchCore prints it" not in markdown([result("bolt"), result("nut")])


def test_other_methods_that_learn_from_as_many_images():
    rows = {n: [result(str(i), preset=f"patchcore-10-{n}shot") for i in range(15)] for n in (1, 16)}
    said = "| **mean** | DifferNet, as PatchCore prints it | (87.3) |"
    assert [said in markdown(of_row) for of_row in rows.values()] == [False, True]


def test_both_kinds_of_defects_beside_their_figures():
    names = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
    figures = {"image_auroc_structural": 0.9, "image_auroc_logical": 0.7, "image_auroc_mean": 0.8}
    rows = [result(c, preset="recontrast-loco", dataset="mvtec_loco", **figures) for c in names]
    text = markdown(rows)
    assert "| 90.0 (90.7, -0.7) | 70.0 (73.4, -3.4) | 80.0 (82.1, -2.1) |" in text
    assert "GCAD, as ReContrast prints it |  | (80.6) | (86.0) | (83.3) |" in text


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
    rows = [changed("a", seed, backbone="skad_nano") for seed in (0, 1)]
    text = markdown(rows)
    assert "Settings changed: backbone='skad_nano'." in text
    assert "- skad 0.1.0; 2026-01-01 to 2026-01-02" in text


def changed(category, seed=0, **changes):
    values = {name: repr(value) for name, value in changes.items()}
    return {**result(category, seed), "changes": values}


def cells(text, category, row):
    return line(text, f"{category} | {row}").strip("| ").split(" | ")


def test_rows_side_by_side():
    rows = [
        changed(c, seed, b=b, k=3) for b in (None, 9) for seed in (0, 1) for c in ("screw", "cable")
    ]
    for row in rows:
        row["figures"]["image_auroc"] = 0.8 + 0.1 * row["seed"]
        if row["category"] == "screw":
            row["figures"] |= {"aupro": 0.5, "d_prime": 1.234}
    text = markdown(rows)
    assert "## PatchCore, 25 % (patchcore-25) on mvtec_ad" in text
    assert "Settings changed in all rows: k=3." in text
    # Columns that nothing is known for are left out: these results are without scores of images.
    assert line(text, "category") == "| category | row | image AUROC | AUPRO | d' |"
    paper = published("patchcore-25", "mvtec_ad")
    mean = (paper["image_auroc"]["screw"] + paper["image_auroc"]["cable"]) / 2
    found = cells(text, "**mean**", "b=9")
    assert found[2] == f"85.0 ± 7.1 ({mean:.1f}, {85 - mean:+.1f})"
    # Means of figures that some categories lack are of the others.
    assert found[3].startswith("50.0 ± 0.0")
    assert found[4] == "1.23 ± 0.00"
    assert cells(text, "screw", "b=None")[3].startswith("50.0 ± 0.0")


def scored(category, shift, names="abcdefghij", **changes):
    """A result of a category whose defective images score lower by a shift."""
    y = np.repeat([1, -1], 5)
    scores = np.array([3.0, 1, 4, 2, 0, 2, 5, 1, 3, -1]) + shift * (y == 1)
    images = {"names": list(names), "labels": y.tolist(), "scores": scores.tolist()}
    figures = {**image_figures(y, scores, 1.5), "fit_s": 2.0}
    return {**changed(category, **changes), "figures": figures, "images": images}


def test_differences_to_the_first_row():
    rows = [scored(c, shift, k=shift) for shift in (0, 10, 11) for c in ("screw", "cable")]
    rows[-1]["images"]["names"][0] = "other"
    text = markdown(rows)
    assert line(text, "category") == (
        "| category | row | image AUROC | difference | average precision | difference | "
        "found at 5 % | difference | false alarms | recall | d' | fit, s |"
    )
    auroc = rows[0]["figures"]["image_auroc"]
    first, after, last = (cells(text, "**mean**", f"k={k}") for k in (0, 10, 11))
    assert first[3] == ""
    low, high = wilson(0.4, 5)
    middle, half = 0.4, np.sqrt(0.5)
    expected = middle - half * (middle - low), middle + half * (high - middle)
    assert first[9] == "40.0 [{:.1f}, {:.1f}]".format(*(100 * limit for limit in expected))
    assert after[2].startswith("100.0 [100.0, 100.0]")
    assert after[3].startswith(f"**{100 * (1 - auroc):+.1f}** [+")
    # Two categories narrow the interval.
    wide, narrow = (
        np.ptp([float(limit) for limit in cell[cell.index("[") + 1 : -1].split(", ")])
        for cell in (cells(text, "screw", "k=10")[3], after[3])
    )
    assert narrow < 0.85 * wide
    # Cable was measured on other images.
    assert last[3].endswith("], 1 of 2")
    assert cells(text, "cable", "k=11")[3] == ""


def test_rows_are_compared_within_parameters():
    rows = [scored("a", s, k=k, b=b) for s, (b, k) in enumerate([(0, 3), (0, 5), (1, 3), (1, 5)])]
    text = markdown(rows, within=["b"])
    empty = [cells(text, "a", f"k={k}, b={b}")[3] == "" for b in (0, 1) for k in (3, 5)]
    assert empty == [True, False, True, False]


def test_means_of_fewer_categories_say_so():
    rows = [scored(c, 0, k=k) for k in (3, 5) for c in ("a", "b")]
    assert "| **mean of 1 of 2** | k=5 |" in markdown(rows[:3])


def test_results_of_before_stay_readable():
    rows = [scored("a", 0, k=3), scored("a", 1, k=5)]
    del rows[0]["images"]
    text = markdown(rows)
    assert "difference" not in line(text, "category")
    assert "[" not in line(text, "a | k=3")
    assert "[" in line(text, "a | k=5")


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
    first = Row("own", Preset("own", "patchcore", {}))
    found = json.loads(write_tables(tmp_path, order=[first])[2].read_text())
    assert [row["preset"] for row in found][:2] == ["own", "patchcore-25"]


def test_files(tmp_path):
    (tmp_path / "patchcore-25").mkdir()
    images = {"names": ["a", "b"], "labels": [1, -1], "scores": [1.0, 0.0]}
    one = {**result("screw"), "images": images}
    (tmp_path / "patchcore-25/screw-0.json").write_text(json.dumps(one))
    files = write_tables(tmp_path)
    assert [file.name for file in files] == ["results.md", "results.csv", "results.json"]
    with files[1].open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["category"] == "screw"
    assert float(row["value"]) == 0.9
    assert float(row["published_percent"]) > 90
    (row,) = json.loads(files[2].read_text())
    assert row["category"] == "screw"
    assert "images" not in row  # which would be most of the file


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        write_tables(tmp_path)
