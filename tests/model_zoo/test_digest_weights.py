from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from satbench.model_zoo.weights import digest_weights

VALUES = torch.tensor([[0.5, -1.0], [2.0, 0.25]])


class Holds(nn.Module):
    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.register_buffer("held", tensor)


def quantised(values: Tensor) -> Tensor:
    return torch.quantize_per_tensor(values, 0.25, 0, torch.qint8)


def per_channel(values: Tensor) -> Tensor:
    scales, zeros = torch.tensor([0.25, 0.5]), torch.zeros(2, dtype=torch.int64)
    return torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)


CHANGES: list[Callable[[Tensor], Tensor]] = [
    Tensor.bfloat16,
    lambda values: values.to(torch.float8_e5m2),
    lambda values: values.to(torch.complex64),
    Tensor.to_sparse,
    quantised,
    per_channel,
]
EVERY = pytest.mark.parametrize(
    "change", CHANGES, ids=["bfloat16", "float8", "complex", "sparse", "quantised", "channels"]
)


@EVERY
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_weights_that_numpy_does_not_know_have_a_digest_of_their_contents(
    change: Callable[[Tensor], Tensor],
) -> None:
    one, same, other = (
        Holds(change(values)) for values in (VALUES, VALUES.clone(), VALUES.flip(0))
    )

    assert digest_weights(one) == digest_weights(same) != digest_weights(other)


def test_the_same_bits_of_another_dtype_are_other_weights() -> None:
    coarse = VALUES.bfloat16()

    assert digest_weights(Holds(coarse)) != digest_weights(Holds(coarse.view(torch.uint8)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*quantize:UserWarning")
def test_what_a_quantised_layer_packs_is_part_of_the_digest() -> None:
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    net = nn.Sequential(nn.Linear(2, 2))
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight.neg_()
    digests = {
        digest_weights(torch.ao.quantization.quantize_dynamic(one, {nn.Linear}, torch.qint8))
        for one in (net, copy.deepcopy(net), other)
    }

    assert len(digests) == 2
