"""What each trick for speed wins, on something that a user runs: with it and without it, in turns.

A ratio above 1 says how many times the CPU time is without the trick.  Of each pair of calls that
follow each other one ratio is taken; the median and the quartiles are printed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from harness import finish, parser, short

import satbench
from satbench.engine import fast_copy as copies
from satbench.engine import judge
from satbench.engine.machine.ways import FORMS, Way
from satbench.engine.searched import Searched
from satbench.networks.build import build_network

SHIPPED = "fmnist-sat-tiny-relu-s0"


@dataclass(frozen=True)
class Trial:
    """A trick, what is run to see it, and a context in which it is off.

    `make` is called within the context: what runs is made with the trick or without it.
    """

    trick: str
    work: str
    make: Callable[[], Callable[[], object]]
    off: Callable[[], Any]


@contextmanager
def without_space_to_depth() -> Iterator[None]:
    """Leave strided convolutions of images as they are."""
    with patch.object(copies._SpaceToDepth, "suits", staticmethod(lambda conv: False)):
        yield


@contextmanager
def without_channels_first() -> Iterator[None]:
    """Run wide convolutions channels last, as the others."""
    with patch.object(copies, "_WIDE", math.inf):
        yield


@contextmanager
def without_global_average() -> Iterator[None]:
    """Leave global pooling as it is."""
    kept = copies._faster

    def faster(module: nn.Module, channels_last: bool) -> nn.Module | None:
        return None if isinstance(module, nn.AdaptiveAvgPool2d) else kept(module, channels_last)

    with patch.object(copies, "_faster", faster):
        yield


@contextmanager
def without_quick_order() -> Iterator[None]:
    """Sort by torch."""

    def ascending(keys: Tensor) -> Tensor:
        return keys.argsort(dim=1, stable=True)

    with ExitStack() as stack:
        for module in ("attacks.gradient.fab_projections", "attacks.score.square_windows"):
            stack.enter_context(patch(f"satbench.{module}.ascending", ascending))
        yield


@contextmanager
def without_cheap_sums() -> Iterator[None]:
    """Look at every logit at every pass."""

    def without_masks(logits: Tensor) -> Tensor:
        return logits.clamp_min(-1e9)

    def answered(logits: Tensor, x: Tensor) -> Tensor:
        bad = judge.unanswered(logits.detach())
        assert not bool(bad.any())
        return logits

    def settled(logits: Tensor, x: Tensor) -> Tensor:
        return without_masks(answered(searched.in_own_memory(logits, x), x))

    from satbench.engine import passes, searched, toward

    with ExitStack() as stack:
        stack.enter_context(patch.object(searched, "_settled", settled))
        stack.enter_context(patch.object(judge, "answered", answered))
        for module in (passes, toward):
            stack.enter_context(patch.object(module, "without_masks", without_masks))
        yield


def step(
    network: str, batch: int, size: int, activation: str = "silu", form: str = FORMS[0]
) -> Callable[[], object]:
    """Return a forward and an input gradient of a network, as a search asks for them."""
    torch.manual_seed(0)
    model = build_network(network, activation, 10).eval().requires_grad_(False)
    x = torch.rand(batch, 1 if network.startswith("tiny") else 3, size, size)
    searched = Searched(model, way=Way.parse(form))
    searched.get_ready()
    for _ in range(3):  # the copy's proof

        def call() -> object:
            leaf = x.clone().requires_grad_()
            return torch.autograd.grad(searched(leaf).sum(), leaf)

        call()
    return call


def evaluated(attack: str, norm: str, eps: str, images: int) -> Callable[[], object]:
    """Return the evaluation of a shipped model."""

    def call() -> object:
        with TemporaryDirectory() as folder:
            return satbench.evaluate(
                SHIPPED,
                attacks=attack,
                norm=norm,
                eps=eps,
                n_examples=images,
                out=folder,
                device="cpu",
            )

    return call


def forms(network: str, batch: int, size: int) -> dict[str, float]:
    """Return the least CPU seconds of a step of a network in each form."""
    found = {form: step(network, batch, size, form=form) for form in FORMS}
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(5):
        for form, call in found.items():
            times[form].append(seconds(call))
    return {form: short(min(each)) for form, each in times.items()}


def step_of(
    network: str, batch: int, size: int, activation: str = "silu"
) -> Callable[[], Callable[[], object]]:
    """Return `step` of these arguments, to be made with a trick or without it."""
    return lambda: step(network, batch, size, activation)


TRIALS = (
    Trial("_SpaceToDepth", "gradient of 128 images, tiny at 28",
          step_of("tiny(width=8)", 128, 28), without_space_to_depth),
    Trial("_SpaceToDepth", "gradient of 2 images, resnet(depth=50) at 224",
          step_of("resnet(depth=50)", 2, 224), without_space_to_depth),
    Trial("_ChannelsFirst", "gradient of 8 images, cifar-resnet(depth=18) at 32",
          step_of("cifar-resnet(depth=18)", 8, 32), without_channels_first),
    Trial("_GlobalAverage", "gradient of 128 images, tiny of ReLU at 28",
          step_of("tiny(width=8)", 128, 28, "relu"), without_global_average),
    Trial("ascending", "eval, fab-t(steps=10) at linf:0.1, 60 images",
          lambda: evaluated("fab-t(steps=10)", "linf", "0.1", 60), without_quick_order),
    Trial("cheap sums", "eval, square(queries=500) at linf:0.1, 10 images",
          lambda: evaluated("square(queries=500)", "linf", "0.1", 10), without_cheap_sums),
)  # fmt: skip
NETWORKS = {
    "cifar-resnet(depth=18), 4 images of 32": ("cifar-resnet(depth=18)", 4, 32),
    "resnet(depth=50), 4 images of 128": ("resnet(depth=50)", 4, 128),
    "efficientnet, 4 images of 128": ("efficientnet", 4, 128),
}
"""Networks of which each form is timed: the first is what searches use."""


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--only", default="", help="only tricks whose name holds this")
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [compared(one, options.rounds) for one in TRIALS if options.only in one.trick]
    found = {} if options.only else {name: forms(*given) for name, given in NETWORKS.items()}
    for name, times in found.items():
        print(f"{name}, seconds of a gradient: {times}", flush=True)
    finish(rows, options.json, rounds=options.rounds, forms=found)


def compared(trial: Trial, rounds: int) -> dict[str, Any]:
    """Run with the trick and without it in turns; return and print how their times compare."""
    usual = trial.make()
    with trial.off():
        other = trial.make()
        other()
    usual()
    ratios, least = [], [math.inf, math.inf]
    for turn in range(rounds):
        times = [0.0, 0.0]
        for which in (0, 1) if turn % 2 else (1, 0):
            with trial.off() if which else nullcontext():
                times[which] = seconds((usual, other)[which])
        ratios.append(times[1] / times[0])
        least = [min(pair) for pair in zip(least, times, strict=True)]
    low, middle, high = (short(one) for one in np.quantile(ratios, (0.25, 0.5, 0.75)))
    row = {"trick": trial.trick, "work": trial.work, "ratio": middle, "quartiles": [low, high],
           "least_seconds": [short(one) for one in least]}  # fmt: skip
    print(f"{trial.trick:15} {middle:5.3f} ({low} to {high})  {trial.work}", flush=True)
    return row


def seconds(call: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
