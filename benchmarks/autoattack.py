"""The four parts of AutoAttack by satbench's engine, compared with the package pyautoattack.

Each part runs alone on the same images, on a robust and on a weak model, with the same seeds.
satbench is timed as its user calls it, `satbench.evaluate` with all that it does, the package for
a clean pass, its `perturb` on the model as it came, and a pass of what came back.  Ratios above 1:
satbench is faster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from cases import CASES, Case
from contestants import right, tensors
from harness import clocks, counting, finish, log, parser, race, versions
from tables import autoattack_table

import satbench
from satbench.attacks.gradient import apgd as _apgd
from satbench.attacks.gradient import fab as _fab
from satbench.attacks.packages import pyautoattack_attacks as _pyautoattack
from satbench.attacks.score import square as _square
from satbench.core.noise import Noise
from satbench.data import Dataset
from satbench.engine.contract import Attack

PARTS: dict[str, tuple[Attack, Attack]] = {
    "apgd-ce": (_apgd.APGDCE(), _pyautoattack.ReferenceAPGDCE()),
    "apgd-t": (_apgd.APGDT(), _pyautoattack.ReferenceAPGDT()),
    "fab-t": (_fab.FABT(), _pyautoattack.ReferenceFABT()),
    "square": (_square.Square(), _pyautoattack.ReferenceSquare()),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--images", type=int, default=32)
    made.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if case.net == "small":
            images = case.correct(options.images)
            for part in options.parts:
                log(f"{case.name}, {len(images)} images, {part}")
                rows += compare(case, images, part, options.rounds)
    result = finish(
        rows, options.json, rounds=options.rounds, packages=versions(("satbench", "pyautoattack"))
    )
    print(autoattack_table(result))


def compare(case: Case, images: Dataset, part: str, rounds: int) -> list[dict[str, Any]]:
    """Time our part and the package's; return a row for each."""
    runs: dict[str, Callable[[nn.Module], Tensor]] = {
        "satbench": lambda model: ours(model, case, images, part),
        "pyautoattack": lambda model: theirs(model, case, images, part),
    }
    survivors, passes = {}, {}
    for name, run in runs.items():  # an untimed run, which also warms up
        model, counted = counting(case.make())
        survivors[name] = run(model.eval())
        passes[name] = counted.forwards, counted.backwards
    models = {name: case.make() for name in runs}
    times = race({name: lambda n=name: runs[n](models[n]) for name in runs}, rounds)
    return [
        {
            "kind": case.kind,
            "threat": str(case.threat),
            "images": len(images),
            "part": part,
            "contestant": name,
            **clocks(times[name], times["satbench"]),
            "forwards": passes[name][0],
            "backwards": passes[name][1],
            "survivors": int(survivors[name].sum()),
            "differ": int((survivors[name] != survivors["satbench"]).sum()),
        }
        for name in runs
    ]


def ours(model: nn.Module, case: Case, images: Dataset, part: str) -> Tensor:
    """Evaluate the model by our part; return which images survive, (N,)."""
    x, y = tensors(images)
    record = satbench.evaluate(model, x, y, attacks=part, eps=str(case.threat.eps), out=None)
    return torch.tensor(record.verdicts) == -1


def theirs(model: nn.Module, case: Case, images: Dataset, part: str) -> Tensor:
    """Run the package's part on the original model; return which images survive, (N,)."""
    x, y = tensors(images)
    noise = Noise(0, part, tuple(np.arange(len(x)).tolist()))
    clean = right(model, x, y)
    return clean & right(model, PARTS[part][1](model, x, y, case.threat, noise), y)


if __name__ == "__main__":
    main()
