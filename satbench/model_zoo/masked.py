"""Models that look robust and are not: one standard-trained net behind five kinds of masking.

Each factory wraps the shipped net `fmnist-standard-tiny-relu-s0`, which any attack breaks, so that
white-box gradients find little or nothing (Athalye, Carlini & Wagner, 2018, "Obfuscated gradients
give a false sense of security", arXiv:1802.00420).  They are there to try attacks and the
diagnosis on: `satbench eval --model satbench.model_zoo.masked:rounding --dataset fashion-mnist
--eps 0.1`.  Whoever calls one of these models robust has not attacked it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.model_zoo.card import weights_path, zoo_card
from satbench.model_zoo.weights import load_weights
from satbench.networks.build import build_network

WRAPPED = "fmnist-standard-tiny-relu-s0"
"""The name of the net that is masked."""


def hard_labels() -> nn.Module:
    """Mask by answering with only the predicted class: every gradient is exactly 0."""
    return HardLabels(_standard_net()).eval()


def rounding() -> nn.Module:
    """Mask by rounding the pixels to a few grey levels: every gradient is exactly 0.

    >>> import torch
    >>> x = torch.rand(2, 1, 28, 28).requires_grad_()
    >>> rounding()(x).sum().backward()
    >>> float(x.grad.abs().max())
    0.0
    """
    return Rounding(_standard_net()).eval()


def saturated() -> nn.Module:
    """Mask by large logits: the cross-entropy is 0 in float32, and so is its gradient."""
    return Saturated(_standard_net()).eval()


def noisy() -> nn.Module:
    """Mask by fresh noise in every forward: an answer seen once need not come again."""
    return Noisy(_standard_net()).eval()


def detached() -> nn.Module:
    """Mask by a gradient that belongs to another, hardly heard branch of the model."""
    return Detached(_standard_net()).eval()


class HardLabels(nn.Module):
    """`confidence` for the predicted class, 0 for the others.  (B, C, H, W) -> (B, K)."""

    def __init__(self, net: nn.Module, confidence: float = 10.0) -> None:
        super().__init__()
        self.net, self.confidence = net, confidence

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        labels = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        return self.confidence * labels + 0 * logits  # a path to the pixels, whose slope is 0


class Rounding(nn.Module):
    """Pixels rounded to `levels` grey levels, then the net.  (B, C, H, W) -> (B, K)."""

    def __init__(self, net: nn.Module, levels: int = 8) -> None:
        super().__init__()
        self.round, self.net = GreyLevels(levels), net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.round(x))
        return logits


class GreyLevels(nn.Module):
    """The nearest of `levels` equally spaced values in [0, 1], pixel by pixel."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        steps = self.levels - 1
        return (steps * x).round() / steps


class Saturated(nn.Module):
    """The net's logits times `scale`.  (B, C, H, W) -> (B, K)."""

    def __init__(self, net: nn.Module, scale: float = 1e4) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return self.scale * logits


class Noisy(nn.Module):
    """The net on pixels with Gaussian noise of standard deviation `sigma`, drawn in each forward.

    The noise comes from torch's global generator.  (B, C, H, W) -> (B, K).
    """

    def __init__(self, net: nn.Module, sigma: float = 0.1) -> None:
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x + self.sigma * torch.randn_like(x))
        return logits


class Detached(nn.Module):
    """The net's logits without their gradient, plus `weight` times those for shuffled pixels.

    Only the second branch has a gradient.  It sees the pixels in a fixed other order, so what
    raises its loss is noise to the first.  (B, C, H, W) -> (B, K).
    """

    order: Tensor

    def __init__(self, net: nn.Module, weight: float = 1e-3, pixels: int = 28 * 28) -> None:
        super().__init__()
        self.net, self.weight = net, weight
        order = torch.randperm(pixels, generator=torch.Generator().manual_seed(0))
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.detach())
        shuffled: Tensor = self.net(x.flatten(2)[:, :, self.order].view_as(x))
        return logits + self.weight * shuffled


def _standard_net() -> nn.Module:
    card = zoo_card(WRAPPED)
    with torch.random.fork_rng(devices=[]):  # the initial weights, drawn in vain
        net = build_network(card.architecture, card.activation, card.classes)
    load_weights(net, weights_path(card))
    return net
