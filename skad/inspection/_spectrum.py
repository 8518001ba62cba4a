"""How the variance of good patches is spread over directions, and what whitening makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from skad._common.text import readable
from skad.inspection._drawing import Drawn
from skad.model_selection._unwrap import unwrap_estimator


class SpectrumDisplay(Drawn):
    """Variance of good patches along the principal directions of each layer, before and after whitening.

    What is added to all variances before they are evened out (see ``docs/whitening.md``) is counted in.

    The steeper a curve falls, the fewer directions rule the distances between patches. How many they are
    in effect is the participation ratio, (sum of variances)^2 / (sum of their squares). Use
    :meth:`from_estimator` to create one.

    Parameters
    ----------
    variances : list of ndarray of shape (C_j,)
        Of each layer, in any order; positive.
    strength : float
        p of the whitening.
    layers : list of str
        Name of each layer.
    name : str or None, default=None
        Beginning of the title.

    Attributes
    ----------
    directions : list of pairs of float
        Directions that count in effect, of each layer: before and after whitening.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Examples
    --------
    >>> import numpy as np
    >>> from skad.inspection import SpectrumDisplay
    >>> display = SpectrumDisplay([np.array([9.0, 1.0])], 0.25, ["layer 2"]).plot()
    >>> [(round(before, 2), round(after, 2)) for before, after in display.directions]
    [(1.22, 1.6)]
    """

    def __init__(
        self,
        variances: list[np.ndarray],
        strength: float,
        layers: list[str],
        name: str | None = None,
    ) -> None:
        self.variances = [np.sort(np.asarray(v, dtype=float))[::-1] for v in variances]
        self.strength, self.layers, self.name = strength, layers, name
        self.directions = [
            (_participation(v), _participation(self._whitened(v))) for v in self.variances
        ]

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, name: str | None = None, ax: Any = None
    ) -> SpectrumDisplay:
        """Draw the spectra that a detector has learned.

        Parameters
        ----------
        estimator : fitted PatchCoreDetector or ReConPatchDetector, or Pipeline that ends with one
        name : str, default=None
            Beginning of the title; None: the class of the detector.
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        SpectrumDisplay

        Raises
        ------
        NotFittedError, TypeError
            If the estimator is not fitted, or has no bank.
        ValueError
            If nothing was whitened.
        """
        detector = unwrap_estimator(estimator, "partial_fit").detector
        matrices = getattr(detector, "whitening_", [])
        if not matrices:
            raise ValueError("nothing was whitened in this fit: fit with whitening above 0.")
        strength = float(detector._params_at_fit["whitening"])
        layers = [f"layer {layer}" for layer in detector.feature_spec_.layers]
        variances = [_variances(matrix, strength) for matrix in matrices]
        title = type(detector).__name__ if name is None else name
        return cls(variances, strength, layers, title).plot(ax)

    def plot(self, ax: Any = None) -> SpectrumDisplay:
        """Draw the spectra.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        SpectrumDisplay
        """
        self.ax_ = self._axes(ax, 6.0, 3.6)
        for i, (layer, values) in enumerate(zip(self.layers, self.variances, strict=True)):
            ranks = np.arange(1, len(values) + 1)
            states = (("before", values, "-"), ("after", self._whitened(values), "--"))
            for (state, shown, style), n in zip(states, self.directions[i], strict=True):
                label = f"{layer}, {state}: {n:.0f} of {len(values)} directions"
                self.ax_.plot(ranks, shown / shown.mean(), style, color=f"C{i}", label=label)
        self.ax_.set(
            xscale="log",
            yscale="log",
            xlabel="principal direction of good patches",
            ylabel="variance / mean variance",
        )
        parts = [self.name, f"whitening {self.strength:g}"]
        self.ax_.set_title(readable(", ".join(part for part in parts if part)))
        self.ax_.legend(fontsize="small")
        return self

    def _whitened(self, variances: np.ndarray) -> np.ndarray:
        return variances ** (1 - 2 * self.strength)


def _variances(matrix: np.ndarray, strength: float) -> np.ndarray:
    """Read the variances back from a whitening matrix, whose eigenvalues are powers of them."""
    return np.linalg.eigvalsh(matrix.astype(float)) ** (-1 / strength)


def _participation(variances: np.ndarray) -> float:
    return float(variances.sum() ** 2 / np.square(variances).sum())
