"""From a network of torch's to an ONNX model that takes the canvas as it is stored."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from skad._common.forks import LOADING
from skad._common.text import shortened

# The oldest set of operators that holds all that is used; runtimes of the last years know it.
_OPSET = 18
# Models are one message of Protocol Buffers, which ends here.
_LARGEST = 2**31 - 1


def to_onnx(network: nn.Module, canvas: tuple[int, int], takes_content: bool) -> Any:
    """Make an ONNX model of a network that scores images.

    Parameters
    ----------
    network : torch.nn.Module
        Maps pixels (B, H, W, 3), float32 in 0..1, and, if `takes_content`, the (B, 4) places of the
        images to scores, verdicts, maps and perhaps p-values.
    canvas : tuple of two ints
    takes_content : bool

    Returns
    -------
    onnx.ModelProto
        Takes ``canvas`` (B, H, W, 3), uint8, any B; ``content`` (B, 4), int64, if `takes_content`; and
        ``fractions``, float32 in 0..1, which is added: images of more than 8 bits go there, beside a
        black canvas. Left out, it is 0.

    Raises
    ------
    ValueError
        If an exporter does not know what the network does, or the model is too large for ONNX.
    """
    pixels = torch.zeros((2, *canvas, 3))
    inputs: tuple[torch.Tensor, ...] = (pixels,)
    if takes_content:
        inputs = (pixels, torch.tensor([[0, canvas[0], 0, canvas[1]]] * 2))
    n_bytes = sum(t.numel() * t.element_size() for t in _tensors(network))
    if n_bytes > 0.95 * _LARGEST:
        raise ValueError(
            f"network and memory bank take {n_bytes / 1e9:.2f} GB, and a file of ONNX holds 2 GB at "
            "most: fit with a smaller coreset_size."
        )
    batch = torch.export.Dim("batch", min=1, max=2**16)
    with LOADING, quiet():
        try:
            program: Any = torch.onnx.export(
                network.eval(),
                inputs,
                dynamo=True,
                opset_version=_OPSET,
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                input_names=["pixels", "content"][: len(inputs)],
                output_names=["score", "verdict", "map", "p_value"],
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # whatever an exporter raises at what it does not know
            raise ValueError(
                "this network cannot be written as ONNX: "
                f"{type(error).__name__}: {shortened(' '.join(str(error).split()), 400)}"
            ) from error
    return _taking_bytes(program.model_proto, canvas)


def _tensors(network: nn.Module) -> Iterator[torch.Tensor]:
    yield from network.parameters()
    yield from network.buffers()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters print and warn of their own affairs from the user."""
    # The first is the root of all, to which the quantiser speaks.
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _taking_bytes(model: Any, canvas: tuple[int, int]) -> Any:
    """Put before a model what makes numbers of bytes."""
    with LOADING:
        import onnx
        from onnx import TensorProto, helper

    graph = model.graph
    shape: list[Any] = ["batch", *canvas, 3]
    graph.input.remove(next(one for one in graph.input if one.name == "pixels"))
    graph.input.insert(0, helper.make_tensor_value_info("canvas", TensorProto.UINT8, shape))
    # A default value makes an input optional.
    fractions = helper.make_tensor_value_info("fractions", TensorProto.FLOAT, ["b", "h", "w", "c"])
    graph.input.append(fractions)
    graph.initializer.extend(
        [
            helper.make_tensor("fractions", TensorProto.FLOAT, [1, 1, 1, 1], [0.0]),
            helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        ]
    )
    nodes = [
        helper.make_node("Cast", ["canvas"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "white"], ["of_bytes"]),
        helper.make_node("Add", ["of_bytes", "fractions"], ["pixels"]),
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    for one in [*graph.node, *graph.value_info]:  # names of files and lines of this machine
        del one.metadata_props[:]
        one.doc_string = ""
    del graph.metadata_props[:]
    del model.metadata_props[:]
    graph.name, model.doc_string = "skad", ""
    onnx.checker.check_model(model)
    return model
