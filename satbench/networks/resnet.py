"""ResNets and ResNeXts for ImageNet: torchvision's networks with any activation at each site.

He et al., 2016, arXiv:1512.03385; Xie et al., 2017, arXiv:1611.05431.  As in the code of Xie et
al., 2020, arXiv:2006.14536: the 3×3 convolution of a bottleneck strides, the last γ of each block
starts at 0, the last layer at N(0, 0.01), convolutions at He's fan-out, and the activation is
replaced everywhere: after the stem, within the blocks, and after each sum.  Only the max-pooling is
padded differently in TensorFlow; `padding=tensorflow` pads it so.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models import resnet

from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.specs import later
from satbench.networks.blocks import Activation
from satbench.networks.normalize import Statistics, normalize
from satbench.networks.same_padding import Padding, SameMaxPool

_LAYERS = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}


@dataclass(frozen=True)
class ResNet:
    """A ResNet of 18, 34, 50, 101 or 152 layers, for images of about 224×224.

    Its weights are named as torchvision's, so those load next to `normalize.mean` and
    `normalize.std`; torchvision's own were trained with `statistics=imagenet`.
    """

    depth: int = 50
    statistics: Statistics = "sat"
    padding: Padding = later("torch")  # noqa: RUF009 (a text)

    def __post_init__(self) -> None:
        _check_depth("resnet", self.depth, tuple(_LAYERS))

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 3, H, W) in [0, 1] -> (B, classes) logits."""
        net = _ResNet(self.depth, 1, 64, classes, self.statistics, activation)
        return _padded(net, self.padding)


@dataclass(frozen=True)
class ResNeXt:
    """A ResNeXt of 50, 101 or 152 layers, for images of about 224×224; by default 32x4d.

    `groups` is the number of groups of a 3×3 convolution, `width` their channels in the first
    stage.  Weights are named as in `ResNet`.
    """

    depth: int = 50
    groups: int = 32
    width: int = 4
    statistics: Statistics = "sat"
    padding: Padding = later("torch")  # noqa: RUF009 (a text)

    def __post_init__(self) -> None:
        _check_depth("resnext", self.depth, (50, 101, 152))
        check_at_least_one("resnext", self, "groups", "width")

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 3, H, W) in [0, 1] -> (B, classes) logits."""
        net = _ResNet(self.depth, self.groups, self.width, classes, self.statistics, activation)
        return _padded(net, self.padding)


class _BasicBlock(resnet.BasicBlock):  # type: ignore[misc]
    def activate(self, activation: Activation) -> None:
        del self.relu
        self.act1, self.act2 = activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        result: Tensor = self.act2(out + (x if self.downsample is None else self.downsample(x)))
        return result


class _Bottleneck(resnet.Bottleneck):  # type: ignore[misc]
    def activate(self, activation: Activation) -> None:
        del self.relu
        self.act1, self.act2, self.act3 = activation(), activation(), activation()

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.act2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.act3(out + (x if self.downsample is None else self.downsample(x)))
        return result


class _ResNet(resnet.ResNet):  # type: ignore[misc]
    def __init__(
        self,
        depth: int,
        groups: int,
        width: int,
        classes: int,
        statistics: Statistics,
        activation: Activation,
    ) -> None:
        super().__init__(
            _BasicBlock if depth < 50 else _Bottleneck,
            _LAYERS[depth],
            num_classes=classes,
            zero_init_residual=True,
            groups=groups,
            width_per_group=width,
        )
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)
        self.relu = activation()
        for block in list(self.modules()):
            if isinstance(block, _BasicBlock | _Bottleneck):
                block.activate(activation)
        self.normalize = normalize(statistics)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(self.normalize(x))
        return logits


def _padded(net: _ResNet, padding: Padding) -> nn.Module:
    if padding == "tensorflow":
        setattr(net, "maxpool", SameMaxPool())  # noqa: B010 (torchvision says MaxPool2d)
    return net


def _check_depth(name: str, depth: int, known: tuple[int, ...]) -> None:
    if depth not in known:
        raise SatbenchError(
            f"{name}: expected a depth of {', '.join(map(str, known))}, got {depth}"
        )
