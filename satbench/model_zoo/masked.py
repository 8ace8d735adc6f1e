"""Models that look more robust than they are: two shipped nets with masked gradients.

Each factory wraps a net so that white-box gradients find little or nothing (Athalye, Carlini &
Wagner, 2018, "Obfuscated gradients give a false sense of security", arXiv:1802.00420).  The net is
`WRAPPED`, which any attack breaks, or, for the factories named `robust_…`, `ROBUST`, which was
trained against an adversary.  Use them to test attacks, the diagnosis and flags (docs/FLAGS.md):
`satbench eval satbench.model_zoo.masked:rounding --dataset fashion-mnist --eps 0.1`.  The accuracy
under PGD of one of these models is not its robust accuracy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.model_zoo.card import weights_path, zoo_card
from satbench.model_zoo.weights import load_weights
from satbench.networks.build import build_network

WRAPPED = "fmnist-standard-tiny-relu-s0"
"""The name of the net that most factories mask; it was trained without an adversary."""

ROBUST = "fmnist-sat-tiny-silu-s0"
"""The name of the net that the factories named `robust_…` mask."""


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
    """Mask by fresh noise in every forward: the answers to one image differ."""
    return Noisy(_standard_net()).eval()


def detached() -> nn.Module:
    """Mask by the gradient of another branch, which hardly changes the answer."""
    return Detached(_standard_net()).eval()


def robust_hard_labels() -> nn.Module:
    """Mask the robust net by answering with only the predicted class."""
    return HardLabels(_robust_net()).eval()


def robust_rounding() -> nn.Module:
    """Mask the robust net by rounding the pixels."""
    return Rounding(_robust_net()).eval()


def robust_saturated() -> nn.Module:
    """Mask the robust net by large logits."""
    return Saturated(_robust_net()).eval()


def robust_noisy() -> nn.Module:
    """Mask the robust net by fresh noise in every forward."""
    return Noisy(_robust_net()).eval()


def robust_detached() -> nn.Module:
    """Mask the robust net by the gradient of another branch."""
    return Detached(_robust_net()).eval()


def probabilities() -> nn.Module:
    """Mask by probabilities instead of logits: the loss applies a second softmax."""
    return nn.Sequential(_standard_net(), nn.Softmax(1)).eval()


def rounded_logits() -> nn.Module:
    """Mask by logits rounded to whole numbers: every gradient is exactly 0."""
    return RoundedLogits(_standard_net()).eval()


def warm() -> nn.Module:
    """Mask in part by logits 20 times as large: the cross-entropy is 0 for many images."""
    return Saturated(_standard_net(), 20).eval()


def faint_noise() -> nn.Module:
    """Mask weakly, by noise of a fifth of eps."""
    return Noisy(_standard_net(), 0.02).eval()


def partly_hard_labels() -> nn.Module:
    """Mask only dark images: for these the model returns only the predicted class."""
    return PartlyHardLabels(_standard_net()).eval()


class HardLabels(nn.Module):
    """`confidence` for the predicted class, 0 for the others.  (B, C, H, W) -> (B, K)."""

    def __init__(self, net: nn.Module, confidence: float = 10.0) -> None:
        super().__init__()
        self.net, self.confidence = net, confidence

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        labels = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        return self.confidence * labels + 0 * logits  # a path to the pixels, with gradient 0


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

    Only the second branch has a gradient.  It sees the pixels in another fixed order, so a
    perturbation that raises its loss is noise to the first.  (B, C, H, W) -> (B, K).
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


class RoundedLogits(nn.Module):
    """The net's logits, rounded to whole numbers.  (B, C, H, W) -> (B, K)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits.round()


class PartlyHardLabels(nn.Module):
    """Hard labels for images whose mean is below `dark`, else the net.  (B, C, H, W) -> (B, K)."""

    def __init__(self, net: nn.Module, dark: float = 0.3) -> None:
        super().__init__()
        self.net, self.hard, self.dark = net, HardLabels(net), dark

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        is_dark = x.flatten(1).mean(1, keepdim=True) < self.dark
        return torch.where(is_dark, self.hard(x), logits)


def _standard_net() -> nn.Module:
    return _net(WRAPPED)


def _robust_net() -> nn.Module:
    return _net(ROBUST)


def _net(name: str) -> nn.Module:
    card = zoo_card(name)
    with torch.random.fork_rng(devices=[]):  # building the net draws initial weights
        net = build_network(card.architecture, card.activation, card.classes)
    load_weights(net, weights_path(card))
    return net
