"""Robust accuracy under PGD in Linf: `satbench.evaluate`, `satbench.attack`, a bare loop, peers.

Everything is timed as its user calls it, and does the whole job: from a model, images and labels
to which images survive.  Ratios above 1: `satbench.evaluate` is faster.
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
from contestants import BASE, CONTESTANTS, LOOP, PACKAGES, evaluate
from harness import clocks, counting, finish, log, parser, race, versions
from tables import pgd_table

from satbench.data import Dataset

NAMES = [case.name for case in CASES]
# Rounding may change some verdicts: a gradient near 0 changes its sign, and a close image is
# broken.
ROUNDING = 0.02


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--steps", type=int, nargs="+", default=[20])
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--images", type=int, nargs="+", help="in place of the cases' own numbers")
    made.add_argument("--cases", nargs="+", default=NAMES, choices=NAMES)
    made.add_argument("--contestants", nargs="+", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    names = [BASE, *(name for name in options.contestants if name != BASE)]
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if case.name in options.cases:
            for n in options.images or case.sizes:
                images = case.correct(n)
                for steps in options.steps:
                    log(f"{case.name}, {len(images)} images, {steps} steps")
                    rows += compare(case, images, steps, options.rounds, names)
                    packages = versions(("satbench", *PACKAGES))
                    result = finish(rows, options.json, rounds=options.rounds, packages=packages)
    print(pgd_table(result))


def compare(
    case: Case, images: Dataset, steps: int, rounds: int, names: list[str]
) -> list[dict[str, Any]]:
    """Race the named contestants on one case; one row a contestant.

    Raises SystemExit if the contestants' verdicts differ by more than rounding explains.
    """
    calls = {
        name: partial(CONTESTANTS[name], case.make(), images, case.threat, steps) for name in names
    }
    survivors, passes = {}, {}
    for name in names:  # untimed: it warms up too
        model, counted = counting(case.make())
        survivors[name] = CONTESTANTS[name](model.eval(), images, case.threat, steps)
        passes[name] = counted.forwards, counted.backwards
    last = evaluate(case.make(), images, case.threat, steps, keep="last")
    check_agreement(case, steps, survivors, last)
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
        for name in names
    ]


def check_agreement(case: Case, steps: int, survivors: dict[str, Tensor], last: Tensor) -> None:
    """Hold all against each other: the same attack must leave the same images.

    The last iterate is compared with satbench's `last`; satbench's default, the bare loop and
    adv-lib take any iterate, which can only leave fewer.
    """
    any_ = survivors[BASE]
    allowed = max(1, int(ROUNDING * len(last)))
    alike = dict.fromkeys(("foolbox", "torchattacks", "ART"), last)
    alike |= dict.fromkeys(("satbench.attack", LOOP), any_)
    for name, theirs in survivors.items():
        differ = int((theirs != alike.get(name, theirs)).sum())
        if differ > allowed:
            raise SystemExit(
                f"{case.name}, {steps} steps: expected {name} to agree with satbench, but "
                f"{differ} of {len(last)} verdicts differ"
            )
        missed = int((any_ & ~theirs).sum())
        if missed > allowed:
            raise SystemExit(
                f"{case.name}, {steps} steps: {missed} images survive satbench but not {name}"
            )


if __name__ == "__main__":
    main()
