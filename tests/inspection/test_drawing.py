"""What all displays share."""

import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.text import Text

from skad.inspection import (
    CoresetDisplay,
    HeatmapDisplay,
    PixelPrecisionRecallDisplay,
    PixelRocDisplay,
    ScoreHistogramDisplay,
)


def test_drawing_without_matplotlib_says_what_to_install(good, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "skad\[plot\]"'):
        HeatmapDisplay.from_predictions(good[:1], np.zeros((1, 40, 48)), threshold=1.0)


def test_drawing_leaves_pyplot_alone(good):
    import matplotlib.pyplot as plt

    HeatmapDisplay.from_predictions(good[:1], np.zeros((1, 40, 48)), threshold=1.0)
    assert plt.get_fignums() == []


def test_shows_in_a_notebook(good):
    display = HeatmapDisplay.from_predictions(good[:1], np.zeros((1, 40, 48)), threshold=1.0)
    assert display._repr_html_().startswith('<img alt="HeatmapDisplay" src="data:image/png;base64,')


@pytest.mark.parametrize("display", ["heat map", "histogram", "coreset", "roc", "pr"])
def test_titles_with_names_of_files_that_are_no_utf8(good, display):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    mask, heatmap = np.zeros((40, 48)), np.zeros((40, 48))
    mask[:5] = 1
    drawn = {
        "heat map": lambda: HeatmapDisplay.from_predictions(
            good[:1], [heatmap], threshold=1.0, titles=[name]
        ),
        "histogram": lambda: ScoreHistogramDisplay.from_predictions(None, [1.0, 2.0], name=name),
        "coreset": lambda: CoresetDisplay.from_predictions(np.eye(4), np.eye(4)[:2], name=name),
        "roc": lambda: PixelRocDisplay.from_predictions([mask], [heatmap], name=name),
        "pr": lambda: PixelPrecisionRecallDisplay.from_predictions([mask], [heatmap], name=name),
    }[display]()
    drawn.figure_.canvas.draw()
    shown = [text.get_text() for text in drawn.figure_.findobj(Text)]
    assert any(r"caf\xe9.png" in text for text in shown)
