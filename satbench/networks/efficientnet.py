"""EfficientNet: torchvision's network with any activation at each site.

Tan & Le, 2019, arXiv:1905.11946; L1 is the largest of Xie et al., 2020, arXiv:2006.14536, section
5.2.  As in their code: batch-norm with momentum 0.9 (0.1 in torch's notation) and ε 1e-5, drop path
up to 0.2, and the activation is replaced everywhere, also between the two layers of a
squeeze-and-excitation, whose gate is still a sigmoid.  Differs from it: strided convolutions pad
both sides equally, as in torchvision; `padding=tensorflow` pads the far side more, as in
TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torchvision.models import efficientnet

from satbench.core.specs import later
from satbench.networks.blocks import Activation
from satbench.networks.normalize import Statistics, normalize
from satbench.networks.same_padding import Padding, pad_strided_convolutions

_STAGES = (
    # expansion, kernel, stride, channels in, channels out, layers: Table 1 of Tan & Le
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)

_SCALES = {
    # width, depth, resolution, dropout: the code of Xie et al., 2020
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "l1": (3.9, 3.7, 600, 0.5),
}

_DROP_PATH = 0.2


@dataclass(frozen=True)
class EfficientNet:
    """EfficientNet-B0…B7 or L1, for images of `resolution` × `resolution`.

    Its weights are named as torchvision's, so those load next to `normalize.mean` and
    `normalize.std`; torchvision's own were trained with `statistics=imagenet`, and those of B5 to
    B7 with ε 1e-3 in the batch-norms, so their logits would differ slightly here.
    """

    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "l1"] = "b0"
    statistics: Statistics = "sat"
    padding: Padding = later("torch")  # noqa: RUF009 (a text)

    @property
    def resolution(self) -> int:
        """Height and width in pixels of the images that the variant is made for."""
        return _SCALES[self.variant][2]

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 3, H, W) in [0, 1] -> (B, classes) logits."""
        net = _EfficientNet(self.variant, classes, self.statistics, activation)
        if self.padding == "tensorflow":
            pad_strided_convolutions(net)
        return net


class _EfficientNet(efficientnet.EfficientNet):  # type: ignore[misc]
    def __init__(
        self, variant: str, classes: int, statistics: Statistics, activation: Activation
    ) -> None:
        width, depth, _, dropout = _SCALES[variant]
        super().__init__(
            [
                efficientnet.MBConvConfig(*stage, width_mult=width, depth_mult=depth)
                for stage in _STAGES
            ],
            dropout,
            _DROP_PATH,
            num_classes=classes,
        )
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.SiLU):
                    setattr(module, name, activation())
        self.normalize = normalize(statistics)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(self.normalize(x))
        return logits
