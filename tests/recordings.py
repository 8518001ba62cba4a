"""What a function that a GPU records must not do, checked on the CPU; see `skad._torch.cuda_graphs`."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_QUESTIONS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}


class NoQuestions(TorchDispatchMode):
    """Context in which an operation whose result the host would wait for is an error."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        asks = masks or func in _QUESTIONS
        assert not asks, f"{func} asks the device"
        return func(*args, **(kwargs or {}))


def addresses(network, *optimizers):
    """Memory of parameters and buffers of networks, and of moments and rates of optimisers."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for optimizer in optimizers:
        for i, moments in enumerate(optimizer.state.values()):
            tensors.update({f"{i}.{name}": value for name, value in moments.items()})
        for i, group in enumerate(optimizer.param_groups):
            tensors[f"{i}.lr"] = group["lr"]
    return {name: x.data_ptr() for name, x in tensors.items() if isinstance(x, torch.Tensor)}
