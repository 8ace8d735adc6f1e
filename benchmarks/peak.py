"""This machine's convolution peak on one thread, and the share of it that satbench's PGD reaches.

The peak is the best rate of many convolutions, forward and input gradient, in both memory
layouts.  The share counts the multiplications and additions of the original model (a forward and an
input gradient per step), so a rewrite does not change the count.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))

from cases import CASES, Case
from contestants import tensors
from harness import finish, log, measure, parser, short
from tables import peak_table

from satbench.attacks import parse_attack
from satbench.calling.borrow import borrowed
from satbench.core.noise import Noise
from satbench.engine.fast_copy import fast_copy

# (channels, side, kernel, images): from the widest layers of ResNets to sizes that fit a cache.
SHAPES = (
    (64, 32, 3, 16),
    (128, 16, 3, 32),
    (128, 32, 3, 8),
    (256, 8, 3, 64),
    (256, 16, 3, 16),
    (512, 8, 3, 16),
    (256, 16, 1, 32),
)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--steps", type=int, default=10)
    made.add_argument("--small", type=int, default=250, help="images for the small net")
    made.add_argument("--large", type=int, default=20, help="images for the large net (20 at most)")
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    peaks = [peak(*shape, layout, options.rounds) for shape in SHAPES for layout in LAYOUTS]
    best = max(rate for found in peaks for rate in (found["forward"], found["backward"]))
    rows = []
    for case in CASES:
        if case.kind == "robust":
            n = options.small if case.net == "small" else options.large
            rows += shares(case, n, options.steps, options.rounds, best)
    print(peak_table(finish(rows, options.json, rounds=options.rounds, peak=best, shapes=peaks)))


def peak(
    channels: int, side: int, kernel: int, images: int, layout: str, rounds: int
) -> dict[str, Any]:
    """Return the best GFLOP per CPU second of one convolution, forward and input gradient."""
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    conv = conv.requires_grad_(False).to(memory_format=LAYOUTS[layout])
    x = torch.randn(images, channels, side, side).to(memory_format=LAYOUTS[layout])
    y = conv(x.requires_grad_())
    grad = torch.randn_like(y)
    flop = 2 * images * side**2 * channels**2 * kernel**2
    forward = best_of(rounds, lambda: conv(x))
    backward = best_of(rounds, lambda: torch.autograd.grad(y, x, grad, retain_graph=True))
    found = {"forward": short(flop / forward / 1e9), "backward": short(flop / backward / 1e9)}
    shape = f"{images}×{channels}×{side}×{side}, {kernel}×{kernel}"
    log(f"{shape} {layout}: {found}")
    return {"shape": shape, "layout": layout, **found}


def best_of(rounds: int, call: Callable[[], object]) -> float:
    """Return the least CPU time of a call, in seconds; each round lasts at least 20 ms."""
    repeats = max(1, round(0.02 / max(measure(call).cpu, 1e-4)))
    return (
        min(measure(lambda: [call() for _ in range(repeats)]).cpu for _ in range(rounds)) / repeats
    )


def shares(case: Case, n: int, steps: int, rounds: int, best: float) -> list[dict[str, Any]]:
    """Return the rates of PGD's search, from whose batches no image leaves."""
    images = case.correct(n)
    x, y = tensors(images)
    flop = flop_of(case.make(), x[:1], y[:1]) * len(x)
    attack = parse_attack(f"pgd(steps={steps},start=clean,keep=last)")
    noise = Noise(0, "pgd", tuple(range(len(x))))
    rows = []
    with borrowed(case.make()) as model:
        for name, net in (("model as it came", model), ("fast copy", fast_copy(model) or model)):

            def call(net: nn.Module = net) -> Tensor:
                return attack(net, x, y, case.threat, noise)

            call()
            seconds = [measure(call).cpu for _ in range(rounds)]
            rates = [flop * steps / second / 1e9 for second in seconds]
            log(f"{case.net}, {name}: {np.median(rates):.1f} GFLOP/s")
            rows.append(
                {
                    "net": case.net,
                    "images": len(x),
                    "steps": steps,
                    "what": name,
                    "flop_per_step": flop // len(x),
                    "gflops": short(float(np.median(rates))),
                    "share": short(float(np.median(rates)) / best),
                }
            )
    return rows


def flop_of(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Count floating-point operations of a forward and its input gradient.  One image."""
    x = x.clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model.requires_grad_(False)(x), y).backward()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
