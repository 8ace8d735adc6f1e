"""Normalisation of pixels in [0, 1]: the first layer of every model."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, fx, nn

from satbench.core.errors import SatbenchError

Statistics = Literal["imagenet", "cifar10", "cifar100", "sat", "none"]
"""The names of means and standard deviations for models of colour images.

`sat` is x -> 2x - 1, as in the code of Xie et al., 2020, arXiv:2006.14536; `imagenet` are
torchvision's constants, `cifar10` and `cifar100` those of the pixels of each training set; `none`
does not change the pixels, as in TRADES (Zhang et al., 2019, arXiv:1901.08573).
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
    """(x - mean) / std per channel. The constants are buffers, saved with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, H, W).

        Raises SatbenchError for images with another number of channels.
        """
        _check_channels(x, self.mean)
        return (x - self.mean) / self.std


def normalize(statistics: str) -> Normalize:
    """Return the first layer for one of the named statistics."""
    return Normalize(*_CONSTANTS[statistics])


def parse_normalize(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read the constants of a normalisation: a name, or `MEAN;STD`, each a number or one a channel.

    >>> parse_normalize("0.5,0.5,0.5;0.25")
    ((0.5, 0.5, 0.5), (0.25,))

    Raises SatbenchError for another form, a deviation of 0 and below, and what is not finite.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    parts = text.split(";")
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in parts)
    except ValueError:
        mean, std = (), ()
    if not mean or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise SatbenchError(
            f"expected a normalisation as {', '.join(_CONSTANTS)} or MEAN;STD such as "
            f"0.5,0.5,0.5;0.25,0.25,0.25, deviations above 0, got {text!r}"
        )
    return mean, std


def set_constants(layer: Normalize, text: str) -> None:
    """Give a layer the constants that `text` gives.

    Raises SatbenchError as `parse_normalize`, and for those of another number of channels.
    """
    mean, std = (_for_channels(values, len(layer.mean)) for values in parse_normalize(text))
    if mean is None or std is None:
        raise SatbenchError(
            f"expected a normalisation of {_channels(len(layer.mean))} for this architecture, got "
            f"{text!r}"
        )
    layer.mean.copy_(mean)
    layer.std.copy_(std)


def normalize_text(layer: Normalize) -> str:
    """Return the text of a layer's constants: the name of known ones, else `MEAN;STD`."""
    for name, known in _CONSTANTS.items():
        pair = (_for_channels(values, len(layer.mean)) for values in known)
        if all(
            values is not None and torch.equal(values, own.cpu())
            for values, own in zip(pair, (layer.mean, layer.std), strict=True)
        ):
            return name
    numbers = (own.flatten().tolist() for own in (layer.mean, layer.std))
    return ";".join(",".join(f"{number:.6g}" for number in own) for own in numbers)


def _for_channels(values: tuple[float, ...], channels: int) -> Tensor | None:
    """Return one number per channel, (C, 1, 1); None if their number does not fit."""
    if len(set(values)) == 1:
        values = values[:1] * channels
    return torch.tensor(values).view(-1, 1, 1) if len(values) == channels else None


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def _check_channels(x: Tensor, mean: Tensor) -> None:
    # Broadcasting would silently turn grey images into coloured ones.
    if x.dim() != 4 or x.shape[1] != len(mean):
        last = x.dim() == 4 and x.shape[3] == len(mean)
        todo = (
            "if the channels come last, write x.permute(0, 3, 1, 2)"
            if last
            else "this architecture is for images of another kind than the data set's"
        )
        raise SatbenchError(
            f"expected images of shape (N, {len(mean)}, H, W), got shape {tuple(x.shape)}: {todo}"
        )


fx.wrap("_check_channels")  # a traced graph has it as one call, whose result depends on the data
