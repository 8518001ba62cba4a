"""Every table and figure of the papers has something that reproduces it."""

import re

import pytest
from scripts import ROOT

from skad.benchmark import PRESETS, TABLES, published, published_sources
from skad.benchmark._documents import DOCUMENTS, list_documents
from skad.benchmark._published import methods_in, others
from skad.datasets import DATASETS

FILES = {
    "PatchCore, supplement": "patchcore_supplement.txt",
    "ReConPatch": "reconpatch.txt",
    "ReConPatch, supplement": "reconpatch_supplement.txt",
    "ReContrast": "recontrast.txt",
}


@pytest.mark.real
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.title)
def test_nothing_is_left_out(document, shared):
    """As the text of the paper names its tables and figures."""
    file = shared / "papers" / FILES[document.title]
    if not file.exists():
        pytest.skip(f"no text of the paper at {file}")
    text = file.read_text(encoding="utf-8")
    # Supplements name some of the paper's own, too.
    kind = "S" if "supplement" in document.title else "A?"
    named = {
        k: set(re.findall(rf"\b{k}\.? ?({kind}\d+)\b", text)) for k in ("Table", "Fig(?:ure)?")
    }
    assert set(document.tables) == named["Table"]
    assert set(document.figures) == named["Fig(?:ure)?"]


def test_what_is_named_exists():
    text = "\n".join(list_documents())
    assert set(re.findall(r"--preset (\S+?)[;\s]", text + " ")) <= set(TABLES)
    scripts = set(re.findall(r"benchmarks/\w+\.py", text))
    assert len(scripts) >= 5
    for script in scripts:
        assert (ROOT / script).is_file(), script
    assert set(re.findall(r"--dataset (\w+)", text)) <= set(DATASETS)


def test_every_table_of_presets_is_listed():
    papers = ("patchcore-", "reconpatch-", "recontrast-")
    text = "\n".join(list_documents())
    for name in TABLES:
        assert not name.startswith(papers) or f"--preset {name}" in text


def test_every_line_says_something():
    lines = [line for line in list_documents() if line.startswith("  ")]
    assert len(lines) == sum(len(d.tables) + len(d.figures) for d in DOCUMENTS)
    assert all(len(line.split(maxsplit=2)) == 3 for line in lines)


def test_methods_that_skad_does_not_have():
    """As printed: GANomaly in PatchCore's Table S1, GCAD in ReContrast's Table A7."""
    table = ["PatchCore supp Table S1"]
    found = {other.name: other for other in others(table, "mvtec_ad", [None])}
    assert found["GANomaly"].figures["image_auroc"]["avg"] == 76.2
    assert found["GANomaly"].figures["image_auroc"]["zipper"] == 74.5
    assert not {"PatchCore", "SPADE", "PaDiM"} & set(found)
    assert others(table, "visa", [None]) == []
    assert "GCAD" in methods_in("ReContrast Table A7")
    sources = published_sources("reconpatch", "mvtec_ad")
    names = [other.name for other in others(sources, "mvtec_ad", [None])]
    assert {"CFLOW-AD", "PNI (w/ refine)"} <= set(names)
    assert "ReConPatch" not in names


def test_sources_are_tables_of_documents():
    """Whatever stands beside presets comes from a table that is listed."""
    listed = {f"{d.source} Table {number}" for d in DOCUMENTS for number in d.tables}
    for name in PRESETS:
        for source in published_sources(name, "mvtec_ad"):
            assert source in listed or not methods_in(source)


def test_the_table_to_expect_is_the_published_one():
    """docs/benchmark.md, for whoever has the weights and the data."""
    text = (ROOT / "docs/benchmark.md").read_text(encoding="utf-8")
    part = text.split("## What was not run here")[1]
    rows = re.findall(r"^\| `(\S+)` \| (.*) \|$", part, re.MULTILINE)
    (command,) = re.findall(r"--preset (.*)\n```", part)
    assert [name for name, _ in rows if name not in ("spade", "padim")] == [
        name
        for table in command.split()
        for name in TABLES[table]
        if name not in ("spade", "padim")
    ]
    for name, cells in rows:
        figures = published(name, "mvtec_ad")
        expected = [figures.get(m, {}).get("avg") for m in ("image_auroc", "pixel_auroc", "aupro")]
        found = [float(cell) if cell.strip() else None for cell in cells.split("|")]
        assert found == expected, name
