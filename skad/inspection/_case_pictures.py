"""Pictures of a report: one per image, without text, and the colour scale of all heat maps.

The text is in the page, where it is readable on a phone.
"""

from __future__ import annotations

from typing import Any

from skad._common.forks import LOADING
from skad.inspection._drawing import FOUND, new_figure
from skad.inspection._panels import draw_panels
from skad.inspection._shown import Shown

_CMAP = "inferno"
_WIDTH, _MAX_HEIGHT = 7.2, 4.5  # inches, of three panels


def draw_case(picture: Shown, threshold: float, vmin: float, vmax: float) -> Any:
    """Draw one image: as it is, its heat map, and with outlines.

    Parameters
    ----------
    picture : Shown
    threshold : float
    vmin, vmax : float
        Ends of the colour scale.

    Returns
    -------
    matplotlib Figure
    """
    height = min(_WIDTH / 3 * picture.shape[0] / picture.shape[1], _MAX_HEIGHT)
    figure = new_figure(_WIDTH, max(height, 0.4))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.0, wspace=0.0, hspace=0.0)
    draw_panels(figure.subplots(1, 3), picture, threshold, _CMAP, vmin, vmax)
    return figure


def draw_scale(threshold: float, vmin: float, vmax: float) -> Any:
    """Draw the colour scale of all heat maps, with the threshold in green.

    Parameters
    ----------
    threshold, vmin, vmax : float

    Returns
    -------
    matplotlib Figure
    """
    with LOADING:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

    figure = new_figure(4.4, 0.7)
    bar = figure.colorbar(
        ScalarMappable(Normalize(vmin, vmax), _CMAP),
        cax=figure.subplots(),
        orientation="horizontal",
    )
    bar.set_label("anomaly; green: the threshold of the outlines")
    if vmin <= threshold <= vmax:
        bar.ax.axvline(threshold, color=FOUND, linewidth=3)
    return figure
