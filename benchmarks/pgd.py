"""PGD-20 and PGD-50 in Linf, satbench beside Foolbox, torchattacks, ART and adv-lib.

satbench is timed as its user runs it: clean pass, fast copy, search, judge.  The peers are
timed for their attack's call alone.  Ratios above 1: satbench is faster.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from cases import CASES, Case
from contestants import BASE, CONTESTANTS, ENGINE, PACKAGES, evaluate, tensors
from harness import clocks, counting, finish, parser, race, told, versions
from tables import pgd_table

from satbench.data import Dataset
from satbench.engine.judge import broken

NAMES = [case.name for case in CASES]
# What rounding may turn: a gradient that is nearly 0 changes sign, an image on the edge falls.
ROUNDING = 0.02


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--steps", type=int, nargs="+", default=[20, 50])
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--small", type=int, default=100, help="images for the small net")
    made.add_argument("--large", type=int, default=8, help="images for the large net (20 at most)")
    made.add_argument("--cases", nargs="+", default=NAMES, choices=NAMES)
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if case.name in options.cases:
            n = options.small if case.net == "small" else options.large
            images = case.correct(n)
            for steps in options.steps:
                told(f"{case.name}, {len(images)} images, {steps} steps")
                rows += compare(case, images, steps, options.rounds)
                packages = versions(("satbench", *PACKAGES))
                result = finish(rows, options.json, rounds=options.rounds, packages=packages)
    print(pgd_table(result))


def compare(case: Case, images: Dataset, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Race all contestants on one case; one row a contestant.

    Raises SystemExit where the contestants' verdicts differ by more than rounding explains.
    """
    calls = {
        name: partial(contestant, case.make(), images, case.threat, steps)
        for name, contestant in CONTESTANTS.items()
    }
    survivors, passes = {}, {}
    for name in CONTESTANTS:  # untimed: it warms up too
        survivors[name], passes[name] = counted(case, images, name, steps)
    check_agreement(case, steps, survivors)
    times = race(calls, rounds)
    return [
        {
            "net": case.net,
            "kind": case.kind,
            "threat": str(case.threat),
            "images": len(images),
            "steps": steps,
            "contestant": name,
            **clocks(times[name], times[BASE]),
            "forwards": passes[name][0],
            "backwards": passes[name][1],
            "survivors": int(survivors[name].sum()),
            "differ": int((survivors[name] != survivors[BASE]).sum()),
        }
        for name in CONTESTANTS
    ]


def counted(case: Case, images: Dataset, name: str, steps: int) -> tuple[Tensor, tuple[int, int]]:
    """Run once with all passes counted; return which images survive, by satbench's judge."""
    if name in ENGINE:
        return evaluate(name, case.make(), images, case.threat, steps)
    model, passes = counting(case.make())
    x_adv = CONTESTANTS[name](model.eval(), images, case.threat, steps)
    spent = passes.forwards, passes.backwards
    x, y = tensors(images)
    return ~broken(case.make(), x, x_adv.contiguous(), y, case.threat), spent


def check_agreement(case: Case, steps: int, survivors: dict[str, Tensor]) -> None:
    """Hold all against each other: the same attack must leave the same images.

    The last iterate is compared with the last iterate; satbench's default (`keep=any`) and
    adv-lib take any iterate, which can only leave fewer.
    """
    last, any_ = survivors["satbench, keep=last"], survivors[BASE]
    allowed = max(1, int(ROUNDING * len(last)))
    for name in ("foolbox", "torchattacks", "ART"):
        differ = int((survivors[name] != last).sum())
        if differ > allowed:
            raise SystemExit(
                f"{case.name}, {steps} steps: expected {name} to agree with satbench (keep=last), "
                f"but {differ} of {len(last)} verdicts differ"
            )
    for name, theirs in survivors.items():
        missed = int((any_ & ~theirs).sum())
        if missed > allowed:
            raise SystemExit(
                f"{case.name}, {steps} steps: {missed} images survive satbench but not {name}"
            )


if __name__ == "__main__":
    main()
