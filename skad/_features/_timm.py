"""The one place that imports timm, and adds skad's own backbone to it.

timm imports torchvision, whose compiled operators are missing when a CUDA build of torchvision
stands beside a CPU build of torch (which is what a package registry hands out). torchvision then
dies at import with ``operator torchvision::nms does not exist``. skad uses none of these
operators; declaring their schemas is enough for the import to go through.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from skad._common.forks import LOADING

# torch.library drops the declarations when the object that made them is collected.
_declarations: list[object] = []

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def import_timm() -> ModuleType:
    """Import timm, beside any build of torchvision."""
    with LOADING:
        if "timm" not in sys.modules:
            _import_torchvision()
        timm = importlib.import_module("timm")
        importlib.import_module("skad._features.nano")
        return timm


def _import_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators()
        importlib.import_module("torchvision")


def _declare_operators() -> None:
    # What the failed import left half-initialised must not be found by the second one.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declarations.append(library)
