"""Projections of vectors to two dimensions."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from skad._common.forks import LOADING


def as_transformer(reducer: Any, random_state: Any) -> Any:
    """Return an unfitted transformer.

    Parameters
    ----------
    reducer : {"pca", "umap"} or transformer
    random_state : int, RandomState instance or None
        For "pca" and "umap".

    Returns
    -------
    transformer
        With ``fit_transform``.
    """
    if isinstance(reducer, str) and reducer == "pca":
        return PCA(n_components=2, random_state=random_state)
    if isinstance(reducer, str) and reducer == "umap":
        try:
            with LOADING:
                from umap import UMAP
        except ImportError as error:
            raise ImportError(
                'reducer="umap" needs the package umap-learn, which is not installed: '
                'pip install umap-learn, or use reducer="pca".'
            ) from error
        # With a seed UMAP works in one thread, and warns where another number is asked for.
        n_jobs = -1 if random_state is None else 1
        return UMAP(n_components=2, random_state=random_state, n_jobs=n_jobs)
    if not hasattr(reducer, "fit_transform"):
        raise ValueError(
            f'reducer={reducer!r} must be "pca", "umap" or a transformer with fit_transform.'
        )
    return clone(reducer) if isinstance(reducer, BaseEstimator) else reducer


def axis_names(transformer: Any) -> tuple[str, str]:
    """Name the two axes of a fitted transformer.

    Parameters
    ----------
    transformer : fitted transformer

    Returns
    -------
    tuple of two str
        For principal components, with the fraction of the variance along each.
    """
    if isinstance(transformer, PCA):
        check_is_fitted(transformer)
        first, second = transformer.explained_variance_ratio_[:2]
        return (
            f"1st principal component ({first:.0%} of the variance)",
            f"2nd principal component ({second:.0%})",
        )
    name = type(transformer).__name__
    return f"1st dimension of {name}", f"2nd dimension of {name}"
