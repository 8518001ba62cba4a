"""What detectors share that reconstruct the features of good images, and fail on anything else.

A network is trained step by step on good images, some of which are held out: their scores set the
threshold. An image is as anomalous as the distances between its features and their reconstructions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skad._base import BaseImageDetector
from skad._common.interrupts import Interrupt, deferred_interrupt
from skad._common.memory import parse_bytes, temporary_array
from skad._common.progress import Advance, FitProgress
from skad._common.warn import warn_user
from skad._features import BackboneIdentity, FeatureNet, load_backbone
from skad._images import (
    CanvasCache,
    Frame,
    ImageBatch,
    ImageSource,
    Tile,
    Tiling,
    as_tiles,
    stacked,
)
from skad._learning import Training, summed
from skad._scoring.heatmaps import Heatmap
from skad._scoring.maps import without_padding
from skad._scoring.results import BatchScores, TrainingScores
from skad._scoring.tiled import put_together
from skad._sklearn_compat import Interval, StrOptions
from skad._torch.accelerators import recorded
from skad._torch.devices import autocast, is_plain_mode, resolve_device
from skad._torch.invariance import BatchInvariant, pin_convolutions

if TYPE_CHECKING:
    from typing_extensions import Self

# Steps between two looks at the loss: a look makes the CPU wait for the GPU.
_CHECK_EVERY = 50

# Makes maps of canvases.
MakeMaps = Callable[[Any], Sequence[np.ndarray]]


class BaseReconstructionDetector(BaseImageDetector):
    """Fit, warm start, calibration and scores of detectors that train a network.

    Subclasses build the network (`_build`), say how it is trained (`_training`) and what its answers
    to an image are worth (`_distances`).

    Parameters
    ----------
    max_iter : int
        Training steps. 0: the decoder stays as initialised.
    batch_size : int
        Images per training step, and per forward pass later on; scores do not depend on the latter.
    validation_fraction : float
        Fraction of the good images that are not trained on, in [0, 1): threshold and p-values come from
        their scores. The choice does not depend on `random_state`. 0.0: none, which needs a
        `contamination`.
    warm_start : bool
        Whether ``fit`` goes on from the last one: from ``n_iter_`` to `max_iter` steps, with the moments
        of the optimiser.
    max_memory : int, str or None
        Bytes (or "4GB") that resized images may take during ``fit``; the others are read anew in every
        epoch. None: no limit.
    contamination : "auto" or float
        "auto": the threshold keeps `target_false_alarm_rate` on the held-out images. A float
        in (0, 0.5]: scikit-learn's percentile of the scores of all good images.
    """

    _absent_means = {"roi": None, "tiles": None}
    _parameter_constraints: dict = {
        **BaseImageDetector._parameter_constraints,
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "warm_start": ["boolean"],
        "max_memory": [Interval(Integral, 1, None, closed="left"), str, None],
        "train_precision": [StrOptions({"auto", "float32", "bfloat16"})],
    }
    _free_after_fit = BaseImageDetector._free_after_fit | {"warm_start"}
    _stages = ("training", "calibration")
    # Parameters that must be as they were for a training to go on.
    _lasting: tuple[str, ...] = ("backbone", "geometry", "image_size", "resize")
    # Pixels between positions of the finest layer.
    _finest_stride = 4

    backbone: Any
    weights: Any
    max_iter: int
    batch_size: int
    warm_start: bool
    validation_fraction: float
    max_memory: int | str | None
    train_precision: str

    # ------------------------------------------------------------------ hooks

    @abstractmethod
    def _build(self, generator: torch.Generator | None) -> torch.nn.Module:
        """Build the network on the CPU, around the frozen encoder that this process shares.

        `generator` draws what is new in it; None: it gets its parameters from `network_`.
        """

    @abstractmethod
    def _layers(self) -> tuple[int, ...]:
        """Return the layers of a network of timm's that are reconstructed."""

    @abstractmethod
    def _check_encoder(self) -> None:
        """Refuse an encoder that the decoder cannot answer."""

    @abstractmethod
    def _training(
        self,
        network: Any,
        device: torch.device,
        n_iter: int,
        state: dict[str, np.ndarray] | None,
    ) -> Training:
        """Set up the training of a network on a device, from a step on."""

    @abstractmethod
    def _distances(self, targets: Any, outputs: Any) -> tuple[torch.Tensor, ...]:
        """Compare features with their reconstructions: (B, h, w) distances per layer, the finest first.

        Their sum, each brought to the canvas, is the map.
        """

    def _remedy(self) -> str:
        """Say what helps where a training diverges."""
        return "Lower lr"

    def _find_network(self) -> Encoder:
        size, device = self.image_size_, resolve_device(self.device)
        net = load_backbone(self.backbone, self.weights, self._layers(), device, image_size=size)
        return Encoder(net, net.digest, net.identity(size))

    def _scored_by(self) -> tuple[Any, ...]:
        """Return parameters beside the common ones that `_distances` depends on."""
        return ()

    def _drops_short_batches(self) -> bool:
        """Whether a last batch of an epoch that is smaller than the others is left out."""
        return False

    # ---------------------------------------------------------------- fitting

    def _begin_fit(self) -> None:
        if self.validation_fraction == 0 and self.contamination == "auto":
            raise ValueError(
                "validation_fraction=0 holds no good image out, and scores of images that were trained "
                "on are too good for a threshold; hold some out, or pass contamination=<fraction>."
            )
        if self.max_memory is not None:
            parse_bytes(self.max_memory)

    def _fit_images(
        self, images: ImageSource, progress: FitProgress, *, grids: bool
    ) -> TrainingScores:
        self._check_encoder()
        before = self._state_to_resume()
        held = held_out(len(images), self.validation_fraction)
        rows = np.setdiff1d(np.arange(len(images)), held)

        training = self._start(before)
        with progress.stage("training", self.max_iter) as advance:
            interrupted = self._train(training, images, rows, advance)
        self._keep(training, before)
        self.validation_indices_ = held
        if interrupted:
            warn_user(
                f"fit was interrupted after {self.n_iter_} of {self.max_iter} training steps. The "
                "detector can be used; set_params(warm_start=True).fit(X) goes on.",
                ConvergenceWarning,
            )
        return self._score_training(images, held, progress, grids)

    def _state_to_resume(self) -> dict[str, Any] | None:
        """Take up what the last fit has left, where this one goes on from it."""
        before = getattr(self, "_resumable", None)
        if not self.warm_start or before is None:
            return None
        changed = [
            name for name in self._lasting if before["params"][name] != _comparable(self, name)
        ]
        # A fit that failed has left no parameters, and what was trained before.
        last = vars(self).get("_params_at_fit", {"tiles": self.tiles})
        if as_tiles(last.get("tiles")) != as_tiles(self.tiles):
            changed.append("tiles")
        if changed or self._network_difference() is not None:
            raise ValueError(
                f"warm_start=True cannot go on with another {' or '.join(changed) or 'backbone'}: set "
                "it back, or use warm_start=False."
            )
        if before["n_iter"] >= self.max_iter:
            warn_user(
                f"max_iter={self.max_iter} training steps have been taken already "
                f"(n_iter_={before['n_iter']}); raise max_iter to train on."
            )
        return before

    def _start(self, before: dict[str, Any] | None) -> Training:
        """Set up network and optimiser, fresh or as the last fit has left them."""
        device = resolve_device(self.device)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self._seed = seed if before is None else before["seed"]
        network = self._build(torch.Generator().manual_seed(self._seed))
        if before is not None:
            _restore(network, before["network"])
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        n_iter, state = (0, None) if before is None else (before["n_iter"], before["optimizer"])
        return self._training(network, device, n_iter, state)

    def _train(
        self, training: Training, images: ImageSource, rows: np.ndarray, advance: Advance
    ) -> bool:
        """Take the steps up to max_iter; tell whether the user has interrupted them."""
        with deferred_interrupt() as interrupt:
            for pixels in self._training_batches(images, rows, training.n_iter, interrupt):
                training.step(torch.from_numpy(pixels))
                if training.n_iter % _CHECK_EVERY == 0 and training.has_diverged():
                    break
                advance(training.n_iter)
        if training.has_diverged():
            raise self._diverged(f"the loss of training step {training.n_iter} is not finite")
        if interrupt.requested and training.n_iter == 0:
            raise KeyboardInterrupt  # there is nothing to keep
        return interrupt.requested and training.n_iter < self.max_iter

    def _diverged(self, seen: str) -> ValueError:
        return ValueError(f"{seen}: the training diverged. {self._remedy()}.")

    def _training_batches(
        self, images: ImageSource, rows: np.ndarray, done: int, interrupt: Interrupt
    ) -> Iterator[np.ndarray]:
        """Pixels of the batches of all epochs from step `done` on; their order depends on the seed."""
        cache = CanvasCache(None if self.max_memory is None else parse_bytes(self.max_memory))
        tilings = self._tilings(images)
        # Which image, and which tile of it.
        tiles = np.array(
            [(i, n) for i in rows for n in range(1 if tilings is None else len(tilings[i]))]
        )
        sizes = np.arange(0, len(tiles), self.batch_size)
        if self._drops_short_batches() and len(tiles) > self.batch_size:
            sizes = sizes[: len(tiles) // self.batch_size]
        while done < self.max_iter:
            epoch, skipped = divmod(done, len(sizes))
            order = tiles[np.random.default_rng([self._seed, epoch]).permutation(len(tiles))]
            end = min(len(tiles), len(sizes) * self.batch_size)
            order = order[skipped * self.batch_size : end]
            stream = self._iter_batches(images, order[:, 0], cache)
            for batch in stream:
                if interrupt.requested or done == self.max_iter:
                    stream.close()
                    return
                done += 1
                if tilings is None:
                    yield batch.pixels
                else:
                    chosen = order[batch.start : batch.start + len(batch.pixels)]
                    yield _cut(batch.pixels, [tilings[i][n] for i, n in chosen])

    def _keep(self, training: Training, before: dict[str, Any] | None) -> None:
        """Take the result over as arrays, and what a warm start would need."""
        network = training.network
        self.network_ = {
            name: tensor.detach().cpu().contiguous().numpy().copy()
            for name, tensor in network.state_dict().items()
        }
        curves = [
            torch.stack(c).cpu().numpy() if c else np.empty(0) for c in training.curves.values()
        ]
        if before is not None:
            curves = [np.concatenate(pair) for pair in zip(before["curves"], curves, strict=True)]
        for name, curve in zip(training.curves, curves, strict=True):
            setattr(self, f"{name}_", curve.astype(np.float64))
        self.n_iter_ = training.n_iter
        self.__dict__.pop("_scorer", None)
        self.__dict__.pop("_resumable", None)
        if self.warm_start or training.n_iter < self.max_iter:
            self._resumable = {
                "params": {name: _comparable(self, name) for name in self._lasting},
                "digest": self._network.digest,
                "network": self.network_,
                "optimizer": training.state(),
                "n_iter": training.n_iter,
                "seed": self._seed,
                "curves": [getattr(self, f"{name}_") for name in training.curves],
            }

    def _score_training(
        self, images: ImageSource, held: np.ndarray, progress: FitProgress, grids: bool
    ) -> TrainingScores:
        """Score what was held out, and where a percentile is asked for, everything."""
        mapped = images.subset(held) if len(held) else images
        all_too = self.contamination != "auto" and len(held) > 0
        kept = self._make_grids(len(mapped)) if grids else None
        with progress.stage("calibration", len(mapped) + all_too * len(images)) as advance:
            scores, peaks = self._score_all(mapped, advance, kept=kept)
            if not len(held):
                return TrainingScores(None, scores, peaks, kept)
            in_sample = self._score_all(images, advance, len(held))[0] if all_too else None
        return TrainingScores(scores, in_sample, peaks, kept, held)

    def _score_all(
        self,
        images: ImageSource,
        advance: Advance,
        done: int = 0,
        kept: np.ndarray | list[np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of images and the highest values of their maps; the maps themselves go to `kept`."""
        scores, peaks = np.empty((2, len(images)))
        for batch in self._iter_batches(images):
            at = slice(batch.start, batch.start + len(batch.frames))
            (found,) = self._score_batches(iter([batch]), maps=True)
            grids: Any = found.grid
            scores[at] = found.image
            peaks[at] = [
                self._summary(grid, frame, "map")
                for grid, frame in zip(grids, batch.frames, strict=True)
            ]
            if kept is not None:
                kept[at] = grids  # a list grows
            advance(done + at.stop)
        return scores, peaks

    def _rounding_of(self, anomaly: float) -> float:
        # Measured between kernels of CPUs: 7e-7.
        return {"float32": 1e-5, "bfloat16": 5e-3}[self.precision] * abs(anomaly)

    def _make_grids(self, n: int) -> np.ndarray | list[np.ndarray]:
        """Room for maps, on disk: the number of images must not decide about memory.

        In a list where images have canvases of their own.
        """
        if self.geometry_.tiling is not None:
            return []
        return temporary_array(
            (n, *self.geometry_.canvas), "the maps of good images", "or fit on fewer images"
        )

    # ---------------------------------------------------------------- scoring

    def _score_batches(self, batches: Iterator[ImageBatch], maps: bool) -> Iterator[BatchScores]:
        distances = self._ready_scorer()
        for batch in batches:
            grids = [grid.astype(np.float64) for grid in distances(batch.pixels)]
            if not all(np.isfinite(grid).all() for grid in grids):
                # In fit: the step that broke the network was the last, and its loss was the one before.
                raise self._diverged("the trained network scores images as NaN or infinite")
            yield self._score_maps(grids, batch.frames)

    def _score_maps(self, grids: list[np.ndarray], frames: list[Frame]) -> BatchScores:
        """(B,) scores, and what their maps come from, not smoothed: maps, or grids; NaN in padding."""
        image = np.empty(len(grids))
        for i, frame in enumerate(frames):
            grids[i] = self._counting(grids[i], frame)
            image[i] = self._image_score(grids[i], frame)
        return BatchScores(image, grids)

    def _counting(self, grid: np.ndarray, frame: Frame) -> np.ndarray:
        """Leave out of a grid what does not count."""
        if self._tiling() is None:
            return without_padding(grid, self.geometry_.pixels(*frame))
        height, width = self.geometry_.canvas
        cell = self._cell()[0]
        (footprint,) = self.geometry_.footprints([frame], (height // cell, width // cell))
        return np.where(footprint.mask, grid, np.nan)

    def _heatmap(self) -> Heatmap:
        return super()._heatmap()._replace(align_corners=self._tiling() is not None)

    def _cell(self) -> tuple[int, int]:
        return self._finest_stride, self._finest_stride

    def _ready_scorer(self) -> MakeMaps:
        """Build the network that scores, or take the one that was built before.

        It maps (B, H, W, 3) canvases to B maps (H, W), float32 summed cosine distances, not smoothed.
        """
        device = resolve_device(self.device)
        key = (self._network.net, str(device), self.precision, *self._scored_by(), is_plain_mode())
        if getattr(self, "_scorer", (None,))[0] != key:
            self._scorer = (key, self._make_scorer(device))
        return self._scorer[1]

    def _as_fitted(self) -> Self:
        now = super()._as_fitted()
        if now is not self:
            now._ready_scorer()
            self._scorer = now._scorer  # for the next prediction
        return now

    def _trained_network(self) -> torch.nn.Module:
        """Build the network with the parameters that were learned, on the CPU."""
        network = self._build(None)
        _restore(network, self.network_)
        return network

    def _make_scorer(self, device: torch.device) -> MakeMaps:
        network = self._trained_network()
        pin_convolutions(network)
        network = network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

        def distances(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with torch.inference_mode(), autocast(device, self.precision):
                targets, outputs = network(pixels)
            with torch.inference_mode():
                return self._distances(targets, outputs)

        run = recorded(distances, device)
        tiling = self._tiling()
        if tiling is not None:
            of_tiles = BatchInvariant(lambda pixels: run(torch.from_numpy(pixels)), device)
            return lambda canvases: [_stitched(of_tiles, tiling, canvas) for canvas in canvases]

        def maps(pixels: np.ndarray) -> tuple[torch.Tensor]:
            with torch.inference_mode():
                return (summed(run(torch.from_numpy(pixels)), self.geometry_.canvas),)

        of_images = BatchInvariant(maps, device)
        return lambda pixels: list(of_images(pixels)[0].cpu().numpy())

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_scorer"}


class Encoder(NamedTuple):
    """The frozen encoder, and what it is recognised by."""

    net: FeatureNet
    digest: str
    identity: BackboneIdentity | None


def _cut(canvases: Any, tiles: list[Tile]) -> np.ndarray:
    """Cut one tile out of each canvas; floats if any is."""
    cut = [canvas[tile.rows, tile.columns] for canvas, tile in zip(canvases, tiles, strict=True)]
    return stacked(cut)


def _stitched(
    network: Callable[[np.ndarray], tuple[torch.Tensor, ...]], tiling: Tiling, canvas: Any
) -> np.ndarray:
    """Score a canvas seen tile by tile: layers are put together, and meet on the grid of the first.

    Not on the canvas, as where it is seen at once: that has sixteen times as many values.
    """
    with torch.inference_mode():
        layers = put_together(network, tiling.of(canvas.shape), canvas)
        height, width = layers[0].shape[1:]
        return summed(layers, (height, width))[0].cpu().numpy()


def _comparable(detector: BaseReconstructionDetector, name: str) -> Any:
    value = getattr(detector, name)
    if isinstance(value, torch.nn.Module):
        return None  # its digest is compared
    return tuple(value) if isinstance(value, list | np.ndarray) else value


def held_out(n: int, fraction: float) -> np.ndarray:
    """Choose images to hold out: always the same ones, so that ensembles share them.

    Those of a smaller fraction are among those of a larger one.
    """
    n_held = min(max(round(fraction * n), 1), n - 1) if fraction > 0 else 0
    return np.sort(np.random.RandomState(0).permutation(n)[:n_held])


def _restore(network: torch.nn.Module, arrays: dict[str, np.ndarray]) -> None:
    try:
        network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    except RuntimeError as error:  # from a file that is not what skad writes
        first = str(error).splitlines()[1].strip()
        raise ValueError(f"network_ does not belong to this backbone: {first}") from error
