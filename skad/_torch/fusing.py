"""Convolutions fused with what follows them: the same frozen network in fewer passes over its maps.

Batch norms are folded into the weights. Additions and ReLUs are part of the convolution's kernel where
the hardware has one; elsewhere they follow it in place.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_weights

from skad._torch.devices import autocast_dtype, fuses_convolutions
from skad._torch.invariance import is_plain

# Side in pixels of the image on which a fused network must agree with the original, and by how much
# their maps may differ, relative to the largest value of a map (rounding alone gives 1e-6).
_PROBE = 64
_AGREE = 1e-4
_RELU = {F.relu, torch.relu}
_ADD = {operator.add, operator.iadd, torch.add}


class FusedConvolution(nn.Module):
    """A frozen convolution, then an addend if there is one, then a ReLU if wanted.

    Parameters
    ----------
    convolution : torch.nn.Conv2d
        With the batch norm that followed it in its weights.
    relu : bool
    """

    def __init__(self, convolution: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.relu = relu
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}
        self._fuses = relu and is_plain(convolution)
        self._missing: set[tuple[torch.dtype, bool]] = set()

    def forward(self, x: torch.Tensor, addend: torch.Tensor | None = None) -> torch.Tensor:
        if self._fuses and fuses_convolutions(x.device):
            dtype = autocast_dtype(x.device) or x.dtype
            kind = dtype, torch.backends.cudnn.allow_tf32
            if kind not in self._missing:
                try:
                    return self._in_one_kernel(x.to(dtype), addend)
                except torch.cuda.OutOfMemoryError:
                    raise
                except RuntimeError:  # no such kernel for this shape, this type or this GPU
                    self._missing.add(kind)
        y = self.convolution(x)
        if addend is not None:
            y = y.add_(addend)
        return y.relu_() if self.relu else y

    def _in_one_kernel(self, x: torch.Tensor, addend: torch.Tensor | None) -> torch.Tensor:
        weight, bias = self._parameters_as(x.dtype, x.device)
        convolution = self.convolution
        way: tuple[Any, ...] = (
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            convolution.groups,
        )
        if addend is None:
            return torch.cudnn_convolution_relu(x, weight, bias, *way)
        return torch.cudnn_convolution_add_relu(x, weight, addend.to(x.dtype), 1.0, bias, *way)

    def _parameters_as(
        self, dtype: torch.dtype, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias, cast once instead of in every forward pass.

        None is ever dropped: see the obligations in `skad._torch.cuda_graphs`.
        """
        if (dtype, device) not in self._cast:
            weight, bias = self.convolution.weight, self.convolution.bias
            zeros = weight.new_zeros(len(weight)) if bias is None else bias
            self._cast[dtype, device] = weight.to(dtype), zeros.to(dtype)
        return self._cast[dtype, device]


class _Run(NamedTuple):
    """Nodes of a graph that one fused convolution replaces."""

    nodes: list[fx.Node]
    """The convolution, and what follows it one after the other."""
    norm: nn.BatchNorm2d | None
    addend: fx.Node | None
    relu: bool


def fuse_convolutions(body: nn.Module) -> nn.Module:
    """Fuse every convolution with the batch norm, the addition and the ReLU that follow it.

    Parameters
    ----------
    body : torch.nn.Module
        Frozen, in eval mode; not changed.

    Returns
    -------
    torch.nn.Module
        Computes the same. `body` itself where nothing can be fused, or where torch.fx cannot trace the
        forward pass: it branches on its input, or rejects an image of 64 pixels.
    """
    image = torch.randn(1, 3, _PROBE, _PROBE, generator=torch.Generator().manual_seed(0))
    image = image.to(next(body.parameters(), image).device)
    # Not in inference mode: weights that are made in it cannot move to a GPU.
    with torch.no_grad():
        try:
            maps, traced = _maps(body, image), _traced(body)
            ShapeProp(traced).propagate(image)
        except Exception:  # whatever a network of the user's own may do when it is looked at
            return body
        n_fused = _fuse(traced)
        return traced if n_fused and _same(maps, _maps(traced, image)) else body


class _Tracer(fx.Tracer):
    """Looks into every module but convolutions and norms, their subclasses included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (nn.Conv2d, nn.BatchNorm2d))
        return own or super().is_leaf_module(m, module_qualified_name)


def _traced(body: nn.Module) -> fx.GraphModule:
    copied = copy.deepcopy(body)
    _split_norms(copied)
    return fx.GraphModule(copied, _Tracer().trace(copied))


def _split_norms(body: nn.Module) -> None:
    """Make two modules of timm's norms that apply an activation, as in EfficientNet and RegNet."""
    for name, norm in list(body.named_modules()):
        kind = type(norm)
        of_timm = kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm.")
        if of_timm and not _is_watched(norm):
            after = [norm._modules.pop(part) for part in ("drop", "act")]
            norm.__class__ = nn.BatchNorm2d
            parent, _, own_name = name.rpartition(".")
            setattr(body.get_submodule(parent), own_name, nn.Sequential(norm, *after))


def _fuse(traced: fx.GraphModule) -> int:
    """Fuse what can be, in the order of the forward pass; return the number of fused convolutions."""
    n_fused = 0
    n_calls = Counter(node.target for node in traced.graph.nodes)
    for node in list(traced.graph.nodes):
        convolution = _module(traced, node)
        if isinstance(convolution, nn.Conv2d) and not _is_watched(convolution):
            run = _run_from(traced, node, convolution)
            if run.norm is not None or run.relu:
                # A layer that runs twice may be followed by different modules.
                own = convolution if n_calls[node.target] == 1 else copy.deepcopy(convolution)
                _replace(traced, run, _fused(own, run), f"fused_{n_fused}")
                n_fused += 1
    traced.delete_all_unused_submodules()
    traced.recompile()
    return n_fused


def _run_from(traced: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d) -> _Run:
    nodes, norm = [node], None
    following = _module(traced, _only_user(node))
    if _folds(following, convolution):
        norm = following
        nodes += node.users
    n_certain = len(nodes)
    while isinstance(_module(traced, _only_user(nodes[-1])), nn.Identity):
        nodes += nodes[-1].users
    addend = _addend(nodes[-1])
    if addend is not None:
        nodes += nodes[-1].users
    end = _only_user(nodes[-1])
    if _is_relu(traced, end):
        return _Run([*nodes, *nodes[-1].users], norm, addend, relu=True)  # type: ignore[arg-type]
    return _Run(nodes[:n_certain], norm, None, relu=False)  # type: ignore[arg-type]


def _fused(convolution: nn.Conv2d, run: _Run) -> FusedConvolution:
    norm = run.norm
    if norm is not None:
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,  # type: ignore[arg-type]
            norm.running_var,  # type: ignore[arg-type]
            norm.eps,
            norm.weight,
            norm.bias,
        )
    return FusedConvolution(convolution, run.relu)


def _replace(traced: fx.GraphModule, run: _Run, fused: FusedConvolution, name: str) -> None:
    traced.add_submodule(name, fused)
    first, last = run.nodes[0], run.nodes[-1]
    inputs = first.args if run.addend is None else (*first.args, run.addend)
    with traced.graph.inserting_before(last):
        new = traced.graph.call_module(name, inputs)
    new.meta = last.meta
    last.replace_all_uses_with(new)
    for node in reversed(run.nodes):
        traced.graph.erase_node(node)


def _module(traced: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    """Find the module that a node calls."""
    calls = node is not None and node.op == "call_module"
    return traced.get_submodule(str(node.target)) if calls and node is not None else None


def _only_user(node: fx.Node | None) -> fx.Node | None:
    return next(iter(node.users)) if node is not None and len(node.users) == 1 else None


def _folds(norm: nn.Module | None, convolution: nn.Conv2d) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.track_running_stats
        and norm.num_features == convolution.out_channels
        and not _is_watched(norm)
    )


def _addend(node: fx.Node) -> fx.Node | None:
    """Find what is added to the result of a node, if it has the same shape."""
    user = _only_user(node)
    if user is None or user.op != "call_function" or user.target not in _ADD or user.kwargs:
        return None
    others = [other for other in user.args if other is not node]
    # An addend that is added to in place changes for all who read it.
    changed = user.target is operator.iadd and user.args[0] is not node
    if len(others) != 1 or not isinstance(others[0], fx.Node) or changed:
        return None
    shapes = [getattr(n.meta.get("tensor_meta"), "shape", None) for n in (node, others[0])]
    return others[0] if shapes[0] is not None and shapes[0] == shapes[1] else None


def _is_relu(traced: fx.GraphModule, node: fx.Node | None) -> bool:
    if node is None:
        return False
    module = _module(traced, node)
    if module is not None:
        return type(module) is nn.ReLU and not _is_watched(module)
    return node.op == "call_function" and node.target in _RELU


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _same(maps: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(_agree(a, b) for a, b in zip(maps, others, strict=True))


def _agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    largest = a.abs().max()
    # Maps that are not finite cannot be compared.
    return bool(largest.isfinite() and (a - b).abs().max() <= _AGREE * largest)


def _maps(body: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    maps = body(image)
    return list(maps.values()) if isinstance(maps, dict) else list(maps)
