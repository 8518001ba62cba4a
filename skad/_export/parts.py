"""Detectors as networks that give grids of patch scores, of which the runtime makes maps and scores.

For what no graph of fixed shapes holds: images of tiles of their own number, ensembles whose members see
different canvases, regions of interest on large ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from skad._export.banks import BankDistances, PatchEmbedding
from skad._export.detectors import embedding_of, grid_of, layers_of, members_of, scoring_of
from skad._export.graph import Argument, of_canvas
from skad._export.scoring import Scoring
from skad._fusion import ScoreFusionDetector
from skad._reconstruction import BaseReconstructionDetector
from skad._runtime.content import Part
from skad._scoring.maps import is_large


def needs_parts(detector: Any) -> bool:
    """Whether a detector's maps are made outside of the graph."""
    members = members_of(detector)
    first = members[0].geometry_
    if any(member.geometry_ != first for member in members) or first.tiling is not None:
        return True
    if members[0]._roi() is not None and is_large(first.canvas):
        return True
    if len(members) == 1 or detector._share_grid:
        return False
    # Maps of grids that differ are averaged on the image: on a canvas that shows all of it, the same.
    return first.mode != "squash" or _takes_patches(detector)


def _takes_patches(ensemble: ScoreFusionDetector) -> bool:
    return ensemble.level == "map" and ensemble.image_score == "patch"


def parts_of(detector: Any) -> tuple[Part, ...]:
    """Describe the networks of a detector, of one part for each member.

    Parameters
    ----------
    detector : detector
        From `on_cpu`.

    Returns
    -------
    tuple of Part
    """
    if not isinstance(detector, ScoreFusionDetector):
        return (_part(detector, None, None),)
    return tuple(_part(one.detector, one.patch, one.image) for one in detector._members)


def _part(detector: Any, patch: Any, image: Any) -> Part:
    kind, grid = "whole", grid_of(detector)
    if detector.geometry_.tiling is not None:
        is_bank = not isinstance(detector, BaseReconstructionDetector)
        kind = "patches" if is_bank else "layers"
    heatmap = detector._heatmap()
    image_score = detector.image_score
    return Part(
        kind=kind,
        geometry=detector.geometry_,
        grid=grid,
        smoothing=float(heatmap.sigma),
        align_corners=bool(heatmap.align_corners),
        image_score=image_score if isinstance(image_score, str) else float(image_score),
        patch=patch,
        image=image,
    )


class Parts(nn.Module):
    """All networks of a detector beside each other, each with inputs and outputs of its own.

    Parameters
    ----------
    detector : detector
        From `on_cpu`.

    Attributes
    ----------
    arguments : list of Argument
        What `forward` takes.
    outputs : list of str
        Names of what it returns.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.networks = nn.ModuleList()
        self.arguments: list[Argument] = []
        self.outputs: list[str] = []
        for number, member in enumerate(members_of(detector)):
            network = _network(member)
            self.networks.append(network)
            self.arguments += [one.numbered(number) for one in network.arguments]
            self.outputs += [_numbered(name, number) for name in network.outputs]

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what all networks make of their inputs."""
        found: list[torch.Tensor] = []
        start = 0
        for network in self.networks:
            stop = start + len(network.arguments)  # type: ignore[arg-type]
            found.extend(network(*given[start:stop]))
            start = stop
        return tuple(found)


def _numbered(name: str, number: int) -> str:
    """Name an output of a network: ``layer_0`` of number 1 is ``layer_1_0``."""
    first, *rest = name.split("_")
    return "_".join([first, str(number), *rest])


def _network(detector: Any) -> Any:
    canvas = detector.geometry_.canvas
    if detector.geometry_.tiling is None:
        takes_content = detector.geometry_.mode == "pad" and detector._roi() is None
        scores_patches = detector.image_score == "patch"
        return _OfCanvas(scoring_of(detector), canvas, takes_content, scores_patches)
    if isinstance(detector, BaseReconstructionDetector):
        return _OfLayers(layers_of(detector), canvas)
    return _OfPatches(*embedding_of(detector), canvas)


class _OfCanvas(nn.Module):
    """Scores whole canvases.

    Parameters
    ----------
    scoring : Scoring
    canvas : tuple of two ints
    takes_content : bool
        Whether it must know where images lie on the canvas.
    scores_patches : bool
        Whether the score of an image is that of its most anomalous patch, and not of its map.
    """

    def __init__(
        self, scoring: Scoring, canvas: tuple[int, int], takes_content: bool, scores_patches: bool
    ) -> None:
        super().__init__()
        self.scoring = scoring
        self.arguments = of_canvas(canvas, takes_content)
        self.outputs = ["grid", "score"] if scores_patches else ["grid"]

    def forward(
        self, pixels: torch.Tensor, content: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        grids, scores = self.scoring.grids(pixels, self.scoring.seen(content))
        return (grids, scores) if len(self.outputs) == 2 else (grids,)


class _OfPatches(nn.Module):
    """Embeds tiles, and scores patches: the rims of tiles are left out between the two.

    Parameters
    ----------
    embedding : PatchEmbedding
    distances : BankDistances
    tile : tuple of two ints
    """

    def __init__(
        self, embedding: PatchEmbedding, distances: BankDistances, tile: tuple[int, int]
    ) -> None:
        super().__init__()
        self.embedding, self.distances = embedding, distances
        n_values = len(distances.centre)  # type: ignore[arg-type]
        self.arguments = [
            Argument("pixels", torch.zeros((2, *tile, 3)), "tiles"),
            Argument("patches", torch.zeros((2, n_values)), "patches"),
        ]
        self.outputs = ["embedded", "distances", "weighted"]

    def forward(self, pixels: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embedded = self.embedding(self.embedding.layers(pixels))
        # An output of its own, also where the rule has no weights.
        weighted = self.distances(patches, weighted=True)
        return embedded, self.distances(patches), weighted.clone()


class _OfLayers(nn.Module):
    """Scores tiles, layer by layer.

    Parameters
    ----------
    layers : torch.nn.Module
    tile : tuple of two ints
    """

    def __init__(self, layers: nn.Module, tile: tuple[int, int]) -> None:
        super().__init__()
        self.layers = layers
        pixels = torch.zeros((2, *tile, 3))
        self.arguments = [Argument("pixels", pixels, "tiles")]
        with torch.inference_mode():
            n_layers = len(layers(pixels[:1]))
        self.outputs = [f"layer_{number}" for number in range(n_layers)]

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.layers(pixels))
