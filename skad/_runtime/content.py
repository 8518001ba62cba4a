"""What the header of an exported file says: all that a verdict needs beside the graph."""

from __future__ import annotations

import base64
import json
import math
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skad._common.text import shortened
from skad._common.version import __version__
from skad._images import Geometry, RegionOfInterest, Size, Tiling
from skad._scoring.fusing import RobustScale

# Of files whose graph gives scores and maps, and of those whose graph gives grids of patch scores.
_WHOLE, _IN_PARTS = 1, 2


@dataclass(frozen=True)
class Thresholds:
    """Where good images end, and the scores from which that follows."""

    offset: float
    margin: float
    """By how much the offset has given way to ties."""
    heatmap_threshold: float
    calibration_scores: list[float] | None
    """Of good images, ascending; None: there are none."""
    calibration_peaks: list[float]
    """Highest values of maps of good images, ascending."""
    target_false_alarm_rate: float

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> Thresholds:
        """Read what `asdict` has written."""
        scores = content["calibration_scores"]
        return cls(
            _number(content["offset"]),
            _number(content["margin"]),
            _number(content["heatmap_threshold"]),
            None if scores is None else [_number(score) for score in scores],
            [_number(peak) for peak in content["calibration_peaks"]],
            _number(content["target_false_alarm_rate"]),
        )


@dataclass(frozen=True)
class Rounding:
    """How far a score may move where a processor rounds otherwise."""

    kind: str
    """"distance": an error at a right angle to a distance. "fraction": of the score. "constant"."""
    size: float

    def of(self, anomaly: float) -> float:
        """Tell how far an anomaly score may move."""
        if self.kind == "distance":
            return float(np.hypot(anomaly, self.size) - anomaly)
        return self.size * abs(anomaly) if self.kind == "fraction" else self.size


@dataclass(frozen=True)
class Part:
    """One of the networks of a file, where the graph ends at grids of patch scores."""

    kind: str
    """"whole": it scores a canvas. "patches": it embeds the patches of a tile, and scores patches.
    "layers": it scores a tile, layer by layer."""
    geometry: Geometry
    grid: tuple[int, int]
    """Rows and columns of what is scored on a canvas, or on a tile."""
    smoothing: float
    align_corners: bool
    image_score: str | float
    patch: RobustScale | None
    """Scales of the scores of patches and images; None: the file holds one detector."""
    image: RobustScale | None

    def to_json(self) -> dict[str, Any]:
        """Write it as a part of the header."""
        return {**vars(self), "geometry": _of_geometry(self.geometry)}

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> Part:
        """Read what `to_json` has written."""
        if content["kind"] not in ("whole", "patches", "layers"):
            raise ValueError(f"there are no parts of kind {shortened(repr(content['kind']), 60)}")
        return cls(
            kind=content["kind"],
            geometry=_geometry(content["geometry"]),
            grid=_pair(content["grid"]),
            smoothing=_number(content["smoothing"]),
            align_corners=bool(content["align_corners"]),
            image_score=content["image_score"],
            patch=_scale(content["patch"]),
            image=_scale(content["image"]),
        )


@dataclass(frozen=True)
class Content:
    """All that is known of an exported detector beside its graph."""

    detector: str
    """Name of its class."""
    backbone: str
    geometry: Geometry
    grid: tuple[int, int]
    """Rows and columns of patches, or pixels where the map itself is the grid."""
    smallest_side: int
    """Pixels below which an image is refused."""
    image_shape: tuple[int, ...] | None
    """Of flattened images."""
    roi: RegionOfInterest | None
    contamination: str | float
    image_score: str | float
    has_one_threshold: bool
    thresholds: Thresholds
    rounding: Rounding
    versions: dict[str, str]
    """Of skad and the libraries that it was written with."""
    verified: dict[str, Any]
    """On what it was compared with the detector, and how far both differ."""
    parts: tuple[Part, ...] = ()
    """Networks that give grids of patch scores; none: the graph itself gives scores and maps."""
    level: str = "map"
    """Of an ensemble in parts: what is averaged, "map" or "image"."""
    shares_grid: bool = False
    """Whether a patch is the same piece of an image to all parts."""

    def to_json(self) -> str:
        """Write the header of a file."""
        given = {
            **vars(self),
            "geometry": _of_geometry(self.geometry),
            "roi": None if self.roi is None else _pack(self.roi.mask),
            "thresholds": asdict(self.thresholds),
            "rounding": asdict(self.rounding),
            "parts": [part.to_json() for part in self.parts],
        }
        # Files without parts are as they were before there were any: older versions read them.
        if not self.parts:
            given = {name: given[name] for name in given if name not in _OF_PARTS}
        return json.dumps({"format": _IN_PARTS if self.parts else _WHOLE, **given})

    @classmethod
    def of_json(cls, text: str) -> Content:
        """Read the header of a file.

        Raises
        ------
        ValueError
            If another version has written it, or it is not what skad writes.
        """
        try:
            content = json.loads(text)
            if content["format"] in (_WHOLE, _IN_PARTS):
                return cls._of(content)
            version = content["versions"]["skad"]
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise ValueError(
                f"the header is not what skad writes ({type(error).__name__}: "
                f"{shortened(str(error))})"
            ) from error
        raise ValueError(
            f"it has format {shortened(repr(content['format']), 20)}, and this skad ({__version__}) "
            f"reads {_WHOLE} and {_IN_PARTS}: install the version it was written with, "
            f"{shortened(str(version), 20)}"
        )

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Content:
        rounding, shape = content["rounding"], content["image_shape"]
        parts = content.get("parts", [])
        return cls(
            detector=str(content["detector"]),
            backbone=str(content["backbone"]),
            geometry=_geometry(content["geometry"]),
            grid=_pair(content["grid"]),
            smallest_side=int(content["smallest_side"]),
            image_shape=None if shape is None else tuple(int(side) for side in shape),
            roi=None if content["roi"] is None else RegionOfInterest(_unpack(content["roi"])),
            contamination=content["contamination"],
            image_score=content["image_score"],
            has_one_threshold=bool(content["has_one_threshold"]),
            thresholds=Thresholds.of_json(content["thresholds"]),
            rounding=Rounding(str(rounding["kind"]), _number(rounding["size"])),
            versions={str(name): str(version) for name, version in content["versions"].items()},
            verified=dict(content["verified"]),
            parts=tuple(map(Part.of_json, parts)),
            level=str(content.get("level", "map")),
            shares_grid=bool(content.get("shares_grid", False)),
        )


# What a header holds beside, where there are parts.
_OF_PARTS = ("parts", "level", "shares_grid")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{shortened(repr(value), 60)} is no finite number")
    return float(value)


def _size(size: Any) -> Size:
    return (int(size[0]), int(size[1])) if isinstance(size, list) else int(size)


def _pair(given: Any) -> tuple[int, int]:
    first, second = given
    return int(first), int(second)


def _scale(given: Any) -> RobustScale | None:
    return None if given is None else RobustScale(*map(_number, given))


def _of_geometry(geometry: Geometry) -> dict[str, Any]:
    tiling = geometry.tiling
    placed = {"mode": geometry.mode, "image_size": geometry.image_size, "resize": geometry.resize}
    if tiling is None:
        return placed
    return {**placed, "tiling": {"margin": tiling.margin, "stride": tiling.stride}}


def _geometry(placed: dict[str, Any]) -> Geometry:
    size, given = _size(placed["image_size"]), placed.get("tiling")
    tiling = None
    if given is not None:
        tiling = Tiling(size, None, None, _pair(given["margin"]), int(given["stride"]))
    return Geometry(placed["mode"], size, placed["resize"], tiling)


def _pack(mask: np.ndarray | None) -> dict[str, Any]:
    assert mask is not None
    bits = base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode()
    return {"shape": mask.shape, "bits": bits}


def _unpack(packed: dict[str, Any]) -> np.ndarray:
    height, width = (int(side) for side in packed["shape"])
    n_bytes = -(-height * width // 8)
    # At most as many bytes as the mask has are unpacked, whatever a file says.
    unpacked = zlib.decompressobj().decompress(base64.b64decode(packed["bits"]), n_bytes)
    bits = np.unpackbits(np.frombuffer(unpacked, np.uint8), count=height * width)
    return bits.reshape(height, width).astype(bool)
