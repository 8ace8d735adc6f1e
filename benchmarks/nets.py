"""Nets that a benchmark trains for itself, on no board: by activation, recipe and seed.

The same call goes on with a training that was stopped, and finds one that is finished.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import satbench
from satbench.models import describe_module, load_model, request_model
from satbench.networks.build import build_network
from satbench.records.record import ModelInfo

ARCHITECTURE, DATASET, CLASSES = "tiny(width=8)", "fashion-mnist", 10
RECIPES = ("fmnist-sat", "fmnist-pgd2")
ACTIVATIONS = ("elu", "celu(alpha=2)", "celu(alpha=3)", "softplus", "pssilu", "relu", "silu")
LEVELS = 8  # grey values that a net with a rounded input tells apart


class Rounded(nn.Module):
    """A net behind pixels rounded to `levels` grey values, (B, C, H, W) -> (B, K).

    The gradient is that of rounding, 0, so attacks that follow it are blind.  Training goes
    straight through.
    """

    def __init__(self, net: nn.Module, levels: int) -> None:
        super().__init__()
        self.net, self.steps = net, levels - 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        rounded = (x * self.steps).round() / self.steps
        if self.training:
            rounded = x + (rounded - x).detach()
        logits: Tensor = self.net(rounded)
        return logits


@dataclass(frozen=True)
class Net:
    """A net to be trained; `levels` above 0 rounds its input to so many grey values."""

    activation: str
    recipe: str
    seed: int
    levels: int = 0

    @property
    def kind(self) -> str:
        """What groups nets in a table: the activation, or that the input is rounded."""
        return f"{self.activation}, rounded input" if self.levels else self.activation

    @property
    def name(self) -> str:
        """The name of the training's folder."""
        activation = self.activation.translate(str.maketrans("(=", "--", ")"))
        rounded = f"-rounded{self.levels}" if self.levels else ""
        return f"{self.recipe}-{activation}{rounded}-s{self.seed}"


@dataclass(frozen=True)
class Subject:
    """A net under attack, and what groups it in a table."""

    module: nn.Module
    info: ModelInfo
    kind: str


def development_nets(seeds: tuple[int, ...] = (21, 22)) -> list[Net]:
    """Return the nets on which suites are developed: every activation, recipe and seed."""
    plain = [Net(a, r, s) for a in ACTIVATIONS for r in RECIPES for s in seeds]
    return plain + [replace(net, levels=LEVELS) for net in plain if net.activation == "relu"]


def held_out_nets(count: int = 5, first_seed: int = 2000) -> list[Net]:
    """Return nets that no development has seen: of other seeds, the activations in turn."""
    if first_seed < 1000:
        raise SystemExit(f"expected seeds of held-out nets of 1000 or more, got {first_seed}")
    kinds = [("relu", 0), ("elu", 0), ("celu(alpha=2)", 0), ("silu", 0), ("softplus", 0)]
    kinds += [("celu(alpha=3)", 0), ("pssilu", 0), ("relu", LEVELS)]
    return [
        Net(
            kinds[number % len(kinds)][0],
            RECIPES[(number + number // len(kinds)) % 2],
            first_seed + number,
            kinds[number % len(kinds)][1],
        )
        for number in range(count)
    ]


def trained(net: Net, out: Path, **settings: object) -> Subject:
    """Train a net in the folder `out`, or find it there; `settings` change those of the recipe."""
    model: str | nn.Module = ARCHITECTURE
    if net.levels:
        with torch.random.fork_rng():
            torch.manual_seed(net.seed)
            model = Rounded(build_network(ARCHITECTURE, net.activation, CLASSES), net.levels)
    else:
        settings = {**settings, "activation": net.activation}
    done = satbench.train(
        model,
        DATASET,
        net.recipe,
        name=net.name,
        out=out,
        seed=net.seed,
        device="cpu",
        quiet=True,
        **settings,
    )
    if net.levels:
        info = describe_module(done.model, net.name, "python")
        return Subject(done.model, replace(info, activation=net.activation), net.kind)
    loaded = load_model(request_model(str(done.path)), CLASSES)
    return Subject(loaded.module, loaded.info, net.kind)


def shipped(name: str) -> Subject:
    """Return a model that `satbench eval --model` takes."""
    loaded = load_model(request_model(name), CLASSES)
    return Subject(loaded.module, loaded.info, loaded.info.activation)
