"""Stripes: vertical stripes of eps whose signs are drawn anew.  Our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from satbench.core.threat import Threat
from satbench.engine.contract import Model, NoiseSource, of_any_batch


@dataclass(frozen=True)
class Stripes:
    """Vertical stripes of eps, with signs drawn anew for each of `tries`."""

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    uses_gradients: ClassVar[bool] = False

    tries: int = 100

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        x_adv = x.clone()
        with torch.no_grad():
            for number in range(self.tries):
                signs = torch.from_numpy(noise.uniform((x.shape[1], 1, x.shape[3]), number)).sign()
                tried = (x + threat.radius * signs.to(x)).clamp(0, 1)
                wrong = model(tried).argmax(1) != y
                x_adv[wrong] = tried[wrong]
        return x_adv
