"""``skad info``: what is in a file."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from skad._common.forks import LOADING
from skad._common.image_files import suffix_of
from skad.cli._models import SKAD, add_model, load_model

NAME = "info"
HELP = "what is in a file: parameters, threshold, versions"
DESCRIPTION = """\
Print what a fitted detector in a file is: parameters, threshold, number of images, versions, backbone
and geometry. No network is built for it.
"""
EXAMPLES = """\
  skad info line3.skad
"""
_LEARNED = {
    "images learned from": "n_images_",
    "threshold": "offset_",
    "threshold of heat maps": "heatmap_threshold_",
    "pixels that the network sees": "image_size_",
    "geometry": "geometry_",
    "weights, fingerprint": "weights_digest_",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command reads."""
    add_model(parser)


def run(args: Namespace) -> int:
    """Print what there is, one line each."""
    model = load_model(args.model)
    print(f"{args.model}: {os.path.getsize(args.model) / 1e6:.1f} MB")
    facts = [*_versions(args.model), *_facts(model)]
    width = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        print(f"{name:<{width}}{value}")
    return 0


def _versions(path: str) -> Iterator[tuple[str, Any]]:
    """Read from the header which versions have written a file."""
    if suffix_of(path) != SKAD:
        return
    with LOADING:
        import safetensors
    with safetensors.safe_open(path, framework="np") as file:
        written = file.metadata()
    for name in ("skad", "sklearn"):
        if f"{name}_version" in written:
            yield f"written by {name}", written[f"{name}_version"]


def _facts(model: Any) -> Iterator[tuple[str, Any]]:
    yield "detector", type(model).__name__
    for name, attribute in _LEARNED.items():
        if hasattr(model, attribute):
            yield name, _shown(getattr(model, attribute))
    known = getattr(model, "calibration_scores_", None)
    yield "calibration scores", "none" if known is None else len(known)
    yield from _parameters(model)
    for name, member in zip(
        getattr(model, "_names", ()), getattr(model, "estimators_", ()), strict=False
    ):
        for inner, value in _facts(member):
            yield f"{name}: {inner}", value
    yield from _exported(model)


def _exported(model: Any) -> Iterator[tuple[str, Any]]:
    """Tell what an exported file says of the detector that it was made of."""
    content = getattr(model, "content_", None)
    if content is None:
        return
    yield "exported from", content.detector
    yield "backbone", content.backbone
    yield "geometry", _placed(content.geometry)
    for number, part in enumerate(content.parts if len(content.parts) > 1 else ()):
        yield f"geometry of network {number}", _placed(part.geometry)
    yield "region of interest", "none" if content.roi is None else "a mask"
    for name, version in content.versions.items():
        yield f"written by {name}", version
    for name, value in content.verified.items():
        yield f"verified: {name}", _shown(value)


def _placed(geometry: Any) -> str:
    kind = "tiles of" if geometry.tiling is not None else f"{geometry.mode},"
    return f"{kind} {geometry.image_size} px"


def _parameters(model: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(model, "get_params"):
        for name, value in model.get_params(deep=False).items():
            if name != "estimators":
                yield f"parameter {name}", _shown(value)


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 100 else f"{text[:96]} ..."
