"""TensorFlow's `SAME` padding, which depends on the size of the image if a layer strides.

A layer of kernel k and stride s turns n pixels into ⌈n/s⌉.  For s ≤ k it pads k - 1 - (n - 1) mod s
pixels, the odd one at the far side. torch pads both sides equally, so that its windows are shifted
by one pixel in an image of even size.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["torch", "tensorflow"]
"""The program whose padding strided layers use."""


class SamePad(nn.Module):
    """Pad images with zeros for a strided layer with a square kernel and no padding.

    `stride` is at most `kernel`.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        rows = self.kernel - 1 - (x.shape[-2] - 1) % self.stride
        columns = self.kernel - 1 - (x.shape[-1] - 1) % self.stride
        sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return F.pad(x, sides)

    def extra_repr(self) -> str:
        """Show the layer that it pads for."""
        return f"kernel={self.kernel}, stride={self.stride}"


class SameMaxPool(nn.Module):
    """Max-pooling of kernel 3 and stride 2; pixels outside of the image do not count."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ⌈H/2⌉, ⌈W/2⌉)."""
        # An odd size is padded by one pixel on both sides, an even one on the far side, as
        # ceil_mode does.
        odd = (x.shape[-2] % 2, x.shape[-1] % 2)
        return F.max_pool2d(x, 3, 2, odd, ceil_mode=True)


def pad_strided_convolutions(network: nn.Module) -> None:
    """Make the strided convolutions of a torchvision network pad as in TensorFlow.

    Each is the first layer of a `Sequential`; the names of its weights do not change.
    """
    for chain in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        first = chain[0]
        if isinstance(first, nn.Conv2d) and first.stride != (1, 1):
            layers = dict(chain.named_children())
            kernel, stride = first.kernel_size[0], first.stride[0]
            first.padding = (0, 0)
            chain._modules.clear()
            chain._modules.update({"pad": SamePad(kernel, stride), **layers})
