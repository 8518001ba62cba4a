"""Recordings where there is no GPU: the function itself, and the checks of what may be recorded."""

import pytest
import torch
from recordings import NoQuestions, addresses

from skad._torch.cuda_graphs import CUDAGraphed

CPU = torch.device("cpu")


def test_on_the_cpu_every_call_is_a_call():
    calls = []

    def double(x):
        calls.append(len(x))
        return (2 * x,)

    graphed = CUDAGraphed(double, CPU)
    for n in (1, 2, 2, 2, 2):
        assert graphed(torch.ones(n))[0].tolist() == [2] * n
    assert calls == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "question",
    [torch.Tensor.item, bool, torch.nonzero, lambda x: x[x > 0], lambda x: torch.equal(x, x)],
    ids=["item", "branch", "nonzero", "mask", "equal"],
)
def test_questions_are_found(question):
    with NoQuestions(), pytest.raises(AssertionError, match="asks the device"):
        question(torch.ones(1))


def test_what_moves_is_found():
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).backward()
    optimizer.step()
    before = addresses(layer, optimizer)
    optimizer.step()
    assert addresses(layer, optimizer) == before
    layer.weight = torch.nn.Parameter(torch.ones(1, 2))
    optimizer.state[layer.bias]["exp_avg"] = torch.zeros(1)
    after = addresses(layer, optimizer)
    assert {name for name in before if before[name] != after[name]} == {"weight", "1.exp_avg"}
