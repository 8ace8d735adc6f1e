"""ResNets for 32×32 images: those of the adversarial training literature, and the original.

He et al., 2016, arXiv:1512.03385.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.networks.blocks import Activation, BasicBlock, Bottleneck, convolution, stage
from satbench.networks.normalize import Statistics, normalize

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


@dataclass(frozen=True)
class CifarResNet:
    """An ImageNet ResNet of 18, 34 or 50 layers whose stem is one 3×3 convolution.

    Papers on adversarial training (such as Zhang et al., 2020, arXiv:2002.11242) call this network
    ResNet-18: 64 to 512 channels at 32×32 to 4×4.  Weights are named as in their code.
    """

    depth: int = 18
    statistics: Statistics = "cifar10"

    def __post_init__(self) -> None:
        if self.depth not in _BLOCKS:
            raise SatbenchError(
                f"cifar-resnet: expected a depth of 18, 34 or 50, got {self.depth}; "
                "20, 32, 44, 56 and 110 are of he-cifar-resnet"
            )

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 3, H, W) in [0, 1] -> (B, classes) logits."""
        block = BasicBlock if self.depth < 50 else Bottleneck
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            normalize=normalize(self.statistics),
            conv1=convolution(3, 64, 3),
            bn1=nn.BatchNorm2d(64),
            act1=activation(),
        )
        channels = 64
        for number, blocks in enumerate(_BLOCKS[self.depth]):
            planes, stride = 64 * 2**number, 1 if number == 0 else 2
            parts[f"layer{number + 1}"] = stage(block, channels, planes, blocks, stride, activation)
            channels = block.expansion * planes
        parts["pool"] = nn.AdaptiveAvgPool2d(1)
        parts["flatten"] = nn.Flatten()
        parts["linear"] = nn.Linear(channels, classes)
        return nn.Sequential(parts)


@dataclass(frozen=True)
class HeCifarResNet:
    """The 6n + 2 layers of He et al., section 4.2: 16, 32 and 64 channels, n blocks each.

    Shortcuts that change the shape have no weights (option A): they take every other pixel and
    pad with channels of zeros.
    """

    depth: int = 20
    statistics: Statistics = "cifar10"

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2:
            raise SatbenchError(
                f"he-cifar-resnet: expected a depth of 6n + 2 such as 20, 32 or 56, "
                f"got {self.depth}"
            )

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 3, H, W) in [0, 1] -> (B, classes) logits."""
        blocks = (self.depth - 2) // 6
        net = nn.Sequential(
            OrderedDict(
                normalize=normalize(self.statistics),
                conv1=convolution(3, 16, 3),
                bn1=nn.BatchNorm2d(16),
                act1=activation(),
                layer1=stage(BasicBlock, 16, 16, blocks, 1, activation),
                layer2=_narrowing(16, blocks, activation),
                layer3=_narrowing(32, blocks, activation),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(64, classes),
            )
        )
        for module in net.modules():
            if isinstance(module, nn.Conv2d):  # He et al., 2015, arXiv:1502.01852, equation 10
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return net


def _narrowing(inputs: int, blocks: int, activation: Activation) -> nn.Sequential:
    planes = 2 * inputs
    first = BasicBlock(inputs, planes, 2, activation, OptionA((planes - inputs) // 2))
    rest = stage(BasicBlock, planes, planes, blocks - 1, 1, activation) if blocks > 1 else ()
    return nn.Sequential(first, *rest)


class OptionA(nn.Module):
    """A shortcut of every other pixel, and `padding` channels of zeros on either side."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + 2 padding, H / 2, W / 2)."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
