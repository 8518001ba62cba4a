"""The pages of the gallery run as plain scripts, and leave the pictures that they promise."""

import ast

import pytest
from PIL import Image
from scripts import ROOT, run

pytestmark = pytest.mark.scripts

EXAMPLES = ROOT / "examples"
PAGES = {
    "plot_heatmaps.py": ["heatmaps.png", "pixel-curves.png"],
    "plot_scores.py": ["scores.png"],
    "plot_coreset.py": ["coreset.png"],
    "plot_drift.py": ["drift.png"],
    "plot_whitening.py": ["spectrum.png"],
    "plot_region_of_interest.py": ["region_of_interest.png"],
    "plot_tiles.py": ["tiles.png"],
    "make_report.py": ["report.html"],
}


@pytest.mark.parametrize("page", PAGES)
def test_runs_in_any_folder(page, tmp_path):
    result = run(f"examples/{page}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == PAGES[page]
    for name in PAGES[page]:
        if name.endswith(".png"):
            with Image.open(tmp_path / name) as picture:
                assert picture.size[0] > 500
            # Small enough for the documentation.
            assert (tmp_path / name).stat().st_size < 80_000
        else:
            text = (tmp_path / name).read_text(encoding="utf-8")
            assert text.count("data:image/png;base64,") >= 4


@pytest.mark.parametrize("page", PAGES)
def test_reads_as_a_page(page):
    """A title in rst, cells, and headings inside them."""
    source = (EXAMPLES / page).read_text(encoding="utf-8")
    lines = ast.get_docstring(ast.parse(source)).splitlines()
    assert lines[0] == lines[2] == "=" * len(lines[0])
    assert len(lines[1]) <= len(lines[0])
    assert source.count("\n# %%\n") >= 2
