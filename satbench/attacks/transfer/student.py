"""A small smooth student: a convolutional net that learns to predict another model's labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.core.threat import Threat
from satbench.engine.ball import project, steepest
from satbench.engine.passes import CountingModel

BATCH = 100
"""Images per training step; with fewer, a step takes all of them."""

_RATE = 0.01  # of Adam at the top of its cycle
_DECAY = 1e-4  # of the weights, decoupled from the gradient


def smooth_net(x: Tensor, classes: int, width: int, seed: int) -> nn.Module:
    """Build a net of four convolutions and SiLU for images like `x`, which give mean and spread.

    The resolution is halved where the image is large enough, at first by making 4 channels of 2×2
    pixels (a strided convolution of few channels is slow): 28 pixels become 7.  Its weights are a
    function of `seed`; torch's global generator does not change.  (N, C, H, W) in [0, 1] -> a
    module (B, C, H, W) -> (B, classes) on the device of `x`.
    """
    channels, size = x.shape[1], min(x.shape[2:])
    first = 2 if size >= 16 and not any(pixels % 2 for pixels in x.shape[2:]) else 1
    second = 2 if size // first >= 12 else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            _Standardise(x),
            nn.PixelUnshuffle(first),
            *_block(channels * first**2, width),
            *_block(width, 2 * width),
            *_block(2 * width, 4 * width, second),
            *_block(4 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, classes),
        )
    return net.to(x.device).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Lesson:
    """The training of a student: `steps` of Adam on batches of images moved by `radius` against it.

    `radius` (pixel units of the threat model's norm; 0 for none) is that of one step of steepest
    ascent: the gradients of a slightly robust student agree better with other models'.
    """

    steps: int
    radius: float
    threat: Threat

    def teach(
        self, student: CountingModel, x: Tensor, labels: Tensor, draws: torch.Generator
    ) -> None:
        """Train `student` on images and the teacher's labels, and freeze it again.

        (N, C, H, W) in [0, 1], (N,) int64; batches are drawn from `draws`.
        """
        student.train().requires_grad_(True)
        optimiser = torch.optim.AdamW(student.parameters(), _RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=self.steps + 1)
        for rows in _batches(len(x), self.steps, draws):
            batch, y = x[rows.to(x.device)], labels[rows.to(x.device)]
            if self.radius:
                batch = self._against(student, batch, y)
            with torch.enable_grad():
                loss = F.cross_entropy(student(batch), y)
                optimiser.zero_grad()
                torch.autograd.backward(loss)
            student.passes.backwards += len(batch)  # of the weights: the pixels need none
            optimiser.step()
            schedule.step()
        student.eval().requires_grad_(False)
        for parameter in student.parameters():
            parameter.grad = None

    def _against(self, student: CountingModel, x: Tensor, y: Tensor) -> Tensor:
        student.eval()
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(student(leaf), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, leaf)
        student.train()
        return project(x + self.radius * steepest(grad, self.threat, x), x, self.threat)


def _batches(n: int, steps: int, draws: torch.Generator) -> list[Tensor]:
    """Take `steps` batches from random orders of all rows, one order after the other."""
    size, rows = min(BATCH, n), torch.empty(0, dtype=torch.int64)
    while len(rows) < steps * size:
        rows = torch.cat((rows, torch.randperm(n, generator=draws)))
    return list(rows[: steps * size].view(steps, size))


class _Standardise(nn.Module):
    """Pixels minus the mean, divided by the standard deviation, per channel of the given images."""

    mean: Tensor
    spread: Tensor

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        over = (0, 2, 3)
        self.register_buffer("mean", x.mean(over).view(-1, 1, 1))
        self.register_buffer("spread", x.std(over, correction=0).clamp_min(0.05).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return (x - self.mean) / self.spread


def _block(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )
