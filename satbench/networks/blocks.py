"""The residual blocks of He et al., 2016, arXiv:1512.03385, with any activation at each site."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class BasicBlock(nn.Module):
    """conv3×3, norm, act, conv3×3, norm, plus the shortcut, act.  The first convolution strides.

    Weights are named as in the CIFAR ResNets of the adversarial training literature.
    """

    expansion = 1

    def __init__(
        self,
        inputs: int,
        planes: int,
        stride: int,
        activation: Activation,
        shortcut: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.act1 = activation()
        self.conv2 = convolution(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = projection(inputs, planes, stride) if shortcut is None else shortcut
        self.act2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, planes, H / stride, W / stride)."""
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        result: Tensor = self.act2(out + self.shortcut(x))
        return result


class Bottleneck(nn.Module):
    """conv1×1, norm, act, conv3×3, norm, act, conv1×1, norm, plus the shortcut, act.

    The 3×3 convolution strides.  Weights are named as in `BasicBlock`.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, activation: Activation) -> None:
        super().__init__()
        outputs = self.expansion * planes
        self.conv1 = convolution(inputs, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.act1 = activation()
        self.conv2 = convolution(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.act2 = activation()
        self.conv3 = convolution(planes, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = projection(inputs, outputs, stride)
        self.act3 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 planes, H / stride, W / stride)."""
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.act2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.act3(out + self.shortcut(x))
        return result


def stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    planes: int,
    blocks: int,
    stride: int,
    activation: Activation,
) -> nn.Sequential:
    """Return a chain of blocks of which the first strides and changes the number of channels."""
    outputs = block.expansion * planes
    first = block(inputs, planes, stride, activation)
    return nn.Sequential(first, *(block(outputs, planes, 1, activation) for _ in range(blocks - 1)))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size, apart from its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the shortcut: the identity, or a 1×1 convolution and norm if the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def zero_last_gammas(net: nn.Module) -> None:
    """Set γ = 0 in the last batch-norm of each block, so that a block starts as its shortcut.

    Goyal et al., 2017, arXiv:1706.02677, section 5.1; the code of Xie et al., 2020,
    arXiv:2006.14536 does so too.
    """
    for module in net.modules():
        if isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
