"""Frozen networks as an exporter takes them: without what is there for speed or for equal bits."""

from __future__ import annotations

import copy

from skad._features import FeatureNet
from skad._torch.invariance import unpinned


def exportable(net: FeatureNet) -> FeatureNet:
    """Copy a frozen network, its convolutions as torch has them.

    Parameters
    ----------
    net : FeatureNet
        Not changed.

    Returns
    -------
    FeatureNet
        Gives the same maps, up to rounding.
    """
    shell = copy.copy(net)
    shell._modules = {**net._modules, "body": unpinned(copy.deepcopy(net.body))}
    return shell
