"""Augmentation of small images on the device, as a function of (seed, epoch, image)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from satbench.core.noise import generator_for


@dataclass(frozen=True)
class Augmentation:
    """A random horizontal flip and, for `crop-flip`, a random crop of the zero-padded image.

    Both are standard for CIFAR, with padding of 4 pixels (He et al., 2016, arXiv:1512.03385,
    section 4.2).  The result depends only on (seed, epoch, index of the image), so that a resumed
    run is the same and a batch may be split.
    """

    kind: Literal["none", "flip", "crop-flip"]
    padding: int
    seed: int

    def draws(self, epoch: int, n: int) -> NDArray[np.int64]:
        """Draw for n images the row and column of the crop and the flip.  (N, 3)."""
        generator = generator_for(self.seed, "augmentation", epoch)
        highest = 2 * self.padding + 1
        drawn = generator.integers(0, (highest, highest, 2), (n, 3))
        if self.kind == "flip":
            drawn[:, :2] = self.padding
        return drawn

    def __call__(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Crop and flip each image by its draws.  (B, C, H, W), (B, 3) -> (B, C, H, W)."""
        if self.kind == "none":
            return x
        batch, channels, height, width = x.shape
        framed = F.pad(x, (self.padding,) * 4)
        across = torch.arange(width, device=x.device)
        rows = drawn[:, 0, None] + torch.arange(height, device=x.device)
        columns = drawn[:, 1, None] + torch.where(drawn[:, 2, None] == 1, across.flip(0), across)
        images = torch.arange(batch, device=x.device).view(-1, 1, 1, 1)
        planes = torch.arange(channels, device=x.device).view(1, -1, 1, 1)
        return framed[images, planes, rows[:, None, :, None], columns[:, None, None, :]]
