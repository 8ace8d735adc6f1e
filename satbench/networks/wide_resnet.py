"""Wide residual networks for 32×32 images.

Zagoruyko & Komodakis, 2016, arXiv:1605.07146; in the form of TRADES (Zhang et al., 2019,
arXiv:1901.08573), which most papers on adversarial training use.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.networks.blocks import Activation, convolution
from satbench.networks.normalize import Statistics, normalize


@dataclass(frozen=True)
class WideResNet:
    """WRN-depth-widen: three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times widen channels.

    `dropout` is the rate between the two convolutions of a block.  Weights are named as in the code
    of TRADES, whose checkpoints also have a `sub_block1` that no forward pass uses and that the
    preset `trades` leaves out.  Differs from Gowal et al., 2020, arXiv:2010.03593, whose WRN-70-16
    has other padding and names.
    """

    depth: int = 28
    widen: int = 10
    dropout: float = 0.0
    statistics: Statistics = "cifar10"

    def __post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise SatbenchError(
                f"wide-resnet: expected a depth of 6n + 4 such as 28, 34 or 70, got {self.depth}"
            )
        if self.widen < 1:
            raise SatbenchError(f"wide-resnet: expected widen of 1 or more, got {self.widen}")
        if not 0 <= self.dropout < 1:
            raise SatbenchError(f"wide-resnet: expected dropout in [0, 1), got {self.dropout:g}")

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 3, H, W) in [0, 1] -> (B, classes) logits."""
        channels = [16, 16 * self.widen, 32 * self.widen, 64 * self.widen]
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            normalize=normalize(self.statistics), conv1=convolution(3, channels[0], 3)
        )
        for number in (1, 2, 3):
            inputs, outputs = channels[number - 1 : number + 1]
            layer = nn.Sequential(
                *(
                    _WideBlock(
                        inputs if block == 0 else outputs,
                        outputs,
                        2 if block == 0 and number > 1 else 1,
                        self.dropout,
                        activation,
                    )
                    for block in range((self.depth - 4) // 6)
                )
            )
            parts[f"block{number}"] = nn.Sequential(OrderedDict(layer=layer))
        parts["bn1"] = nn.BatchNorm2d(channels[3])
        parts["act"] = activation()
        parts["pool"] = nn.AdaptiveAvgPool2d(1)
        parts["flatten"] = nn.Flatten()
        parts["fc"] = nn.Linear(channels[3], classes)
        net = nn.Sequential(parts)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        return net


class _WideBlock(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, stride: int, dropout: float, activation: Activation
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = activation()
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = activation()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = convolution(outputs, outputs, 3)
        changes = stride != 1 or inputs != outputs
        self.convShortcut = convolution(inputs, outputs, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.bn1(x))
        if self.convShortcut is not None:
            x = self.convShortcut(active)
        out: Tensor = self.conv2(self.dropout(self.act2(self.bn2(self.conv1(active)))))
        return out + x
