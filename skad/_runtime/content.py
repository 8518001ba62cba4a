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
from skad._images import Geometry, RegionOfInterest, Size

FORMAT = 1


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

    def to_json(self) -> str:
        """Write the header of a file."""
        roi = None if self.roi is None else _pack(self.roi.mask)
        geometry = self.geometry
        placed = {
            "mode": geometry.mode,
            "image_size": geometry.image_size,
            "resize": geometry.resize,
        }
        own = {name: value for name, value in vars(self).items() if name not in ("geometry", "roi")}
        own.update(thresholds=asdict(self.thresholds), rounding=asdict(self.rounding))
        return json.dumps({"format": FORMAT, **own, "geometry": placed, "roi": roi})

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
            if content["format"] == FORMAT:
                return cls._of(content)
            version = content["versions"]["skad"]
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise ValueError(
                f"the header is not what skad writes ({type(error).__name__}: "
                f"{shortened(str(error))})"
            ) from error
        raise ValueError(
            f"it has format {shortened(repr(content['format']), 20)}, and this skad ({__version__}) "
            f"reads {FORMAT}: install the version it was written with, {shortened(str(version), 20)}"
        )

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Content:
        placed, rounding = content["geometry"], content["rounding"]
        shape = content["image_shape"]
        return cls(
            detector=str(content["detector"]),
            backbone=str(content["backbone"]),
            geometry=Geometry(placed["mode"], _size(placed["image_size"]), placed["resize"]),
            grid=(int(content["grid"][0]), int(content["grid"][1])),
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
        )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{shortened(repr(value), 60)} is no finite number")
    return float(value)


def _size(size: Any) -> Size:
    return (int(size[0]), int(size[1])) if isinstance(size, list) else int(size)


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
