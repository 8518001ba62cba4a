"""PatchCore: a memory bank of good patches, scored by the distance to the nearest of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from skad._bank import (
    Coreset,
    MemoryBank,
    bank_size,
    check_index,
    projection_matrix,
    start_coreset,
)
from skad._base import BaseImageDetector
from skad._common.docstrings import with_inherited_texts
from skad._common.memory import parse_bytes
from skad._common.progress import FitProgress
from skad._features import (
    Canvases,
    Extractor,
    FeatureMaps,
    HeldMaps,
    PatchesJoined,
    PatchExtractor,
    StoredExtractor,
    StreamedMaps,
    TrainingPatches,
    WhitenedExtractor,
    folder_of,
    learn_whitening,
)
from skad._image_input import naming
from skad._images import Frame, ImageBatch, ImageSource
from skad._precomputed_input import PrecomputedInput
from skad._scoring.calibration import CalibrationLog
from skad._scoring.folds import Select, score_folds, select_without, split_images, take_banks
from skad._scoring.growing import Growth, select_grown
from skad._scoring.plain import Batch, Rule, Scorer
from skad._scoring.results import BatchScores, TrainingScores
from skad._scoring.tiled import score_tiled
from skad._scoring.trimming import KeptPatches, images_to_trim, n_trimmed
from skad._sklearn_compat import (
    Interval,
    RealNotInt,
    StrOptions,
    _fit_context,
    with_callbacks,
)
from skad._torch.devices import is_plain_mode
from skad._verdicts import MEANWHILE

# Length of a rounding error, as a fraction of a vector's: what features differ by between processors. In
# float32 1e-5 between kernels of CPUs and 1e-3 to a GPU that computes in TF32; in bfloat16 5e-3.
_ROUNDING = {"float32": 1e-3, "bfloat16": 1e-2}
# Vectors of the bank that tell how long vectors are.
_N_MEASURED = 1024


@with_inherited_texts
class PatchCoreDetector(PrecomputedInput, BaseImageDetector):
    """PatchCore: nearest-neighbour distance to a coreset of good patches.

    A frozen backbone embeds every patch of the good images; a greedy k-centre coreset of these
    vectors is the memory bank. An image is as anomalous as its most anomalous patch, and a patch as
    anomalous as it is far from the bank.

    Parameters
    ----------
    whitening : float, default=0.25
        Strength p of whitening, in [0, 0.5]: every layer is mapped by C^-p, with C the covariance of its
        values over the good patches, before the coreset is chosen. 0: off, as in the papers. 0.5:
        Mahalanobis distances within a layer. See Notes.
    coreset_size : "auto", float or int, default="auto"
        Size of the memory bank. "auto": 5,000 vectors; 1 % of the patches where that is more, and all
        of them where there are fewer. A float: a fraction of all patches in (0, 1]; 0.01, 0.1 and 0.25
        are those of PatchCore's paper. An int: a number of vectors.
    coreset_method : {"greedy", "approximate", "random"}, default="greedy"
        "greedy": exact greedy k-centre from a random first patch. "approximate": the rule of the
        official code, whose distances are capped by the mean distance to `n_starts` random patches.
        "random": patches drawn at random.
    coreset_projection_dim : int or None, default=128
        Dimension of the random projection in which the coreset is selected; None: no projection.
        The bank always holds the unprojected vectors.
    n_starts : int, default=10
        Used by ``coreset_method="approximate"`` alone.
    trim_fraction : float, default=0.0
        For training images that may not all be good: the fraction of them, the most suspicious, that
        never enters the bank and does not calibrate the threshold; in [0, 0.5), rounded down to a
        number of images. See Notes.
    n_neighbors : int, default=1
        A patch's score is the mean distance to this many nearest vectors of the bank.
    distance : {"euclidean", "squared"}, default="euclidean"
        The paper's distance, or its square, which the official code reports.
    b : int or None, default=None
        Re-weight the image score by the neighbourhood of `b` bank vectors around the matched one
        (Eq. 7 of the paper, the matched vector counted in), at least 2; only with
        ``image_score="patch"``. None: no re-weighting, as in the official code.
    image_score : {"map", "patch"} or float, default="map"
        What the score of an image is. "map": the highest value of its smoothed heat map; an image is
        defective exactly if something in it is outlined. "patch": the score of its most anomalous patch,
        as in the paper (Eq. 6). A float in (0, 1]: the mean of this fraction of the map, the most
        anomalous. With the last two, outlines have a threshold of their own, which can disagree with the
        verdict.
    index : str, default="auto"
        Nearest-neighbour search. "auto": exact; "Flat": exact, by faiss; any other faiss factory
        string, e.g. ``"IVF256,Flat"`` or ``"HNSW32"``, for large banks.
    max_memory : int, str or None, default=None
        Bytes (or "4GB") that features may take during ``fit``. Where they would take more, only
        projections are kept and the images are embedded three times, or four with whitening; the result
        is the same. Also what heat maps may take, and with `tiles` an image that can only be decoded as
        a whole.
    contamination : "auto" or float, default="auto"
        "auto": the threshold keeps `target_false_alarm_rate`, by scores of the training images from
        banks that do not know them (three folds). A float in (0, 0.5]: scikit-learn's percentile of
        the training scores.
    random_state : int, RandomState instance or None, default=None
        For the projection and the first patch of the coreset.

    Attributes
    ----------
    whitening_ : list of ndarray of shape (C_j, C_j), float32
        The map of each layer, symmetric; empty if nothing is whitened.
    bank_ : MemoryBank
        ``bank_.vectors`` (M, d) float32 and ``bank_.sources`` (M,), the training image of each.
    coreset_radius_ : float or None
        No patch of a good image learned from is farther than this from the bank, in the projection in
        which the coreset is selected and up to rounding. None for the methods "approximate" and
        "random", which bound no distance.
    offset_ : float
        Threshold on ``score_samples``.
    training_scores_ : ndarray of shape (n_images,), float64
        Out-of-sample ``score_samples`` of each good training image, in their order in X; NaN if there
        was only one. The lowest are worth a look: a defective part may have been among them.
    calibration_scores_ : ndarray or None
        The scores that set the threshold, ascending: those of the training images, or of fresh ones (see
        :meth:`calibrate`); None if there was only one image. After :meth:`partial_fit` of the latest
        images, more than a third of all.
    heatmap_threshold_ : float
        What lies above it in a heat map is outlined. ``-offset_`` with ``image_score="map"``; else the
        maps of good images stay below it, but for the fraction of false alarms.
    image_size_ : int or tuple of two ints
        The size that the network sees, in pixels: the side of a square, or (height, width). With
        `tiles`, that of a tile.
    n_images_ : int
        Number of good images learned from.
    trimmed_indices_ : ndarray of int
        Which of these never entered the bank, in the order of ``training_scores_``; see `trim_fraction`.
    n_features_in_ : int
        Number of columns; only if X held rows.
    tiling_ : object or None
        How the canvas is cut: its attributes ``rows`` and ``columns`` (None: as many as an image
        needs), ``tile`` (pixels) and ``margin``. None without tiles.
    roi_ : object or None
        The region of interest: its attribute ``mask`` is an ndarray of shape (H, W), bool; or None if
        `roi` is a function.
    geometry_, feature_spec_, weights_digest_
        What the features of a new image depend on.

    See Also
    --------
    sklearn.neighbors.LocalOutlierFactor : Density of neighbours, for rows of features.

    Notes
    -----
    **Training sets that are not clean.** With `trim_fraction`, images are compared with each other
    before the bank is chosen. A patch is as suspicious as it is far from the third nearest of 128 images
    drawn at random, so that two images with the same defect do not vouch for each other; it is compared
    with the patches around the same place and with 16 others of each image, in the projection in which
    the coreset is selected. An image is as suspicious as the highest value of the map of these
    distances. That outliers are removed before the coreset is selected follows [2]_, and that good
    patches have their like in many images [3]_.
    Images that were trimmed have out-of-sample scores in ``training_scores_``, but are left out of
    ``calibration_scores_``: defects among them would make the threshold lenient. Some will be unusual
    good images. So the false-alarm rate may exceed the target by the fraction of good images that were
    trimmed. With `contamination` a number, the threshold is that percentile of all training images.

    **Whitening.** Channels of a backbone are correlated, and a few strong ones rule the distances
    between patches. Each layer is mapped by (C + 0.1 mean(lambda) I)^-p, with C the covariance of its
    values over the good images and lambda its eigenvalues. It gains most where good images are few.
    Images that have helped to learn the map lie closer to the bank than new ones, also where a bank has
    not seen them. So each fold of them is scored by the map that the other folds give.
    ``docs/whitening.md`` has figures.

    **Precomputed features.** With ``backbone="precomputed"`` X holds features: neither ``fit`` nor a
    prediction needs images or a network, so that a search over banks costs no more than the banks.
    ``PatchCoreDetector(**embedder.detector_params())`` gives on the features of a
    :class:`skad.features.PatchEmbedder` the scores that the detector gives on the images with the same
    settings, up to rounding. Without `layers`, whitening takes all values of a patch for one layer, and
    its scores are others; with ``whitening=0`` they are the same to the last bit. Heat maps and regions
    have the coordinates of the canvas, of `image_size` pixels: those of the images where these were of
    that size. Parameters that concern images or the making of features must stay at their defaults;
    `n_jobs` has no influence.

    Published rows on MVTec AD and the parameters that reproduce them (image AUROC / pixel AUROC /
    PRO in %, means over the 15 categories). All rows share the settings of the official code:
    ``geometry="crop", aggregation="adaptive", distance="squared", coreset_method="approximate",
    coreset_size=0.01, image_score="patch", whitening=0, image_size=224``.

    ==============================  ==================  ==========================================
    row                             published           further parameters
    ==============================  ==================  ==========================================
    Tables S1 to S3, 25 %           99.1 / 98.1 / 93.4  coreset_size=0.25
    Tables S1 to S3, 10 %           99.0 / 98.1 / 93.5  coreset_size=0.1
    Tables S1 to S3, 1 %            99.0 / 98.0 / 93.1  none (image_size=224)
    Table S4, layers (2, 3)         99.4 / 98.2 / 94.4  image_size=280, resize=320,
                                                        backbone="wide_resnet101_2.tv_in1k"
    Table S4, layers (1, 2, 3)      99.2 / 98.4 / 95.0  the same, layers=(1, 2, 3)
    Table S5, 1 to 50 images, 10 %  83.4 to 97.5 image  coreset_size=0.1; for one image also
                                                        contamination=0.1
    Table S6, ResNet-101, 10 %      98.6 / 97.9 / 92.5  coreset_size=0.1,
                                                        backbone="resnet101.tv_in1k"
    official code, 10 %, seed 0     99.2 / 98.1 / 94.4  coreset_size=0.1
    official code, 1 %, 320 px      99.3 / 97.8 / 94.3  image_size=320
    official code, p = 5, k = 3     99.0 / 98.4 / 94.2  image_size=320, patch_size=5, n_neighbors=3
    ==============================  ==================  ==========================================

    The figures are the papers'; the paper's own formulas (Euclidean distance, Eq. 7, exact greedy
    selection) are ``distance="euclidean", b=9, coreset_method="greedy", image_score="patch",
    whitening=0``.

    References
    ----------
    .. [1] K. Roth, L. Pemula, J. Zepeda, B. Schoelkopf, T. Brox, P. Gehler, "Towards Total Recall in
       Industrial Anomaly Detection", CVPR 2022.
    .. [2] X. Jiang et al., "SoftPatch: Unsupervised Anomaly Detection with Noisy Data", NeurIPS 2022.
    .. [3] X. Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual
       Scoring of the Unlabeled Images", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import PatchCoreDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, size=(8, 64, 64, 3), dtype=np.uint8)
    >>> damaged = good.copy()
    >>> damaged[:, 8:20, 8:20] = 255
    >>> det = PatchCoreDetector(
    ...     "skad_nano", image_size=64, random_state=0, target_false_alarm_rate=0.2
    ... ).fit(good[:6])
    >>> det.predict(damaged[:2])
    array([-1, -1])
    >>> det.predict_heatmap(damaged[:2]).shape
    (2, 64, 64)
    """

    _doc_link_template = "https://arxiv.org/abs/2106.08265"

    _parameter_constraints: dict = {
        **BaseImageDetector._parameter_constraints,
        **PrecomputedInput._patch_constraints,
        "whitening": [Interval(Real, 0, 0.5, closed="both")],
        "image_size": [
            StrOptions({"auto"}),
            *BaseImageDetector._parameter_constraints["image_size"],
        ],
        "coreset_size": [
            StrOptions({"auto"}),
            Interval(RealNotInt, 0, 1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "image_score": [
            StrOptions({"map", "patch"}),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "coreset_method": [StrOptions({"greedy", "approximate", "random"})],
        "coreset_projection_dim": [Interval(Integral, 1, None, closed="left"), None],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "trim_fraction": [Interval(Real, 0, 0.5, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "distance": [StrOptions({"euclidean", "squared"})],
        "b": [Interval(Integral, 2, None, closed="left"), None],
        "index": [str],
        "max_memory": [Interval(Integral, 1, None, closed="left"), str, None],
    }
    _absent_means = {"whitening": 0.0, "normalize": False, "roi": None, "tiles": None}
    whitening_: list[np.ndarray]
    _stages: tuple[str, ...] = ("extraction", "coreset", "calibration")
    _growth_stages = _stages
    # Eq. 7 weights the most anomalous patch alone.
    _weighs_patches = False

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
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.patch_size = patch_size
        self.normalize = normalize
        self.aggregation = aggregation
        self.pretrain_dim = pretrain_dim
        self.target_dim = target_dim
        self.whitening = whitening
        self.coreset_size = coreset_size
        self.coreset_method = coreset_method
        self.coreset_projection_dim = coreset_projection_dim
        self.n_starts = n_starts
        self.trim_fraction = trim_fraction
        self.n_neighbors = n_neighbors
        self.distance = distance
        self.b = b
        self.geometry = geometry
        self.image_size = image_size
        self.resize = resize
        self.tiles = tiles
        self.image_shape = image_shape
        self.roi = roi
        self.image_score = image_score
        self.smoothing = smoothing
        self.index = index
        self.max_memory = max_memory
        self.memory = memory
        self.contamination = contamination
        self.target_false_alarm_rate = target_false_alarm_rate
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # ---------------------------------------------------------------- fitting

    def _begin_fit(self) -> None:
        if self.b is not None and self.image_score != "patch" and not self._weighs_patches:
            raise ValueError(
                f"b={self.b} re-weights the most anomalous patch of an image, which is its score with "
                f'image_score="patch" alone; image_score is {self.image_score!r}. Set it to "patch", or '
                "b to None."
            )
        self.feature_spec_ = self._make_spec()
        self._folder_at_fit = folder_of(self.memory)

    def _fit_images(
        self, images: ImageSource, progress: FitProgress, *, grids: bool
    ) -> TrainingScores:
        n_patches = self._count_patches(images)
        n_select = self._bank_size(n_patches)
        check_index(self.index, self._embedding_dim(), n_select)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        generator = torch.Generator().manual_seed(seed)

        # The matrix is what the generator is asked for first: images that come later need the same.
        matrix = self._projection(generator)
        folds = split_images(len(images), generator)
        canvases = self._canvases(images)
        patches, projected = self._collect_patches(
            canvases, folds, n_patches, matrix, generator, progress
        )
        kept, projected = self._trim(patches, projected, generator)
        n_patches = len(kept.sources)
        n_select = self._bank_size(n_patches)
        select = partial(
            start_coreset,
            method=self.coreset_method,
            n_starts=self.n_starts,
            generator=generator,
            overwrite_x=True,
        )
        # A bank of all patches has no holes without those of an image.
        is_whole = n_select == n_patches or len(images) == 1
        coreset, banks = self._choose_banks(kept, projected, select, n_select, is_whole, progress)
        del projected
        own = self._own_vectors(canvases, is_whole)
        scores = self._score_training(patches, banks, own, progress, grids=grids)
        if len(images) == 1:
            scores = scores._replace(out_of_sample=None)
        self.trimmed_indices_ = kept.trimmed
        scores = scores._replace(trimmed=kept.trimmed)
        log = CalibrationLog.of(scores, len(images))
        self._growth = Growth(n_patches, seed, coreset.cover, log)
        return scores

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> PatchCoreDetector:
        """Take further good images into the memory bank, without those learned from before.

        On a detector that is not fitted this is :meth:`fit`. What fails leaves a fitted detector as it
        was.

        Parameters
        ----------
        X : images
            As in :meth:`fit`, of any sizes; n images that were not learned from before.
        y : array-like of shape (n,), default=None
            As in :meth:`fit`: defective images are left out.

        Returns
        -------
        self : object
            The detector, with an updated bank, thresholds and calibration scores.

        Raises
        ------
        ValueError, TypeError
            For images that cannot be used, if no image is good, if a parameter that shapes the scores
            was changed after ``fit``, or if the detector was read from a file of a version without
            this method.
        RuntimeError
            If another thread has fitted the detector meanwhile.

        Notes
        -----
        **Bank.** Where `coreset_size` is a fraction, the bank keeps its vectors and grows to that
        fraction of all patches seen, by one vector at least. The selection goes on among the new patches
        from the vectors that are there, so that the covering radius over all patches ever seen,
        ``coreset_radius_``, is the one before or that over the new patches, whichever is larger; and the
        latter is at most twice what the best choice of as many new patches could reach [1]_. Where
        `coreset_size` is a number, the bank keeps it and gives vectors up: the doubling algorithm
        [2]_ keeps ``coreset_radius_`` within eight times the best possible radius of that many vectors
        over all patches ever seen, however many calls there were. With "auto" it is a number as long as
        5,000 vectors are enough, and a fraction beyond. All of this holds for the method "greedy" and
        in its projection. "random" stays a random draw; "approximate" applies its rule to the new
        patches, or to bank and new patches together, and bounds nothing.

        **Thresholds.** New images are scored as in ``fit``: in three folds, each by the bank as it would
        have become without that fold; a single new image by the bank as it was. Earlier images cannot be
        scored again; their scores stay as they were measured, for as long as the bank knows at most half
        as many images again as it knew then. So more than a third of all images count, always the
        latest. If the bank grows, an old score can only be at least as anomalous as it would be today:
        such scores make thresholds lenient and p-values large, never the other way round. With a bank
        of fixed size, or with `b`, they may err to either side. The promise needs new images from where
        the old ones came from, as ever: after a change of light or material, fit again, or
        :meth:`calibrate` on fresh images.

        **Whitening.** The maps stay as the first fit has learned them: a bank cannot be whitened anew.
        They are as good as the images of the first call were typical; fit again after many more.

        **Trimming.** With `trim_fraction`, the new images are compared with each other, as in ``fit``:
        the fraction is one of the new images, and a new kind of good image stays where several show it.

        References
        ----------
        .. [1] T. F. Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical
           Computer Science 38, 1985.
        .. [2] M. Charikar, C. Chekuri, T. Feder, R. Motwani, "Incremental clustering and dynamic
           information retrieval", STOC 1997.
        """
        if not hasattr(self, "_params_at_fit"):
            return self.fit(X, y)
        if not hasattr(self, "_growth"):
            raise ValueError(
                "this detector comes from a version of skad without partial_fit, which needs more of "
                "the first fit than it has kept. Fit again, on all images."
            )
        images = self._open_good(X, y, reset=False)
        progress = FitProgress(self, len(self._growth_stages), X, y)
        # Worked out on a snapshot: what fails, and who predicts meanwhile, finds the old detector.
        before, grown = vars(self), self._as_fitted()
        grown._check_images(images)
        with progress.fitting(), naming(images):
            grown._grow(images, progress)
        if vars(self) is not before:
            raise RuntimeError(MEANWHILE.format(done="these images are not learned from"))
        self._become(grown)
        return self

    def _grow(self, images: ImageSource, progress: FitProgress) -> None:
        """Add the patches of images to the bank, score the images, and set the thresholds anew."""
        growth, bank = self._growth, self.bank_
        n_new = self._count_patches(images)
        generator = torch.Generator().manual_seed(growth.seed)
        matrix = self._projection(generator)
        folds = split_images(len(images), generator)
        canvases = self._canvases(images)
        patches, projected = self._collect_new_patches(canvases, folds, n_new, matrix, progress)
        kept, projected = self._trim(patches, projected, generator)
        n_new = len(kept.sources)
        n_select = growth.bank_size(len(bank), n_new, self.coreset_size)
        is_whole = n_select == growth.n_patches + n_new
        select = partial(
            select_grown,
            bank=bank,
            growth=growth,
            matrix=matrix,
            method=self.coreset_method,
            n_starts=self.n_starts,
        )
        coreset, banks = self._choose_banks(
            kept, projected, select, n_select, is_whole, progress, before=bank
        )
        del projected
        own = self._own_vectors(canvases, is_whole, self.n_images_)
        scores = self._score_training(patches, banks, own, progress)
        scores = scores._replace(trimmed=kept.trimmed)
        self.trimmed_indices_ = np.append(self.trimmed_indices_, self.n_images_ + kept.trimmed)
        self.n_images_ += len(images)
        self.training_scores_ = np.append(self.training_scores_, scores.of_training(len(images)))
        self._growth = growth.followed_by(n_new, coreset.cover, scores, self.n_images_)
        log = self._growth.log
        self._calibrate(log.out_of_sample, log.in_sample, log.peaks)

    def _choose_banks(
        self,
        kept: KeptPatches,
        projected: torch.Tensor,
        select: Select,
        n_select: int,
        is_whole: bool,
        progress: FitProgress,
        *,
        before: MemoryBank | None = None,
    ) -> tuple[Coreset, list[MemoryBank]]:
        """Choose and set the bank; return those that the folds of the images are scored by, too.

        They do not hold their fold, or all patches if the bank does. `before` is the bank that grows.
        """
        n_before, first = (0, 0) if before is None else (len(before), self.n_images_)
        n_chosen, n_folds = n_select - n_before or n_select, kept.patches.n_folds
        with progress.stage("coreset", n_chosen) as advance:
            advance = partial(_advance, advance, 1 if is_whole else 1 + n_folds)
            coreset = select(projected, n_select, progress=advance)
            if not is_whole:
                others = select_without(
                    projected,
                    kept,
                    n_select,
                    select,
                    lambda done: advance(n_chosen + done),
                    n_before,
                )
            else:  # a copy for each fold, where each sees other values
                others = [coreset.rows] * n_folds if kept.patches.differ else []
            rows = [coreset.rows, *others]
            bank, *banks = take_banks(kept, rows, index=self.index, before=before, first=first)
        self.bank_ = bank
        self.coreset_radius_ = None if coreset.cover is None else coreset.cover.radius
        return coreset, banks or [bank] * n_folds

    def _note_fresh(self, scores: np.ndarray, peaks: np.ndarray) -> None:
        if hasattr(self, "_growth"):
            fresh = TrainingScores(scores, scores, peaks)
            self._growth = replace(self._growth, log=CalibrationLog.of(fresh, self.n_images_))

    def _trim(
        self, patches: TrainingPatches, projected: torch.Tensor, generator: torch.Generator
    ) -> tuple[KeptPatches, torch.Tensor]:
        """Leave out the patches, and their projections, of the most suspicious images."""
        trimmed = np.empty(0, dtype=np.int64)
        if n_trimmed(patches.n_images, self.trim_fraction) > 0:
            trimmed = images_to_trim(
                projected, patches.footprints, self._heatmap(), self.trim_fraction, generator
            )
        kept = KeptPatches(patches, trimmed)
        return kept, projected[torch.from_numpy(kept.rows)] if len(trimmed) else projected

    def _collect_patches(
        self,
        canvases: Canvases,
        folds: np.ndarray,
        n_patches: int,
        matrix: torch.Tensor | None,
        generator: torch.Generator,
        progress: FitProgress,
    ) -> tuple[TrainingPatches, torch.Tensor]:
        """Embed the patches of all images; project them by `matrix` for the selection of the coreset."""
        stream = self._must_stream(len(canvases.owners), n_patches, matrix)
        with progress.stage("extraction", len(canvases)) as advance:
            maps, weights = self._whiten(self._collect_maps(canvases, stream, advance), folds)
            patches = TrainingPatches(PatchesJoined(maps), folds, fold_weights=weights)
            return patches, patches.project(matrix)

    def _collect_new_patches(
        self,
        canvases: Canvases,
        folds: np.ndarray,
        n_patches: int,
        matrix: torch.Tensor | None,
        progress: FitProgress,
    ) -> tuple[TrainingPatches, torch.Tensor]:
        """Embed patches as the bank holds them, and project them."""
        stream = self._must_stream(len(canvases.owners), n_patches, matrix)
        with progress.stage("extraction", len(canvases)) as advance:
            maps = self._whitened(self._collect_maps(canvases, stream, advance))
            patches = TrainingPatches(PatchesJoined(maps), folds)
            return patches, patches.project(matrix)

    def _collect_maps(
        self, canvases: Canvases, stream: bool, advance: Callable[[int], None]
    ) -> FeatureMaps:
        kind = StreamedMaps if stream else HeldMaps
        return kind(self._network, canvases, advance)

    def _whiten(self, maps: FeatureMaps, folds: np.ndarray) -> tuple[FeatureMaps, list[np.ndarray]]:
        """Learn how to whiten feature maps, and do so; tell what folds are mapped by beside."""
        self.whitening_, self._rounding_gain = [], 1.0
        if not self.whitening:
            return maps, []
        learned = learn_whitening(
            self._network, maps.per_canvas(), float(self.whitening), folds[maps.canvases.owners]
        )
        self.whitening_, self._rounding_gain = learned.matrices, learned.rounding
        return self._whitened(maps), learned.fold_weights

    def _whitened(self, maps: FeatureMaps) -> FeatureMaps:
        matrices = self._matrices()
        return maps.whitened(matrices) if matrices else maps

    def _matrices(self) -> list[np.ndarray]:
        # Detectors that were saved before there was whitening have none.
        return getattr(self, "whitening_", [])

    def _projection(self, generator: torch.Generator) -> torch.Tensor | None:
        """Matrix that projects patches for the selection; the first that a generator is asked for."""
        return projection_matrix(self._embedding_dim(), self.coreset_projection_dim, generator)

    def _must_stream(self, n_maps: int, n_patches: int, matrix: torch.Tensor | None) -> bool:
        n_projected = self._embedding_dim() if matrix is None else len(matrix)
        held = n_maps * self._network.n_values
        return self._exceeds_memory(n_patches, n_projected, held=held)

    def _embedding_dim(self) -> int:
        """Length of the vectors that the bank holds."""
        return self._network.dim

    def _canvases(self, images: ImageSource) -> Canvases:
        return Canvases(partial(self._located_batches, images), len(images), self._tilings(images))

    def _located_batches(self, images: ImageSource) -> Iterator[tuple[np.ndarray, list]]:
        for batch in self._iter_batches(images):
            yield batch.pixels, self.geometry_.footprints(batch.frames, self._grid())

    def _count_patches(self, images: ImageSource) -> int:
        """Count the patches of all images; at most so many, where each has a mask of its own."""
        height, width = self._grid()
        roi = self._roi()
        mask = None if roi is None else roi.of_shape()
        if self.geometry_.mode in ("squash", "crop") and mask is None:
            return len(images) * height * width
        frames = [Frame(images.shape(i), mask) for i in range(len(images))]
        footprints = self.geometry_.footprints(frames, (height, width))
        return sum(int(footprint.mask.sum()) for footprint in footprints)

    def _bank_size(self, n_patches: int) -> int:
        size = self.coreset_size
        n_select = bank_size(n_patches, size)
        needed = max(self.n_neighbors, self.b or 1)
        if n_select > n_patches or n_select < needed:
            raise ValueError(
                f"coreset_size={size} gives a bank of {n_select} vectors out of {n_patches} patches; "
                f"it must hold between {needed} (n_neighbors={self.n_neighbors}, b={self.b}) and "
                f"{n_patches}. Change coreset_size, or fit on more images."
            )
        return n_select

    def _exceeds_memory(self, n_patches: int, n_projected: int, held: int) -> bool:
        """Whether `held` numbers are too many for max_memory, beside projections that must fit.

        Those of the other folds are copied where a bank is chosen without one.
        """
        if self.max_memory is None:
            return False
        limit, least = parse_bytes(self.max_memory), 2 * 4 * n_patches * n_projected
        if least > limit:
            raise ValueError(
                f"max_memory={self.max_memory!r} is too little for {n_patches} patches: to choose the "
                f"coreset from their projections alone takes {least / 1e9:.2f} GB. Raise max_memory, "
                "set a small coreset_projection_dim, or fit on fewer images."
            )
        return least + 4 * held > limit

    # ------------------------------------------------------------ calibration

    def _score_training(
        self,
        patches: TrainingPatches,
        banks: list[MemoryBank],
        own: list[int | None],
        progress: FitProgress,
        *,
        grids: bool = False,
    ) -> TrainingScores:
        """Score the images that the bank has learned last, each by the bank of its fold without its own.

        `own` are the numbers of the images whose vectors are left out.
        """
        self._check_left(banks, own)
        scorers = [self._scorer(bank) for bank in banks]
        with progress.stage("calibration", patches.n_images) as advance:
            scores = score_folds(scorers, patches, own, grids=grids, progress=advance)
        held_out, peaks = (np.array([getattr(s, n) for s in scores]) for n in ("held_out", "peak"))
        found = [score.grid for score in scores]
        in_sample = self._score_in_sample(patches)
        return TrainingScores(held_out, in_sample, peaks, list(found) if grids else None)

    def _own_vectors(self, canvases: Canvases, is_whole: bool, first: int = 0) -> list[int | None]:
        """Numbers of the images whose own vectors a bank must not be asked for.

        A bank of all patches, without those of an image, is the bank of the others. But where an image
        has an identical twin, a bank without one of the two would know the other, so both stay. `first`
        is how many images the bank knew before.
        """
        numbers: list[int | None] = list(range(first, first + len(canvases)))
        if not is_whole or numbers == [0]:
            return [None] * len(canvases)
        twins = canvases.twins()
        return [None if i in twins else number for i, number in enumerate(numbers)]

    def _score_in_sample(self, patches: TrainingPatches) -> np.ndarray | None:
        """Score the training images as new ones, where the threshold is a percentile of that."""
        if self.contamination == "auto":
            return None
        scorer, images = self._scorer(), patches.per_image(held_out=False)
        return np.array([scorer.score_embedded(*image) for image in images])

    def _check_left(self, banks: list[MemoryBank], own: list[int | None]) -> None:
        """Every image must be left enough vectors to be scored by."""
        needed, smallest = max(self.n_neighbors, self.b or 1), min(map(len, banks))
        numbers = [number for number in own if number is not None]
        if smallest < needed:
            raise ValueError(
                f"the images of other folds have {smallest} patches, and {needed} are needed to score "
                f"an image (n_neighbors={self.n_neighbors}, b={self.b}): fit on more images."
            )
        if not numbers:
            return
        counts = np.bincount(self.bank_.sources, minlength=max(numbers) + 1)[numbers]
        if smallest - counts.max() < needed:
            raise ValueError(
                f"image {numbers[counts.argmax()]} alone holds {counts.max()} of the {smallest} "
                f"vectors of the bank; without them fewer than {needed} remain to score it by. "
                "Raise coreset_size or fit on more images."
            )

    def _rounding_of(self, anomaly: float) -> float:
        # A rounding error has many dimensions and points nowhere in particular: it adds to a distance as
        # the other side of a right angle does. Alone it is all of the distance.
        length = float(np.median(np.linalg.norm(self.bank_.vectors[:_N_MEASURED], axis=1)))
        # Whitening makes more of errors than of what all vectors have in common.
        error = _ROUNDING[self.precision] * length * getattr(self, "_rounding_gain", 1.0)
        if self.distance == "squared":
            return error**2
        return float(np.hypot(anomaly, error) - anomaly)

    # ---------------------------------------------------------------- scoring

    def _check_room_for_maps(self, X: Any) -> None:
        if self.max_memory is None:
            return
        shapes = [shape for _, shape in self._open(X, reset=False).known_shapes()]
        needed = 4 * sum(height * width for height, width in shapes)
        if needed > parse_bytes(self.max_memory):
            raise ValueError(
                f"the heat maps of these {len(shapes)} images take {needed / 1e9:.2f} GB, more than "
                f"max_memory={self.max_memory!r}. Ask for fewer at once, for predict_regions, which "
                "takes no such arrays, or raise max_memory."
            )

    def _score_batches(self, batches: Iterator[ImageBatch], maps: bool) -> Iterator[BatchScores]:
        extractor = self._embedder()
        located = (
            Batch(
                batch.start,
                batch.pixels,
                self.geometry_.footprints(batch.frames, self._grid()),
            )
            for batch in batches
        )
        tiling = self._tiling()
        if tiling is not None:
            return score_tiled(self._scorer(), extractor, tiling, located, maps)
        return self._scorer().score_batches(extractor, located, maps)

    def _embedder(self) -> Extractor:
        """Return what embeds patches as the bank holds them."""
        return self._whitened_network()

    def _whitened_network(self) -> PatchExtractor | StoredExtractor | WhitenedExtractor:
        """Return the backbone with what follows it up to the patch embeddings."""
        matrices = self._matrices()
        return WhitenedExtractor(self._network, matrices) if matrices else self._network

    def _scorer(self, bank: MemoryBank | None = None) -> Scorer:
        kind = Scorer
        if not is_plain_mode():
            from skad._scoring.fast import FastScorer as kind
        squared = self.distance == "squared"
        rule = Rule(self.n_neighbors, squared, self.b, self._weighs_patches, self.image_score)
        return kind(self.bank_ if bank is None else bank, rule, self._heatmap())


def _advance(advance: Callable[[int], None], n_banks: int, chosen: int) -> None:
    """Report vectors chosen for several banks as if for one."""
    advance(chosen // n_banks)
