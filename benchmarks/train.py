"""Images per second of PGD-1 adversarial training: satbench's loop compared with plain loops.

In each round every contestant trains on the same images once, in batches; the time to read them
counts.  Each is a separate process and waits while the others run.  `--starts` starts new
processes, because their memory layout makes them slightly slower or faster.  Ratios above 1:
satbench is faster.  The share of the machine's convolution peak counts the necessary passes: a
forward and an input gradient, then a forward and a gradient of the weights.
"""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))

from harness import Times, clocks, finish, log, measure, parser, race, short, versions
from peak import LAYOUTS, SHAPES, flop_of, peak
from tables import train_table
from trainers import BASE, PACKAGES, TRAINERS, Epoch

from satbench.data import Dataset, load_dataset
from satbench.recipes import TrainConfig, load_recipe
from satbench.training.loop import fresh_model

SAT = {"attack": "pgd(steps=1,step=eps,keep=last)", "attack_mode": "eval", "augment": "none"}
# The first epoch's mean losses may differ this much, because each loop draws its own noise and
# order.
SPREAD = 0.15


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=7, help="of each start")
    made.add_argument("--starts", type=int, default=1)
    made.add_argument("--small", type=int, default=40, help="batches of 128 for the small net")
    made.add_argument("--large", type=int, default=2, help="batches of 16 for ResNet-18")
    made.add_argument("--peak-rounds", type=int, default=9)
    made.add_argument("--activation", default="relu")
    made.add_argument("--nets", nargs="+", default=["small", "large"], choices=["small", "large"])
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    shapes = [peak(*shape, layout, options.peak_rounds) for shape in SHAPES for layout in LAYOUTS]
    best = max(rate for found in shapes for rate in (found["forward"], found["backward"]))
    rows: list[dict[str, Any]] = []
    for net in options.nets:
        make, batches = (small, options.small) if net == "small" else (large, options.large)
        config, data = make(batches, options.activation)
        log(f"{net} net, {len(data)} images in batches of {config.batch_size}")
        rows += compare(net, config, data, (options.starts, options.rounds), best)
    packages = versions(("satbench", *PACKAGES))
    rounds = options.starts * options.rounds
    result = finish(rows, options.json, rounds=rounds, packages=packages, peak=best)
    print(train_table(result))


def small(batches: int, activation: str) -> tuple[TrainConfig, Dataset]:
    """Return the small net's training, on images of Fashion-MNIST that ship with satbench."""
    config = load_recipe("fmnist-sat", activation=activation, **SAT)
    return config, load_dataset(config.dataset, "test", batches * config.batch_size)


def large(batches: int, activation: str) -> tuple[TrainConfig, Dataset]:
    """Return ResNet-18's training on 32×32 images, which are noise: only their shape counts."""
    config = load_recipe(
        "sat-cifar10",
        architecture="cifar-resnet(depth=18)",
        activation=activation,
        batch_size=16,
        learning_rate=0.001,  # a larger one lets two batches of noise drive the losses apart
        **SAT,
    )
    drawn = np.random.default_rng(0)
    n = batches * config.batch_size
    images = drawn.integers(0, 256, (n, 3, 32, 32), np.uint8)
    return config, Dataset("noise", "train", images, drawn.integers(0, 10, n), 10)


def compare(
    net: str, config: TrainConfig, data: Dataset, often: tuple[int, int], best: float
) -> list[dict[str, Any]]:
    """Time all contestants on one net, with `often` starts and rounds per start; a row for each.

    Raises SystemExit if the losses differ.
    """
    times: dict[str, list[Times]] = {name: [] for name in TRAINERS}
    for _ in range(often[0]):
        with ExitStack() as stack:
            runners = {n: stack.enter_context(Runner(n, config, data)) for n in TRAINERS}
            losses = {name: runner.loss for name, runner in runners.items()}
            check_agreement(net, losses)
            for name, some in race(runners, often[1], lambda runner: runner()).items():
                times[name] += some
    flop = flop_per_image(fresh_model(config, data.classes), data)
    rows = []
    for name in TRAINERS:
        found = clocks(times[name], times[BASE])
        speed = len(data) / found["cpu_seconds"]
        rows.append(
            {
                "net": net,
                "architecture": config.architecture,
                "activation": config.activation,
                "images": len(data),
                "batch_size": config.batch_size,
                "contestant": name,
                **found,
                "images_per_cpu_second": short(speed),
                "flop_per_image": flop,
                "gflops": short(speed * flop / 1e9),
                "share": short(speed * flop / 1e9 / best),
                "loss": short(losses[name]),
            }
        )
    return rows


class Runner:
    """A contestant in its own process: a call trains for an epoch, and returns its times."""

    def __init__(self, name: str, config: TrainConfig, data: Dataset) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, name, config, data), daemon=True)
        self._process.start()
        self.loss = float(self._end.recv())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end.send(False)
        self._process.join()

    def __call__(self) -> Times:
        """Train for an epoch."""
        self._end.send(True)
        times: Times = self._end.recv()
        return times


def serve(end: Connection, name: str, config: TrainConfig, data: Dataset) -> None:
    """Run a contestant: send the first epoch's loss, then train at each request."""
    torch.set_num_threads(1)
    epoch = TRAINERS[name](config, data)
    end.send(first_loss(epoch, config.seed))
    while end.recv():
        end.send(measure(epoch))


def first_loss(epoch: Epoch, seed: int) -> float:
    """Train on all images once, untimed, which also warms up; return the mean loss.

    The other loops shuffle and start their attack by torch's global generator.
    """
    torch.manual_seed(seed)
    return epoch()


def check_agreement(net: str, losses: dict[str, float]) -> None:
    """Compare the contestants: the same training must give a similar loss."""
    for name, loss in losses.items():
        if not abs(loss / losses[BASE] - 1) <= SPREAD:
            raise SystemExit(
                f"{net}: expected {name} to train as satbench does, but its mean loss is "
                f"{loss:.3f}, not {losses[BASE]:.3f}"
            )


def flop_per_image(model: nn.Module, data: Dataset) -> int:
    """Count the floating-point operations of PGD-1 training for one image."""
    x, y = torch.from_numpy(data.pixels(np.arange(1))), torch.from_numpy(data.labels[:1].copy())
    attack = flop_of(model.eval(), x, y)
    return attack + _flop_of_update(model.requires_grad_(True), x, y)


def _flop_of_update(model: nn.Module, x: Tensor, y: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(x), y).backward()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
