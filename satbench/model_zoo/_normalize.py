"""From pixels in [0, 1] to what the first convolution wants: the first layer of every model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, fx, nn

from satbench.core.errors import SatbenchError

Statistics = Literal["imagenet", "cifar10", "cifar100", "sat", "none"]
"""Whose mean and standard deviation a model of colour images normalises by.

`sat` is x -> 2x - 1, as the code of Xie et al., 2020, arXiv:2006.14536, has it; `imagenet` are
torchvision's constants, `cifar10` and `cifar100` those of the pixels of each training set; `none`
leaves the pixels as they are, as TRADES (Zhang et al., 2019, arXiv:1901.08573) does.
"""

_CONSTANTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "sat": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "fashion-mnist": ((0.286,), (0.353,)),
}


class Normalize(nn.Module):
    """(x - mean) / std per channel.  The constants are buffers and travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, H, W).

        Raises SatbenchError for images of another number of channels.
        """
        _check_channels(x, self.mean)
        return (x - self.mean) / self.std


def normalize(statistics: str) -> Normalize:
    """Return the first layer for one of the named statistics."""
    return Normalize(*_CONSTANTS[statistics])


def _check_channels(x: Tensor, mean: Tensor) -> None:
    # Broadcasting would turn grey images into coloured ones and say nothing.
    if x.dim() != 4 or x.shape[1] != len(mean):
        raise SatbenchError(
            f"expected images of shape (N, {len(mean)}, H, W), got shape {tuple(x.shape)}: "
            "this architecture is for images of another kind than the data set's"
        )


fx.wrap("_check_channels")  # a traced graph keeps it as one call, whose answer follows the data
