"""ReConPatch: PatchCore with a learned linear embedding between patch features and bank."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import torch

from skad._common.docstrings import with_inherited_texts
from skad._common.progress import FitProgress
from skad._features import (
    Canvases,
    MappedExtractor,
    PatchesInMemory,
    TrainingPatches,
)
from skad._learning import ReConPatchSettings, learn_embedding
from skad._patchcore import PatchCoreDetector
from skad._sklearn_compat import Interval, StrOptions
from skad._torch.devices import resolve_device


@with_inherited_texts
class ReConPatchDetector(PatchCoreDetector):
    """ReConPatch: nearest-neighbour distance to good patches in a learned embedding.

    A linear map f is trained on the patch features of the good images such that similar patches
    gather and different ones spread out; what is similar is judged by the distances and the common
    neighbours of the patches themselves, so that no labels are needed. Everything else is
    PatchCore: a coreset of f(patches) is the memory bank.

    Parameters
    ----------
    embedding_dim : int, default=512
        Output dimension of f: length of the vectors in the bank.
    projection_dim : int or None, default=512
        Output dimension of g, the linear map from f to where the loss is taken, dropped after the
        training. None: no g (Table S4 of the paper).
    k : int, default=5
        Neighbours for the contextual similarity, the patch itself counted in (Eq. 2).
    alpha : float, default=0.5
        Share of the pairwise similarity in [0, 1]; the rest is contextual (Eq. 6).
    m : float, default=1.0
        Margin of the repulsion, in mean distances of the batch (Eq. 7).
    sigma : float or "auto", default="auto"
        Bandwidth of the pairwise similarity exp(-d^2 / sigma) (Eq. 1). "auto": the mean squared
        distance between projected patches before the training, so that the kernel tells near from
        far whatever the scale of the features.
    gamma : float, default=0.99
        Momentum of the averaged networks that judge similarity, in [0, 1] (Eq. 8).
    init : {"orthogonal", "uniform"}, default="orthogonal"
        Initial f and g: random orthogonal maps, which keep the distances between patches, or the
        uniform distribution that torch gives its linear layers.
    epochs : int, default=3
        Passes over all patches; the paper's 120, with its `lr`, take forty times as long and give no
        better f. 0: f stays as initialised.
    lr : float, default=3e-4
        Learning rate of AdamP; falls to 0 along a cosine, epoch by epoch. The paper's: 1e-5.
    weight_decay : float, default=1e-2
        Decoupled weight decay of AdamP.
    train_batch_size : int, default=512
        Patches in a training step, drawn at random from all images; more than `k`. Time and memory
        of a step grow with its square.
    tol : float or None, default=None
        Stop after five epochs whose loss is not lower by `tol` than before; None: never.
    b : int or None, default=None
        Re-weight the score of every patch by the neighbourhood of `b` bank vectors around the
        matched one (Eq. 10, the matched vector counted in), at least 2. None: no re-weighting.
    max_memory : int, str or None, default=None
        Bytes (or "4GB") that patch features may take during ``fit``. Where they would take more,
        they are kept in a temporary file (the environment variable TMPDIR says where); the result is
        the same.
    memory
        A search over k, alpha or m runs the backbone once per image.
    contamination
        f has seen the patches of every good image; only the bank leaves them out.
    random_state
        Also for f, g and the order of the patches. On the CPU equal seeds give bitwise equal detectors.

    Attributes
    ----------
    components_ : ndarray of shape (embedding_dim, n_patch_features), float32
        The matrix of f.
    loss_curve_ : ndarray of shape (n_iter,), float64
        Mean loss of every epoch.
    n_iter_ : int
        Epochs run.
    sigma_ : float
        Bandwidth used.
    bank_ : MemoryBank
        ``bank_.vectors`` (M, embedding_dim) float32 and ``bank_.sources`` (M,), the training image of
        each.
    coreset_radius_, offset_, calibration_scores_, heatmap_threshold_, n_images_, n_features_in_
        As in :class:`PatchCoreDetector`.
    geometry_, feature_spec_, weights_digest_
        What the features of a new image depend on.

    See Also
    --------
    PatchCoreDetector : The same without f.

    Notes
    -----
    f and g have no bias, since loss, neighbours and scores depend on differences alone. The bank holds
    f of the trained network, not its average and not g(f). Settings that the paper leaves open
    (sigma, gamma, batch, size of g, initial maps, b) were chosen by ``python -m skad.benchmark``; the
    tables are in ``docs/reconpatch.md``.

    Whitening, training sets that are not clean and precomputed features: see the Notes of
    :class:`PatchCoreDetector`.

    The bank takes embedding_dim * h * w * n_images * coreset_size floats (Eq. S1).

    References
    ----------
    .. [1] J. Hyun, S. Kim, G. Jeon, S. H. Kim, K. Bae, B. J. Kang, "ReConPatch: Contrastive Patch
       Representation Learning for Industrial Anomaly Detection", WACV 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import ReConPatchDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(8, 64, 64, 3), dtype=np.uint8)
    >>> damaged = good.copy()
    >>> damaged[:, 8:20, 8:20] = 255
    >>> det = ReConPatchDetector(
    ...     "skad_nano", image_size=64, epochs=5, embedding_dim=64, coreset_size=0.5,
    ...     random_state=0, target_false_alarm_rate=0.2,
    ... ).fit(good[:6])
    >>> det.predict(damaged[:2])
    array([-1, -1])
    >>> det.components_.shape
    (64, 192)
    """

    _doc_link_template = "https://arxiv.org/abs/2305.16713"

    _parameter_constraints: dict = {
        **PatchCoreDetector._parameter_constraints,
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "projection_dim": [Interval(Integral, 1, None, closed="left"), None],
        "k": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "m": [Interval(Real, 0, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "gamma": [Interval(Real, 0, 1, closed="both")],
        "init": [StrOptions({"orthogonal", "uniform"})],
        "epochs": [Interval(Integral, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "train_batch_size": [Interval(Integral, 2, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
    }
    _stages = ("extraction", "training", "coreset", "calibration")
    _growth_stages = PatchCoreDetector._stages
    # Eq. 9 and 10 weight every patch.
    _weighs_patches = True

    def __init__(
        self,
        backbone="wide_resnet50_2.tv_in1k",
        *,
        embedding_dim=512,
        projection_dim=512,
        k=5,
        alpha=0.5,
        m=1.0,
        sigma="auto",
        gamma=0.99,
        init="orthogonal",
        epochs=3,
        lr=3e-4,
        weight_decay=1e-2,
        train_batch_size=512,
        tol=None,
        weights="pretrained",
        layers="auto",
        patch_size="auto",
        normalize="auto",
        aggregation="concat",
        pretrain_dim=1024,
        target_dim=1024,
        whitening=0.25,
        coreset_size="auto",
        coreset_method="greedy",
        coreset_projection_dim=128,
        n_starts=10,
        trim_fraction=0.0,
        n_neighbors=1,
        distance="euclidean",
        b=None,
        geometry="squash",
        image_size="auto",
        resize=None,
        tiles=None,
        image_shape=None,
        roi=None,
        image_score="map",
        smoothing=4.0,
        index="auto",
        max_memory=None,
        memory=None,
        contamination="auto",
        target_false_alarm_rate=0.05,
        batch_size=8,
        device="auto",
        precision="float32",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            backbone,
            weights=weights,
            layers=layers,
            patch_size=patch_size,
            normalize=normalize,
            aggregation=aggregation,
            pretrain_dim=pretrain_dim,
            target_dim=target_dim,
            whitening=whitening,
            coreset_size=coreset_size,
            coreset_method=coreset_method,
            coreset_projection_dim=coreset_projection_dim,
            n_starts=n_starts,
            trim_fraction=trim_fraction,
            n_neighbors=n_neighbors,
            distance=distance,
            b=b,
            geometry=geometry,
            image_size=image_size,
            resize=resize,
            tiles=tiles,
            image_shape=image_shape,
            roi=roi,
            image_score=image_score,
            smoothing=smoothing,
            index=index,
            max_memory=max_memory,
            memory=memory,
            contamination=contamination,
            target_false_alarm_rate=target_false_alarm_rate,
            batch_size=batch_size,
            device=device,
            precision=precision,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.embedding_dim = embedding_dim
        self.projection_dim = projection_dim
        self.k = k
        self.alpha = alpha
        self.m = m
        self.sigma = sigma
        self.gamma = gamma
        self.init = init
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.train_batch_size = train_batch_size
        self.tol = tol

    # ---------------------------------------------------------------- fitting

    def _collect_patches(
        self,
        canvases: Canvases,
        folds: np.ndarray,
        n_patches: int,
        matrix: torch.Tensor | None,
        generator: torch.Generator,
        progress: FitProgress,
    ) -> tuple[TrainingPatches, torch.Tensor]:
        """Extract all patch features once, learn f on them, and map them by it."""
        settings = self._settings(n_patches)
        on_disk = self._must_stream(len(canvases.owners), n_patches, matrix)
        with progress.stage("extraction", len(canvases)) as advance:
            # Held until they are whitened; what is not goes to its patches at once.
            stream = on_disk or not self.whitening
            maps, weights = self._whiten(self._collect_maps(canvases, stream, advance), folds)
            features = PatchesInMemory(maps, on_disk)
        with progress.stage("training", self.epochs) as advance:
            device = resolve_device(self.device)
            learned = learn_embedding(features.embeddings, settings, generator, device, advance)
        self.components_ = learned.weight
        self.sigma_ = learned.sigma
        self.loss_curve_ = np.array(learned.losses)
        self.n_iter_ = len(learned.losses)
        f = self.components_
        patches = TrainingPatches(features, folds, f, [f @ weight for weight in weights])
        return patches, patches.project(matrix)

    def _collect_new_patches(
        self,
        canvases: Canvases,
        folds: np.ndarray,
        n_patches: int,
        matrix: torch.Tensor | None,
        progress: FitProgress,
    ) -> tuple[TrainingPatches, torch.Tensor]:
        """Map patches by the f that was learned."""
        on_disk = self._must_stream(len(canvases.owners), n_patches, matrix)
        with progress.stage("extraction", len(canvases)) as advance:
            maps = self._whitened(self._collect_maps(canvases, True, advance))
            features = PatchesInMemory(maps, on_disk)
        patches = TrainingPatches(features, folds, self.components_)
        return patches, patches.project(matrix)

    def _must_stream(self, n_maps: int, n_patches: int, matrix: torch.Tensor | None) -> bool:
        """Whether all patch features, of which feature maps are a part, must lie on disk."""
        n_projected = self._embedding_dim() if matrix is None else len(matrix)
        held = n_patches * self._network.dim + n_maps * self._network.n_values
        return self._exceeds_memory(n_patches, n_projected, held=held)

    def _settings(self, n_patches: int) -> ReConPatchSettings:
        if min(n_patches, self.train_batch_size) <= self.k:
            raise ValueError(
                f"k={self.k} neighbours, the patch itself counted in, need more than {self.k} patches "
                f"in a training step: train_batch_size={self.train_batch_size}, and the images have "
                f"{n_patches} patches. Lower k, raise train_batch_size, or fit on more images."
            )
        return ReConPatchSettings(
            embedding_dim=int(self.embedding_dim),
            projection_dim=None if self.projection_dim is None else int(self.projection_dim),
            k=int(self.k),
            alpha=float(self.alpha),
            m=float(self.m),
            sigma=self.sigma,
            gamma=float(self.gamma),
            init=self.init,
            epochs=int(self.epochs),
            lr=float(self.lr),
            weight_decay=float(self.weight_decay),
            train_batch_size=int(self.train_batch_size),
            tol=self.tol,
        )

    def _embedding_dim(self) -> int:
        return int(self.embedding_dim)

    # ---------------------------------------------------------------- scoring

    def _embedder(self) -> MappedExtractor:
        return MappedExtractor(self._whitened_network(), self.components_)
