"""ResNets with the activation before the convolution, for 32×32 images.

He et al., 2016, arXiv:1603.05027; in the form of Rice et al., 2020, arXiv:2002.11569.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.networks.blocks import Activation, convolution
from satbench.networks.normalize import Statistics, normalize

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@dataclass(frozen=True)
class PreActResNet:
    """A pre-activation ResNet of 18 or 34 layers with a 3×3 stem.

    `shortcut` is the input of a shortcut that changes the shape: the block's normalised and
    activated input, or the raw input.  `final_norm`: a last batch-norm and activation before the
    pooling.  The defaults are those of Rice et al.; Wong et al., 2020, arXiv:2001.03994, have
    `shortcut=raw`, and in their first published models also `final_norm=false`.  Weights are named
    as in their code; the names do not show the input of a shortcut.
    """

    not_in_weights: ClassVar = ("shortcut",)

    depth: int = 18
    shortcut: Literal["activated", "raw"] = "activated"
    final_norm: bool = True
    statistics: Statistics = "cifar10"

    def __post_init__(self) -> None:
        if self.depth not in _BLOCKS:
            raise SatbenchError(f"preact-resnet: expected a depth of 18 or 34, got {self.depth}")

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 3, H, W) in [0, 1] -> (B, classes) logits."""
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            normalize=normalize(self.statistics), conv1=convolution(3, 64, 3)
        )
        channels, raw = 64, self.shortcut == "raw"
        for number, blocks in enumerate(_BLOCKS[self.depth]):
            planes, stride = 64 * 2**number, 1 if number == 0 else 2
            parts[f"layer{number + 1}"] = nn.Sequential(
                _PreActBlock(channels, planes, stride, raw, activation),
                *(_PreActBlock(planes, planes, 1, raw, activation) for _ in range(blocks - 1)),
            )
            channels = planes
        if self.final_norm:
            parts["bn"], parts["act"] = nn.BatchNorm2d(channels), activation()
        parts["pool"] = nn.AdaptiveAvgPool2d(1)
        parts["flatten"] = nn.Flatten()
        parts["linear"] = nn.Linear(channels, classes)
        return nn.Sequential(parts)


class _PreActBlock(nn.Module):
    def __init__(
        self, inputs: int, planes: int, stride: int, raw: bool, activation: Activation
    ) -> None:
        super().__init__()
        self.raw = raw
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = activation()
        self.conv1 = convolution(inputs, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.act2 = activation()
        self.conv2 = convolution(planes, planes, 3)
        changes = stride != 1 or inputs != planes
        self.shortcut = nn.Sequential(convolution(inputs, planes, 1, stride)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(x if self.raw else active)
        out: Tensor = self.conv2(self.act2(self.bn2(self.conv1(active))))
        return out + x
