"""Patches and the memory bank in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skad._images import ImageSource
from skad._route import route_to_detector
from skad._system.forks import LOADING
from skad._validation.labels import read_labels
from skad._validation.numbers import refuse_masked
from skad._validation.text import readable
from skad.inspection._drawing import DEFECTIVE, GOOD, UNLABELLED, Drawn, check_matplotlib
from skad.inspection._fitted import image_source


class CoresetDisplay(Drawn):
    """Patches of images and, on top, the vectors that a detector remembers, in two dimensions.

    Shows whether the coreset covers the good patches, and where patches of other images lie. Use
    :meth:`from_estimator` or :meth:`from_predictions` to create one.

    Parameters
    ----------
    patches : array-like of shape (n_patches, 2)
    bank : array-like of shape (n_vectors, 2)
    y : array-like of shape (n_patches,) or None, default=None
        +1: patch of a good image, -1: of a defective one; None: not known.
    axis_names : tuple of two str, default=("", "")
    name : str or None, default=None
        Title.

    Raises
    ------
    ValueError
        If patches or bank have another shape, or labels do not match the patches.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    scatters_ : dict of str to matplotlib PathCollection
        By "good", "defective" or "patches", and "coreset".

    Notes
    -----
    Two dimensions show a part of the distances only: principal components say how large a part on the
    axes. A patch that looks close to the bank may be far from it; its score is the judge.

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
                f"patches and bank have {self.patches.shape[1]} dimensions, and a picture has 2: use "
                "CoresetDisplay.from_predictions."
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
        """Embed the patches of images and draw them with the bank.

        Parameters
        ----------
        estimator : fitted PatchCoreDetector or ReConPatchDetector, or Pipeline that ends with one
        X : images
            Good images, such as those learned from, and any others; in any form that the detector
            takes.
        y : array-like of shape (n,), default=None
            +1 good, -1 defective.
        reducer : {"pca", "umap"} or transformer, default="pca"
            What brings vectors to two dimensions. "pca": principal components. "umap": UMAP, from the
            package umap-learn. A transformer of your own (``TSNE()``, ``PCA(whiten=True)``) is cloned;
            it must have ``fit_transform``.
        max_patches : int, default=5000
            Patches of all images of one label at most, as many of each image (one at least), drawn
            at random. A bank with more vectors than that is thinned out in the same way.
        random_state : int, RandomState instance or None, default=None
            For the choice of patches, and for "pca" and "umap".
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
            For another number of labels than images, or other labels.
        ImportError
            For ``reducer="umap"`` without umap-learn.
        """
        check_matplotlib()
        transformer = _as_transformer(reducer, random_state)
        route = route_to_detector(estimator)
        detector, X = route.detector, route.images(X)
        if not hasattr(detector, "bank_"):
            raise TypeError(_no_bank(detector))
        images = image_source(detector, X)
        labels = np.ones(len(images), dtype=int) if y is None else read_labels(y, len(images))
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
        """Draw embeddings that are at hand.

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
            If the vectors differ in length, or labels do not match the patches.
        ImportError
            For ``reducer="umap"`` without umap-learn.
        """
        patches, bank = _of_one_length(patches, bank)
        labels = None if y is None else read_labels(y, len(patches))
        transformer = _as_transformer(reducer, random_state)
        plane = np.asarray(transformer.fit_transform(np.concatenate([patches, bank])))
        n = len(patches)
        display = cls(plane[:n, :2], plane[n:, :2], labels, _axis_names(transformer), name)
        return display.plot(ax)

    def plot(self, ax: Any = None) -> CoresetDisplay:
        """Draw patches, and the bank on top of them.

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
        # Good patches hide those of defective images that are like them: what is left is the defect.
        for height, (key, label, colour, rows) in zip((2, 1), self._groups(), strict=False):
            self.scatters_[key] = self.ax_.scatter(
                *self.patches[rows].T, s=9, color=colour, alpha=0.5, linewidths=0, label=label,
                zorder=height,
            )  # fmt: skip
        # Rings, not discs: what a vector stands for stays visible inside.
        self.scatters_["coreset"] = self.ax_.scatter(
            *self.bank.T, s=30, facecolors="none", edgecolors="black", linewidths=0.9,
            label=f"coreset ({len(self.bank)})", zorder=3,
        )  # fmt: skip
        self.ax_.set(xlabel=self.axis_names[0], ylabel=self.axis_names[1])
        self.ax_.set_title(readable(self.name or ""))
        # One unit is one unit along both axes, as the distances are that decide.
        self.ax_.set_aspect("equal", adjustable="datalim")
        for handle in self.ax_.legend(markerscale=1.6).legend_handles:
            handle.set_alpha(1)
        return self

    def _groups(self) -> list[tuple[str, str, str, np.ndarray]]:
        """Key, label, colour and rows of each kind of patches."""
        if self.y is None:
            everything = np.ones(len(self.patches), dtype=bool)
            return [("patches", f"patches ({len(self.patches)})", UNLABELLED, everything)]
        groups = [("good", GOOD, self.y == 1), ("defective", DEFECTIVE, self.y == -1)]
        return [
            (key, f"patches of {key} images ({rows.sum()})", colour, rows)
            for key, colour, rows in groups
            if rows.any()
        ]


def _embed(
    detector: Any, images: ImageSource, labels: np.ndarray, max_patches: int, random: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Embed a random choice of the patches of each image; also tell whose each patch is."""
    images.check(detector._smallest_side())
    quotas = {value: max(1, max_patches // (labels == value).sum()) for value in np.unique(labels)}
    chosen, owners, i = [], [], 0
    for batch in detector._iter_batches(images):
        masks = detector._patch_masks(batch)
        for rows, mask in zip(detector._embed(batch.pixels).cpu().numpy(), masks, strict=True):
            inside = rows[mask.ravel()]
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
            "patches and bank must be (n_patches, d) and (n_vectors, d) with one d; got shapes "
            f"{patches.shape} and {bank.shape}."
        )
    return patches, bank


def _chosen(n: int, at_most: int, random: Any) -> np.ndarray:
    return np.arange(n) if n <= at_most else np.sort(random.permutation(n)[:at_most])


def _as_transformer(reducer: Any, random_state: Any) -> Any:
    if isinstance(reducer, str) and reducer == "pca":
        return PCA(n_components=2, random_state=random_state)
    if isinstance(reducer, str) and reducer == "umap":
        try:
            with LOADING:
                from umap import UMAP
        except ImportError as error:
            raise ImportError(
                'reducer="umap" needs the package umap-learn, which is not installed: '
                'pip install umap-learn, or take reducer="pca".'
            ) from error
        return UMAP(n_components=2, random_state=random_state)
    if not hasattr(reducer, "fit_transform"):
        raise ValueError(
            f'reducer={reducer!r} must be "pca", "umap" or a transformer with fit_transform.'
        )
    return clone(reducer) if isinstance(reducer, BaseEstimator) else reducer


def _axis_names(transformer: Any) -> tuple[str, str]:
    if isinstance(transformer, PCA):
        check_is_fitted(transformer)
        first, second = transformer.explained_variance_ratio_[:2]
        return (
            f"1st principal component ({first:.0%} of the variance)",
            f"2nd principal component ({second:.0%})",
        )
    name = type(transformer).__name__
    return f"1st dimension of {name}", f"2nd dimension of {name}"


def _no_bank(detector: Any) -> str:
    name = type(detector).__name__
    if hasattr(detector, "named_estimators_"):
        members = ", ".join(map(repr, detector.named_estimators_))
        return f"{name} has a bank in each member: pass one of named_estimators_ ({members})."
    return f"{name} has no memory bank: a coreset is what PatchCoreDetector and ReConPatchDetector have."
