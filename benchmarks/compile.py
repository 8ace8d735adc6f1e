"""Whether `torch.compile` pays for its compilation in adversarial training on the CPU.

Epochs of `fmnist-sat` (PGD-1) by a plain loop, with the network uncompiled and compiled, in turns,
each on the same images from the same weights.  The first compiled epoch, which includes the
compilation, is separate.  The result is the number of images after which the compilation has paid
off.  All times are CPU seconds, including the compiler's processes.  satbench has no option for it,
see docs/training.md.  It needs a C++ compiler and the package setuptools.
"""

from __future__ import annotations

import copy
import resource
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from harness import finish, measure, parser, race, short

from satbench.data import Dataset, load_dataset
from satbench.networks.build import build_network
from satbench.recipes import load_recipe

EPS = 0.1


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its result."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--batches", type=int, default=20, help="of 128 images")
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    config = load_recipe("fmnist-sat")
    torch.manual_seed(0)
    plain = build_network(config.architecture, config.activation, 10)
    data = load_dataset("fashion-mnist", "test", options.batches * config.batch_size)
    compiled = torch.compile(copy.deepcopy(plain))
    before = of_children()
    first = measure(lambda: epoch(compiled, data, config.batch_size)).cpu + of_children() - before
    ways = {
        "plain": lambda: epoch(plain, data, config.batch_size),
        "compiled": lambda: epoch(compiled, data, config.batch_size),
    }
    ways["plain"]()  # an untimed run, for work that a process does once
    times = race(ways, options.rounds)
    medians = {name: float(np.median([one.cpu for one in taken])) for name, taken in times.items()}
    gained = medians["plain"] - medians["compiled"]
    cost = first - medians["compiled"]
    row = {
        "images": len(data),
        "plain_seconds": short(medians["plain"]),
        "compiled_seconds": short(medians["compiled"]),
        "first_epoch_seconds": short(first),
        "ratio": short(medians["plain"] / medians["compiled"]),
        "won_back_after_images": round(cost / gained * len(data)) if gained > 0 else None,
    }
    finish([row], options.json, rounds=options.rounds)
    for name, value in row.items():
        print(f"{name}: {value}")


def of_children() -> float:
    """Return the CPU seconds of processes that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def epoch(network: nn.Module, data: Dataset, batch_size: int) -> None:
    """Train on all images once, by PGD-1 and SGD, like satbench's loop."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    network.train()
    for start in range(0, len(data), batch_size):
        rows = np.arange(start, start + batch_size)
        x, y = torch.from_numpy(data.pixels(rows)), torch.from_numpy(data.labels[rows])
        x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1).requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(network(x_adv), y), x_adv)
        moved = (x_adv.detach() + EPS * grad.sign() - x).clamp(-EPS, EPS)
        loss = F.cross_entropy(network((x + moved).clamp(0, 1)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
