"""The attack's noise in one process of a large training run: ImageNet's shape, a batch of 2,048.

A step of one of 8 simulated processes, whose share of the batch goes through the network in parts.
`as much alone` draws the noise of the same number of images for a batch without others.  `all, then
cut` draws the noise of the whole batch and keeps the part.  Ratios are relative to the first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

from harness import clocks, finish, measure, parser, race
from tables import noise_table

from satbench.core.noise import generator_for
from satbench.training.update.noise import StepNoise

Draw = Callable[[], list[NDArray[np.float32]]]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--batch", type=int, default=2048)
    made.add_argument("--ranks", type=int, default=8)
    made.add_argument("--parts", type=int, default=8)
    made.add_argument("--side", type=int, default=224)
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    shape, parts, ranks = (3, options.side, options.side), options.parts, options.ranks
    size = options.batch // ranks // parts
    draws: dict[str, Draw] = {
        "as much alone": _share(size * parts, size, 0, 1, parts, shape),
        **{
            f"process {rank + 1} of {ranks}": _share(options.batch, size, rank, ranks, parts, shape)
            for rank in sorted({0, ranks - 1})
        },
        "all, then cut": _all(options.batch, size, ranks, parts, shape),
    }
    check_agreement(draws)
    times = race(draws, options.rounds, measure)
    base = times["as much alone"]
    rows: list[dict[str, Any]] = [
        {"contestant": name, **clocks(times[name], base)} for name in draws
    ]
    shown = {"batch": options.batch, "ranks": ranks, "parts": parts, "shape": list(shape)}
    print(noise_table(finish(rows, options.json, **shown, rounds=options.rounds)))


def check_agreement(draws: dict[str, Draw]) -> None:
    """Raise SystemExit unless the last process draws its part of the whole batch's noise."""
    *_, share, cut = draws.values()
    if not all(map(np.array_equal, share(), cut())):
        raise SystemExit("expected the last process to draw its part of the whole, bit by bit")


def _share(
    batch: int, size: int, rank: int, ranks: int, parts: int, shape: tuple[int, ...]
) -> Draw:
    places = [(part * ranks + rank) * size for part in range(parts)]
    return lambda: [StepNoise(0, 0, 0, batch, place, size).uniform(shape) for place in places]


def _all(batch: int, size: int, ranks: int, parts: int, shape: tuple[int, ...]) -> Draw:
    def draw(part: int) -> NDArray[np.float32]:
        drawn = generator_for(0, "training attack", 0, 0, 0).random((batch, *shape), np.float32)
        place = (part * ranks + ranks - 1) * size
        return 2 * drawn[place : place + size] - 1

    return lambda: [draw(part) for part in range(parts)]


if __name__ == "__main__":
    main()
