"""The modifications of transfer attacks: their names and their code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.threat import Threat
from satbench.engine.contract import Model, NoiseSource

NAMES = ("mi", "ni", "di", "ti", "si", "vmi", "pgd")
"""The modifications, in canonical order."""

DI_DRAWS = 1  # the restart number of DI's random numbers; 0 is the random start's
NEIGHBOUR_DRAWS = 2  # that of the first of VMI's neighbours

_DEVIATIONS = 3.0  # at which TI's kernel is cut off (arXiv:1904.02884, official code)
_TINY = 1e-12

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A set of modifications, written `mi+di+ti` in the order of `NAMES`.

    `pgd` means none of them, from a random start, so it is not combined.  `ni` and `vmi` include
    momentum, as in their papers, so `mi` next to them changes nothing and is left out.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in NAMES:
                raise UnknownNameError("method of transfer", name, NAMES)
        if not self.names or len(set(self.names)) < len(self.names):
            raise SatbenchError(
                f"transfer(method=…): expected different names joined by +, such as mi+di+ti, "
                f"got {'+'.join(self.names)!r}"
            )
        if "pgd" in self.names and len(self.names) > 1:
            raise SatbenchError(
                f"transfer(method=…): pgd cannot be combined, got {'+'.join(self.names)!r}"
            )
        kept = tuple(n for n in NAMES if n in self.names and not (n == "mi" and self._implies_mi))
        object.__setattr__(self, "names", kept)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `mi+di+ti`, in any order.  Raises SatbenchError."""
        return cls(tuple(part.strip() for part in text.split("+")))

    def __str__(self) -> str:
        return "+".join(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @property
    def has_momentum(self) -> bool:
        """Whether gradients are accumulated."""
        return "mi" in self.names or self._implies_mi

    @property
    def _implies_mi(self) -> bool:
        return "ni" in self.names or "vmi" in self.names


def input_gradient(model: Model, x_adv: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return the gradient of each image's own loss at `x_adv`: one forward, one backward.

    (B, C, H, W), (B,) -> (B, C, H, W).
    """
    at = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        # Summed, so that no image's gradient depends on the size of its batch.
        total = loss(model(at), y).sum()
    (grad,) = torch.autograd.grad(total, at)
    return grad


def spread(threat: Threat, x: Tensor) -> float:
    """Return d^(-1/p), so that a perturbation of |pixel| = eps · d^(-1/p) has size eps in Lp.

    1 in Linf, for which the papers state their distances; d is the number of pixels.
    """
    order = {"linf": np.inf, "l2": 2.0, "l1": 1.0}[threat.norm]
    return float(x[0].numel() ** (-1 / order))


def normalise(grad: Tensor) -> Tensor:
    """Divide by the mean absolute value, which is the L1 norm up to a constant.

    Momentum adds gradients up after this (Dong et al., 2018, arXiv:1710.06081, equation 6).
    (B, …) -> (B, …).
    """
    means = grad.abs().flatten(1).mean(1).clamp_min(_TINY)
    return grad / means.view(-1, *[1] * (grad.dim() - 1))


def gaussian_kernel(size: int) -> Tensor:
    """Return a Gaussian over `size` pixels, cut off at 3 standard deviations, of sum 1.  (size,).

    The 2-D kernel of Dong et al., 2019 (arXiv:1904.02884, section 3.3), is its outer product.
    """
    x = torch.linspace(-_DEVIATIONS, _DEVIATIONS, size) if size > 1 else torch.zeros(1)
    weights = (-x.square() / 2).exp()
    return weights / weights.sum()


def smooth(grad: Tensor, size: int) -> Tensor:
    """Convolve every channel with the Gaussian of `size` × `size` pixels, zero beyond the edges.

    Dong et al., 2019, arXiv:1904.02884, equation 8.  (B, C, H, W) -> (B, C, H, W).
    """
    channels = grad.shape[1]
    kernel = gaussian_kernel(size).to(grad.device, grad.dtype).expand(channels, 1, size)
    down = F.conv2d(grad, kernel[..., None], padding=(size // 2, 0), groups=channels)
    return F.conv2d(down, kernel[:, :, None], padding=(0, size // 2), groups=channels)


def diversify(x: Tensor, draws: Tensor, probability: float, resize: float) -> Tensor:
    """Place each image, with `probability`, smaller at a random place on a black canvas (DI).

    Xie et al., 2019, arXiv:1803.06978, section 3.3: resize to r ∈ [1, resize), pad with zeros to
    `resize` at a random place; then shrink the canvas back, because the model takes one size only.
    Differs from the paper: the three steps are one bilinear sampling with real r and places, so
    that each image draws its own, and small images have more than a few of them.

    (B, C, H, W), (B, 4) in [0, 1) -> (B, C, H, W).
    """
    chosen, ratio, top, left = draws.unbind(1)
    ratio = 1 + (resize - 1) * ratio  # of the image, on a canvas of length `resize`
    rows = _placement(x.shape[2], ratio, top * (resize - ratio), resize).to(x.dtype)
    columns = _placement(x.shape[3], ratio, left * (resize - ratio), resize).to(x.dtype)
    shown = torch.einsum("bui,bcij,bvj->bcuv", rows, x, columns)
    return torch.where((chosen < probability).view(-1, 1, 1, 1), shown, x)


def _placement(size: int, ratio: Tensor, offset: Tensor, resize: float) -> Tensor:
    """Return a bilinear sampling matrix for one axis, 0 beyond the image.  (B,), (B,) -> (B, S, S).

    Row u has the weights of the image's pixels for pixel u of the canvas.  `ratio` and `offset` are
    the image's length and first edge on a canvas of length `resize`.
    """
    pixel = torch.arange(size, device=ratio.device, dtype=ratio.dtype)
    edge = (pixel + 0.5) / size * resize  # of pixel u's middle, on the canvas
    source = (edge - offset[:, None]) / ratio[:, None] * size - 0.5
    return (1 - (source[:, :, None] - pixel).abs()).clamp_min(0)


@dataclass
class Gradient:
    """The gradient of a batch with DI and SI in front of the model, and VMI's neighbours.

    Evaluations are numbered within a step, so that each draws its own numbers: 0 for the point
    itself, 1, 2, … for its neighbours.
    """

    models: tuple[Model, ...]
    loss: Loss
    y: Tensor
    method: Method
    probability: float
    resize: float
    scales: int
    draws: Tensor = field(init=False)
    label: int = field(init=False)

    def __post_init__(self) -> None:
        self.draws = torch.empty(0)
        self.label = int(self.y.max()) if len(self.y) else 0

    def draw(self, x: Tensor, noise: NoiseSource, steps: int, evaluations: int) -> None:
        """Draw the random numbers of DI for a whole run."""
        if "di" in self.method:
            shape = (steps, evaluations, self.copies, 4)
            drawn = (noise.uniform(shape, DI_DRAWS) + 1) / 2
            self.draws = torch.from_numpy(drawn).to(x.device)

    @property
    def copies(self) -> int:
        """How many gradients an evaluation takes."""
        return self.scales if "si" in self.method else 1

    def at(self, x_adv: Tensor, step: int, evaluation: int) -> Tensor:
        """Return the gradient of the loss at `x_adv`.  (B, C, H, W) -> (B, C, H, W).

        SI is the mean over the copies x / 2^i, i = 0 … scales - 1, of the gradient with respect
        to x (Lin et al., 2020, arXiv:1908.06281, equation 9).
        """
        total = torch.zeros_like(x_adv)
        for copy in range(self.copies):

            def shown(x: Tensor, copy: int = copy) -> Tensor:
                if "di" in self.method:
                    draws = self.draws[:, step, evaluation, copy]
                    x = diversify(x, draws, self.probability, self.resize)
                return self._logits(x / 2**copy)

            total += input_gradient(shown, x_adv, self.y, self.loss)
        return total / self.copies

    def _logits(self, x: Tensor) -> Tensor:
        """Return the logits, averaged over the models (Liu et al., 2017, arXiv:1611.02770)."""
        logits = [model(x) for model in self.models]
        least = min(answer.shape[1] for answer in logits)
        if least <= self.label or any(answer.shape[1] != least for answer in logits):
            kinds = " and ".join(str(answer.shape[1]) for answer in logits)
            raise SatbenchError(
                f"expected sources of one number of classes, more than {self.label} (the highest "
                f"label), got {kinds}"
            )
        return torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]
