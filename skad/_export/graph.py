"""From a network of torch's to an ONNX model that takes the canvas as it is stored."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from skad._common.forks import LOADING
from skad._common.text import shortened

# The oldest set of operators that holds all that is used; runtimes of the last years know it.
_OPSET = 18
# Models are one message of Protocol Buffers, which ends here.
_LARGEST = 2**31 - 1


class Argument(NamedTuple):
    """What a network takes."""

    name: str
    """"pixels", of which the model takes bytes, or another; perhaps with a number: ``pixels_1``."""
    example: torch.Tensor
    """Of two images; their number is free."""
    counts: str
    """What the first axis counts: arguments of the same have the same number of them."""

    def numbered(self, number: int) -> Argument:
        """Name it as that of one of several networks."""
        return Argument(f"{self.name}_{number}", self.example, f"{self.counts}_{number}")


def of_canvas(canvas: tuple[int, int], takes_content: bool) -> list[Argument]:
    """Return what a network takes that sees a canvas, and perhaps where on it images lie."""
    arguments = [Argument("pixels", torch.zeros((2, *canvas, 3)), "batch")]
    if takes_content:
        places = torch.tensor([[0, canvas[0], 0, canvas[1]]] * 2)
        arguments.append(Argument("content", places, "batch"))
    return arguments


def to_onnx(network: nn.Module, arguments: Sequence[Argument], outputs: Sequence[str]) -> Any:
    """Make an ONNX model of a network that scores images.

    Parameters
    ----------
    network : torch.nn.Module
        Takes pixels (B, H, W, 3), float32 in 0..1, and what else there is.
    arguments : sequence of Argument
    outputs : sequence of str
        Names of what it returns; the last may be missing.

    Returns
    -------
    onnx.ModelProto
        In place of ``pixels`` it takes ``canvas`` (B, H, W, 3), uint8, any B; and ``fractions``, float32
        in 0..1, which is added: images of more than 8 bits go there, beside a black canvas. Left out,
        it is 0.

    Raises
    ------
    ValueError
        If an exporter does not know what the network does, or the model is too large for ONNX.
    """
    n_bytes = sum(t.numel() * t.element_size() for t in _tensors(network))
    if n_bytes > 0.95 * _LARGEST:
        raise ValueError(
            f"network and memory bank take {n_bytes / 1e9:.2f} GB, and a file of ONNX holds 2 GB at "
            "most: fit with a smaller coreset_size."
        )
    free = {
        argument.counts: torch.export.Dim(argument.counts, min=1, max=2**16)
        for argument in arguments
    }
    shapes: Any = tuple({0: free[argument.counts]} for argument in arguments)
    with LOADING, quiet():
        try:
            program: Any = torch.onnx.export(
                _Spread(network).eval(),
                (tuple(argument.example for argument in arguments),),
                dynamo=True,
                opset_version=_OPSET,
                dynamic_shapes=(shapes,),
                input_names=[argument.name for argument in arguments],
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # whatever an exporter raises at what it does not know
            raise ValueError(
                "this network cannot be written as ONNX: "
                f"{type(error).__name__}: {shortened(' '.join(str(error).split()), 400)}"
            ) from error
    return _taking_bytes(program.model_proto, arguments)


class _Spread(nn.Module):
    """Takes all arguments as one: exporters ask for the shapes of each that a function names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return self.network(*given)


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


def _taking_bytes(model: Any, arguments: Sequence[Argument]) -> Any:
    """Put before a model what makes numbers of bytes."""
    with LOADING:
        import onnx
        from onnx import TensorProto, helper

    graph = model.graph
    graph.initializer.append(helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]))
    taken = {one.name: one for one in graph.input}
    del graph.input[:]
    optional, nodes = [], []
    for name, example, counts in arguments:
        if not name.startswith("pixels"):
            graph.input.append(taken[name])
            continue
        suffix = name.removeprefix("pixels")
        canvas, levels, fractions = f"canvas{suffix}", f"levels{suffix}", f"fractions{suffix}"
        shape: list[Any] = [counts, *example.shape[1:]]
        graph.input.append(helper.make_tensor_value_info(canvas, TensorProto.UINT8, shape))
        # A default value makes an input optional.
        axes = [f"{axis}{suffix}" for axis in "bhwc"]
        optional.append(helper.make_tensor_value_info(fractions, TensorProto.FLOAT, axes))
        nothing = helper.make_tensor(fractions, TensorProto.FLOAT, [1, 1, 1, 1], [0.0])
        graph.initializer.append(nothing)
        nodes += [
            helper.make_node("Cast", [canvas], [levels], to=TensorProto.FLOAT),
            helper.make_node("Div", [levels, "white"], [f"of_bytes{suffix}"]),
            helper.make_node("Add", [f"of_bytes{suffix}", fractions], [name]),
        ]
    graph.input.extend(optional)
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
