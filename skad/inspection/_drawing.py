"""What all displays share: figures without pyplot, colours, PNG."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from skad._common.forks import LOADING
from skad.inspection._html import load_template

# Blue and vermillion of Okabe and Ito: distinct for every kind of colour vision, and in grey.
GOOD = "#0072B2"
DEFECTIVE = "#D55E00"
UNLABELLED = "#6E6E6E"
# Outlines on images and heat maps, as the papers draw them.
FOUND = "lime"
TRUTH = "tab:orange"


def new_figure(width: float, height: float) -> Any:
    """Make a figure without pyplot: no window, no global state, safe on a server.

    Parameters
    ----------
    width, height : float
        In inches.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ImportError
        Without matplotlib; the message says what to install.
    """
    check_matplotlib()
    with LOADING:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_matplotlib() -> None:
    """Raise an ImportError that says what to install if matplotlib is missing."""
    try:
        with LOADING:
            import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'pictures need matplotlib, which is not installed: pip install "skad[plot]".'
        ) from error


def as_png(figure: Any, dpi: float = 100) -> bytes:
    """Draw a figure.

    Parameters
    ----------
    figure : matplotlib Figure
    dpi : float, default=100
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG file.
    """
    file = BytesIO()
    # Without the version of matplotlib: the same picture is the same file.
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


class Drawn:
    """Base of the displays: owns a figure, or draws on the user's axes."""

    figure_: Any
    _owns_figure = False

    def _axes(self, ax: Any, width: float, height: float) -> Any:
        """Take the user's axes, or those of a new figure."""
        self._owns_figure = ax is None
        axes = new_figure(width, height).subplots() if ax is None else ax
        self.figure_ = axes.figure
        return axes

    def _repr_html_(self) -> str | None:
        # A notebook shows the user's figure by itself; here it would appear a second time.
        if not self._owns_figure:
            return None
        macros: Any = load_template("picture.html").module
        return str(macros.picture(as_png(self.figure_), type(self).__name__))
