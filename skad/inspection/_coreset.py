"""Patch embeddings and the memory bank in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skad._common.labels import read_labels
from skad._common.numbers import refuse_masked
from skad._common.text import readable
from skad._images import ImageSource
from skad.inspection._drawing import DEFECTIVE, GOOD, UNLABELLED, Drawn, check_matplotlib
from skad.inspection._fitted import check_images, open_images
from skad.inspection._plane import as_transformer, axis_names
from skad.model_selection._unwrap import unwrap_estimator


class CoresetDisplay(Drawn):
    """Patch embeddings of images and the coreset in the memory bank, in two dimensions.

    Shows whether the coreset covers the good patches, and where patches of other images lie. Use
    :meth:`from_estimator` or :meth:`from_predictions` to create one.

    Parameters
    ----------
    patches : array-like of shape (n_patches, 2)
    bank : array-like of shape (n_vectors, 2)
    y : array-like of shape (n_patches,) or None, default=None
        +1: patch of a good image, -1: of a defective one; None: no labels.
    axis_names : tuple of two str, default=("", "")
    name : str or None, default=None
        Title.

    Raises
    ------
    ValueError
        If patches or bank have another shape, or if labels do not match the patches.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    scatters_ : dict of str to matplotlib PathCollection
        By "good", "defective" or "patches", and "coreset".

    Notes
    -----
    Two dimensions show only a part of the distances; for principal components the axes state the
    fraction of the variance. A patch that looks close to the bank may be far from it: trust its score.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.inspection import CoresetDisplay
    >>> patches = np.random.default_rng(0).normal(size=(200, 32))
    >>> display = CoresetDisplay.from_predictions(patches, patches[::10])
    >>> display.bank.shape
    (20, 2)
    """

    def __init__(
        self,
        patches: Any,
        bank: Any,
        y: Any = None,
        axis_names: tuple[str, str] = ("", ""),
        name: str | None = None,
    ) -> None:
        self.patches, self.bank = _of_one_length(patches, bank)
        if self.patches.shape[1] != 2:
            raise ValueError(
                f"patches and bank have {self.patches.shape[1]} dimensions and must have 2: use "
                "CoresetDisplay.from_predictions, which projects them."
            )
        self.y = None if y is None else read_labels(y, len(self.patches))
        self.axis_names = axis_names
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        reducer: Any = "pca",
        max_patches: int = 5000,
        random_state: Any = None,
        name: str | None = None,
        ax: Any = None,
    ) -> CoresetDisplay:
        """Embed the patches of images and draw them with the memory bank.

        Parameters
        ----------
        estimator : fitted PatchCoreDetector or ReConPatchDetector, or Pipeline that ends with one
        X : images
            Good images, such as the training images, and any others; in any form that the detector
            takes.
        y : array-like of shape (n,), default=None
            +1 good, -1 defective.
        reducer : {"pca", "umap"} or transformer, default="pca"
            How to project to two dimensions. "pca": principal components. "umap": UMAP, from the
            package umap-learn. A transformer of your own (``TSNE()``, ``PCA(whiten=True)``) is cloned;
            it must have ``fit_transform``.
        max_patches : int, default=5000
            Maximum number of patches per label, drawn at random in equal numbers from each image (at
            least one). A larger bank is subsampled in the same way.
        random_state : int, RandomState instance or None, default=None
            For the random choice of patches, and for "pca" and "umap".
        name : str, default=None
            Title; None: the class of the detector.
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        CoresetDisplay

        Raises
        ------
        NotFittedError
        TypeError
            If the detector has no memory bank.
        ValueError
            If the labels do not match the images or are not +1 or -1.
        ImportError
            If ``reducer="umap"`` and umap-learn is missing.
        """
        check_matplotlib()
        transformer = as_transformer(reducer, random_state)
        unwrapped = unwrap_estimator(estimator)
        detector, X = unwrapped.detector, unwrapped.images(X)
        if not hasattr(detector, "bank_"):
            raise TypeError(_no_bank(detector))
        images = open_images(detector, X)
        labels = np.ones(len(images), dtype=int) if y is None else read_labels(y, len(images))
        check_images(detector, images)
        random = check_random_state(random_state)
        patches, owners = _embed(detector, images, labels, max_patches, random)
        bank = detector.bank_.vectors
        return cls.from_predictions(
            patches,
            bank[_chosen(len(bank), max_patches, random)],
            None if y is None else labels[owners],
            reducer=transformer,
            name=type(detector).__name__ if name is None else name,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        patches: np.ndarray,
        bank: np.ndarray,
        y: Any = None,
        *,
        reducer: Any = "pca",
        random_state: Any = None,
        name: str | None = None,
        ax: Any = None,
    ) -> CoresetDisplay:
        """Draw embeddings that were computed before.

        Parameters
        ----------
        patches : ndarray of shape (n_patches, d)
        bank : ndarray of shape (n_vectors, d)
            Vectors of the coreset, such as ``bank_.vectors``.
        y : array-like of shape (n_patches,), default=None
            +1: patch of a good image, -1: of a defective one.
        reducer, random_state, name, ax
            As for :meth:`from_estimator`.

        Returns
        -------
        CoresetDisplay

        Raises
        ------
        ValueError
            If patches and bank differ in dimension, or if labels do not match the patches.
        ImportError
            If ``reducer="umap"`` and umap-learn is missing.
        """
        patches, bank = _of_one_length(patches, bank)
        labels = None if y is None else read_labels(y, len(patches))
        transformer = as_transformer(reducer, random_state)
        plane = np.asarray(transformer.fit_transform(np.concatenate([patches, bank])))
        n = len(patches)
        display = cls(plane[:n, :2], plane[n:, :2], labels, axis_names(transformer), name)
        return display.plot(ax)

    def plot(self, ax: Any = None) -> CoresetDisplay:
        """Draw the patches, and the bank on top.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        CoresetDisplay
        """
        self.ax_ = self._axes(ax, 6.4, 5.0)
        self.scatters_ = {}
        # Good patches on top: of a defective image, mainly the patches of the defect stay visible.
        for height, (key, label, colour, members) in zip((2, 1), self._groups(), strict=False):
            self.scatters_[key] = self.ax_.scatter(
                *self.patches[members].T, s=9, color=colour, alpha=0.5, linewidths=0, label=label,
                zorder=height,
            )  # fmt: skip
        # Rings, not discs: the patches inside stay visible.
        self.scatters_["coreset"] = self.ax_.scatter(
            *self.bank.T, s=30, facecolors="none", edgecolors="black", linewidths=0.9,
            label=f"coreset ({len(self.bank)})", zorder=3,
        )  # fmt: skip
        self.ax_.set(xlabel=self.axis_names[0], ylabel=self.axis_names[1])
        self.ax_.set_title(readable(self.name or ""))
        # Equal units along both axes: scores are distances.
        self.ax_.set_aspect("equal", adjustable="datalim")
        for handle in self.ax_.legend(markerscale=1.6).legend_handles:
            handle.set_alpha(1)
        return self

    def _groups(self) -> list[tuple[str, str, str, np.ndarray]]:
        """Key, label, colour and members of each kind of patches."""
        if self.y is None:
            everything = np.ones(len(self.patches), dtype=bool)
            return [("patches", f"patches ({len(self.patches)})", UNLABELLED, everything)]
        groups = [("good", GOOD, self.y == 1), ("defective", DEFECTIVE, self.y == -1)]
        return [
            (key, f"patches of {key} images ({members.sum()})", colour, members)
            for key, colour, members in groups
            if members.any()
        ]


def _embed(
    detector: Any, images: ImageSource, labels: np.ndarray, max_patches: int, random: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Embed a random choice of the patches of each image; also return the image of each patch."""
    extractor = detector._embedder()
    quotas = {value: max(1, max_patches // (labels == value).sum()) for value in np.unique(labels)}
    chosen, owners, i = [], [], 0
    for batch in detector._iter_batches(images):
        footprints = detector.geometry_.footprints(batch.frames, extractor.grid)
        embedded = extractor.embed(batch.pixels).cpu().numpy()
        for patches, footprint in zip(embedded, footprints, strict=True):
            inside = patches[footprint.mask.ravel()]
            kept = inside[_chosen(len(inside), quotas[labels[i]], random)]
            chosen.append(kept)
            owners.append(np.full(len(kept), i))
            i += 1
    return np.concatenate(chosen), np.concatenate(owners)


def _of_one_length(patches: Any, bank: Any) -> tuple[np.ndarray, np.ndarray]:
    refuse_masked(patches, "patches")
    refuse_masked(bank, "bank")
    patches, bank = np.asarray(patches), np.asarray(bank)
    if patches.ndim != 2 or bank.ndim != 2 or patches.shape[1] != bank.shape[1]:
        raise ValueError(
            "patches and bank must have shapes (n_patches, d) and (n_vectors, d) with the same d; got "
            f"{patches.shape} and {bank.shape}."
        )
    return patches, bank


def _chosen(n: int, at_most: int, random: Any) -> np.ndarray:
    return np.arange(n) if n <= at_most else np.sort(random.choice(n, at_most, replace=False))


def _no_bank(detector: Any) -> str:
    name = type(detector).__name__
    if hasattr(detector, "named_estimators_"):
        members = ", ".join(map(repr, detector.named_estimators_))
        return (
            f"each member of {name} has a memory bank: pass one of named_estimators_ ({members})."
        )
    return f"{name} has no memory bank: pass a PatchCoreDetector or a ReConPatchDetector."
