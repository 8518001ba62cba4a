"""The first half of PatchCore as a transformer: from images to patch embeddings."""

from __future__ import annotations

from copy import deepcopy
from numbers import Integral
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from skad._common.docstrings import with_inherited_texts
from skad._features import (
    PRECOMPUTED,
    PatchExtractor,
    StoredExtractor,
    check_features,
    folder_of,
)
from skad._image_input import naming
from skad._images import Footprint, one_call, read_roi
from skad._patch_input import PatchInput
from skad._sklearn_compat import Interval, Options, StrOptions, _fit_context
from skad._torch.devices import PRECISIONS

# A network stays in memory as long as what needs it.
_kept_networks: WeakKeyDictionary[PatchEmbedder, Any] = WeakKeyDictionary()
# What may be changed after fit: how to work, and where the weights lie, whose fingerprint is checked.
_FREE = frozenset({"weights", "memory", "batch_size", "device", "n_jobs", "verbose"})


@with_inherited_texts
class PatchEmbedder(PatchInput, TransformerMixin, BaseEstimator):
    """Embed images by a frozen backbone, as PatchCore sees them, for any model of scikit-learn.

    Nothing is learned but what "auto" stands for. An image becomes one row, the mean over its patches,
    or, with ``pooling=None``, a map of patch embeddings.

    Parameters
    ----------
    pooling : {"mean", "max"} or None, default="mean"
        What becomes of the patches of an image: their mean or highest value in each feature; None: all
        are returned. Patches in padding and outside a region of interest do not count.
    verbose : int, default=0
        1: say who is waited for where another process makes features of the same images.

    Attributes
    ----------
    feature_spec_, geometry_, weights_digest_, roi_
        What the features of an image depend on.
    image_size_ : int or tuple of two ints
        The size that the network sees, in pixels.
    n_features_in_ : int
        Number of columns; only if X held rows.

    See Also
    --------
    skad.PatchCoreDetector : Scores images by the same features, and takes these in place of images: see
        :meth:`detector_params`.
    skad.FeatureStore : Keeps them on disk, shared with the detectors.

    Notes
    -----
    The features of an image depend neither on the other images of X nor on `batch_size`: on the CPU to
    the last bit, on a GPU up to rounding. They are not whitened: a ``StandardScaler`` or
    ``PCA(whiten=True)`` behind this step does that.

    Examples
    --------
    Good parts in, novelties out, by a model of scikit-learn's:

    >>> import numpy as np
    >>> from sklearn.neighbors import LocalOutlierFactor
    >>> from sklearn.pipeline import make_pipeline
    >>> from skad.features import PatchEmbedder
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(12, 64, 64, 3), dtype=np.uint8)
    >>> damaged = good[:2].copy()
    >>> damaged[:, 8:40, 8:40] = 255
    >>> embedder = PatchEmbedder("skad_nano", image_size=64)
    >>> model = make_pipeline(embedder, LocalOutlierFactor(novelty=True, n_neighbors=5)).fit(good)
    >>> model.predict(damaged)
    array([-1, -1])
    >>> PatchEmbedder("skad_nano", image_size=64, pooling=None).fit_transform(good).shape
    (12, 8, 8, 192)
    """

    _doc_link_module = "skad"
    _doc_link_template = "https://arxiv.org/abs/2106.08265"

    _parameter_constraints: dict = {
        **PatchInput._patch_constraints,
        "pooling": [StrOptions({"mean", "max"}), None],
        "geometry": [StrOptions({"squash", "pad", "crop"})],
        "image_size": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
            "array-like",
        ],
        "resize": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "roi": "no_validation",
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "n_jobs": [Interval(Integral, 1, None, closed="left"), Options(Integral, {-1}), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="wide_resnet50_2.tv_in1k",
        *,
        weights="pretrained",
        layers="auto",
        patch_size="auto",
        normalize="auto",
        aggregation="concat",
        pretrain_dim=1024,
        target_dim=1024,
        pooling="mean",
        geometry="squash",
        image_size="auto",
        resize=None,
        image_shape=None,
        roi=None,
        memory=None,
        batch_size=8,
        device="auto",
        precision="float32",
        n_jobs=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.patch_size = patch_size
        self.normalize = normalize
        self.aggregation = aggregation
        self.pretrain_dim = pretrain_dim
        self.target_dim = target_dim
        self.pooling = pooling
        self.geometry = geometry
        self.image_size = image_size
        self.resize = resize
        self.image_shape = image_shape
        self.roi = roi
        self.memory = memory
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    @one_call()
    def fit(self, X: Any, y: Any = None) -> PatchEmbedder:
        """Settle what "auto" stands for, and which network it is.

        Parameters
        ----------
        X : images
            As for :meth:`skad.PatchCoreDetector.fit`; n images. Only their sizes matter.
        y : ignored

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            For images or parameters that cannot be used; the message names the item and the remedy.
        """
        self.__dict__.pop("weights_digest_", None)  # what fails leaves nothing fitted
        images = self._open(X, reset=True)
        self.roi_ = read_roi(self.roi)
        self.geometry_ = self._make_geometry(images)
        self.feature_spec_ = self._make_spec()
        self._folder_at_fit = folder_of(self.memory)
        network = self._network = self._find_network()
        self._check_images(images)
        self._warn_of_shapes(images)
        self._channels, self._dim = (
            list(zip(network.starts, network.channels, strict=True)),
            network.dim,
        )
        self._params_at_fit = self._frozen_params()
        self.weights_digest_ = network.digest
        return self

    @one_call()
    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n, d), or (n, h, w, d) with ``pooling=None``; float32
            Maps are NaN where a patch does not count.

        Raises
        ------
        ValueError, TypeError
            For images that cannot be used; if a parameter was changed after ``fit``, or the weights are
            others.
        """
        check_is_fitted(self)
        self._check_unchanged()
        network = self._ready_network()
        images = self._open(X, reset=False)
        self._check_images(images)
        found = []
        with naming(images):
            for batch in self._iter_batches(images):
                pooled = network.pool(batch.pixels)
                check_features(pooled, batch.start)
                footprints = self.geometry_.footprints(batch.frames, network.grid)
                found += [
                    self._of_image(network, one, footprint)
                    for one, footprint in zip(pooled.split(1), footprints, strict=True)
                ]
        return np.stack(found)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the features: the layer and the channel that each comes from.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of shape (d,), str objects
            ``layer2_17``; ``feature_17`` with ``aggregation="adaptive"``, which mixes channels.

        Raises
        ------
        ValueError
            With ``pooling=None``: maps have no columns.
        """
        check_is_fitted(self)
        if self.pooling is None:
            raise ValueError(
                'pooling=None returns maps of patches, which have no columns to name: use "mean" '
                'or "max".'
            )
        if self.aggregation == "adaptive":
            names = [f"feature_{i}" for i in range(self._dim)]
        else:
            layers = self.feature_spec_.layers
            if self.feature_spec_.backbone is None:  # a network of the user's own
                layers = tuple(range(len(self._channels)))
            names = [
                f"layer{layer}_{i}"
                for layer, (_, n) in zip(layers, self._channels, strict=True)
                for i in range(n)
            ]
        return np.array(names, dtype=object)

    def detector_params(self) -> dict[str, Any]:
        """Tell the parameters of a detector that takes these features in place of images.

        Returns
        -------
        dict
            `backbone`, `layers`, `image_size` and `precision` for :class:`skad.PatchCoreDetector` or
            :class:`skad.ReConPatchDetector`. On features it then gives the scores that it gives on the
            images themselves with the settings of this embedder, up to rounding.

        Raises
        ------
        ValueError
            If features are pooled, which leaves no patches; or if ``aggregation="adaptive"`` has mixed
            values of two layers in one, which cannot be whitened apart.

        Examples
        --------
        >>> from skad import PatchCoreDetector
        >>> from skad.features import PatchEmbedder
        >>> from skad.utils.estimator_checks import good_images
        >>> X = good_images(8)
        >>> embedder = PatchEmbedder("skad_nano", image_size=64, pooling=None).fit(X)
        >>> embedder.detector_params()["layers"]
        [(8, 8, 64), (4, 4, 128)]
        >>> det = PatchCoreDetector(**embedder.detector_params(), target_false_alarm_rate=0.2)
        >>> det.fit(embedder.transform(X)).predict_heatmap(embedder.transform(X[:2])).shape
        (2, 64, 64)
        """
        check_is_fitted(self)
        self._check_unchanged()
        if self.pooling is not None:
            raise ValueError(
                f"pooling={self.pooling!r} leaves no patches for a detector: use pooling=None."
            )
        layers = self._ready_network().layer_shapes
        if sum(layer[2] for layer in layers) != self._dim:
            raise ValueError(
                f'aggregation="adaptive" with target_dim={self.target_dim} mixes values of two layers, '
                'which a detector cannot tell apart: use aggregation="concat".'
            )
        return {
            "backbone": PRECOMPUTED,
            "layers": layers,
            "image_size": self.image_size_,
            "precision": self.precision,
        }

    def _of_image(
        self, network: PatchExtractor | StoredExtractor, pooled: torch.Tensor, footprint: Footprint
    ) -> np.ndarray:
        """Turn the feature maps of one image into what is returned of it."""
        patches = network.join(pooled)[0].cpu().numpy()
        if self.pooling is None:
            grid = patches.reshape(*network.grid, -1).copy()
            grid[~footprint.mask] = np.nan
            return grid
        counting = patches[footprint.mask.ravel()]
        if self.pooling == "max":
            return counting.max(axis=0)
        return counting.mean(axis=0, dtype=np.float64).astype(np.float32)

    # ------------------------------------------------------------------ state

    def _ready_network(self) -> PatchExtractor | StoredExtractor:
        network = self._network = self._find_network()
        if network.digest != self.weights_digest_:
            raise ValueError(
                "the backbone's weights are not those that this embedder was fitted with: its features "
                "would be others. Pass the original file with set_params(weights=...), or fit again."
            )
        _kept_networks[self] = network
        return network

    def _frozen_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False).items()
        return {
            name: deepcopy(value)
            for name, value in params
            if name not in _FREE and (name != "backbone" or isinstance(value, str))
        }

    def _check_unchanged(self) -> None:
        now = self._frozen_params()
        changed = [n for n, value in self._params_at_fit.items() if not _equal(now.get(n), value)]
        if changed:
            raise ValueError(
                f"{' and '.join(changed)} changed after fit, and features would be others: set "
                f"{'it' if len(changed) == 1 else 'them'} back, or fit again."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_digest_")

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_network"}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # float32, whatever images are made of
        return tags


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(type(one) is type(other) and one == other)
