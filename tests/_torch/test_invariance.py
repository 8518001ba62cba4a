"""Results that do not depend on what else is in the batch."""

import numpy as np
import pytest
import torch

from skad._torch.invariance import BatchInvariant

CPU = torch.device("cpu")


def sums(pixels):
    return (torch.from_numpy(pixels.astype(np.float32)).sum(dim=(1, 2)), torch.ones(len(pixels)))


def of_the_company(pixels):
    """A function that rounds by the size of the batch."""
    total, ones = sums(pixels)
    return total + (1e-3 if len(pixels) > 1 else 0), ones


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)


class Counting:
    def __init__(self, function):
        self.function, self.sizes = function, []

    def __call__(self, pixels):
        self.sizes.append(len(pixels))
        return self.function(pixels)


def test_an_invariant_function_is_tried_out_once_a_size(pixels):
    counting = Counting(sums)
    invariant = BatchInvariant(counting, CPU)
    for _ in range(3):
        assert all(map(torch.equal, invariant(pixels), sums(pixels)))
    assert counting.sizes == [1] * 5 + [5] + [5] + [5]
    invariant(pixels[:2])
    assert counting.sizes[-3:] == [1, 1, 2]


def test_another_one_works_image_by_image(pixels):
    counting = Counting(of_the_company)
    invariant = BatchInvariant(counting, CPU)
    for _ in range(2):
        assert all(map(torch.equal, invariant(pixels), sums(pixels)))
    assert counting.sizes == [1] * 5 + [5] + [1] * 5


def test_one_image_needs_no_trial(pixels):
    counting = Counting(of_the_company)
    BatchInvariant(counting, CPU)(pixels[:1])
    assert counting.sizes == [1]


def test_other_devices_take_batches_as_they_come(pixels):
    counting = Counting(of_the_company)
    BatchInvariant(counting, torch.device("meta"))(pixels)
    assert counting.sizes == [5]
