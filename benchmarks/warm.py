"""Smooth activations before and after `warm_cpu`, in one process on one thread.

Times are the least of the rounds.  GELU and Mish have no line, because either warms up a process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from harness import finish, parser, short
from peak import best_of
from tables import warm_table

from satbench.calling.warm import warm_cpu
from satbench.networks.build import build_activation, build_network

ACTIVATIONS = (
    *("relu", "silu", "softplus", "parametric-softplus", "elu", "celu(alpha=2)", "smooth-relu"),
    "pssilu",
)
NET, SHAPE = "tiny(width=8)", (128, 8, 28, 28)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=9)
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, images = torch.randn(SHAPE), torch.rand(SHAPE[0], 1, *SHAPE[2:])
    calls = {name: (_alone(name, x), _in_net(name, images)) for name in ACTIVATIONS}
    before, cold = _results(calls), _timed(calls, options.rounds)
    warm_cpu()
    after, warm = _results(calls), _timed(calls, options.rounds)
    rows: list[dict[str, Any]] = [
        {
            "activation": name,
            "cold": cold[name],
            "warm": warm[name],
            "same_bits": all(map(torch.equal, before[name], after[name])),
        }
        for name in ACTIVATIONS
    ]
    shown = {"net": NET, "shape": list(SHAPE), "rounds": options.rounds}
    print(warm_table(finish(rows, options.json, **shown)))


Call = Callable[[], tuple[Tensor, ...]]


def _alone(name: str, x: Tensor) -> Call:
    module = build_activation(name)()
    return lambda: (module(x).detach(),)


def _in_net(name: str, images: Tensor) -> Call:
    net: nn.Module = build_network(NET, name, 10)
    x = images.clone().requires_grad_()
    return lambda: torch.autograd.grad(net(x).square().mean(), (x, *net.parameters()))


def _timed(calls: dict[str, tuple[Call, Call]], rounds: int) -> dict[str, list[float]]:
    return {name: [short(best_of(rounds, call)) for call in both] for name, both in calls.items()}


def _results(calls: dict[str, tuple[Call, Call]]) -> dict[str, list[Tensor]]:
    return {name: [tensor for call in both for tensor in call()] for name, both in calls.items()}


if __name__ == "__main__":
    main()
