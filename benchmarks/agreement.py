"""Our parts of AutoAttack compared with its package: verdicts, passes, time.

Each part runs on all images that are right when clean, cut into blocks, with the same noise for
both engines, on the same fast copy; the judge decides on the untouched model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks.gradient import apgd as _apgd
from satbench.attacks.packages import pyautoattack_attacks as _pyautoattack
from satbench.attacks.packages.pyautoattack_attacks import AutoAttackReference
from satbench.attacks.registry import parse_attack
from satbench.calling.borrow import borrowed
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import load_dataset
from satbench.engine.contract import Attack
from satbench.engine.judge import broken, predict
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.searched import Searched
from satbench.models import load_model, request_model

OURS: dict[str, Attack] = dict(parse_attack("autoattack").parts())
REFERENCE: dict[str, Attack] = dict(AutoAttackReference().parts())
OURS["apgd-dlr"], REFERENCE["apgd-dlr"] = _apgd.APGDDLR(), _pyautoattack.ReferenceAPGDDLR()


@dataclass(frozen=True)
class Task:
    """A model, and images that it gets right, (N, C, H, W), with their indices in the data set."""

    judged: nn.Module
    searcher: nn.Module
    x: Tensor
    y: Tensor
    indices: NDArray[np.int64]
    threat: Threat
    seed: int
    block: int


@dataclass(frozen=True)
class Outcome:
    """The result of a part: verdicts, (N,) bool, passes, CPU seconds of this process."""

    broken: NDArray[np.bool_]
    passes: Passes
    seconds: float

    def numbers(self) -> dict[str, int | float]:
        """Return the numbers to print."""
        return {
            "broken": int(self.broken.sum()),
            "forwards": self.passes.forwards,
            "backwards": self.passes.backwards,
            "cpu_seconds": round(self.seconds, 2),
        }


def attacked(attack: Attack, part: str, task: Task) -> Outcome:
    """Run one attack, one block after another, as the engine does."""
    verdicts, passes, seconds = np.zeros(len(task.indices), bool), Passes(), 0.0
    numbers = task.indices // task.block
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        x, y = task.x[rows], task.y[rows]
        noise = Noise(task.seed, part, tuple(task.indices[rows].tolist()), int(number))
        started = time.process_time()
        x_adv = attack(CountingModel(task.searcher, passes), x, y, task.threat, noise)
        seconds += time.process_time() - started
        fooled = broken(task.judged, x, x_adv.contiguous(), y, task.threat)
        verdicts[rows] = fooled.numpy()
    return Outcome(verdicts, passes, seconds)


def agreement(
    model: str, parts: Sequence[str], threat: Threat | None, n: int, seed: int, block: int
) -> dict[str, object]:
    """Compare both engines, part by part, on the first `n` test images of the model's data set."""
    loaded = load_model(request_model(model), classes=10)
    training = loaded.card.training if loaded.card else None
    if training is None:
        raise SystemExit(f"expected a model that satbench trained, whose card names data: {model}")
    images = load_dataset(training.dataset, "test", n)
    parsed = threat or Threat.parse(training.threat or "linf:0.1")
    rows = np.arange(n)
    x, y = torch.from_numpy(images.pixels(rows)), torch.from_numpy(images.labels)
    shown: dict[str, object] = {}
    ours_left, reference_left = True, True
    with borrowed(loaded.module) as judged:
        right = (predict(judged, x) == y).numpy()
        task = Task(judged, Searched(judged), x[right], y[right], rows[right], parsed, seed, block)
        for part in parts:
            ours = attacked(OURS[part], part, task)
            reference = attacked(REFERENCE[part], part, task)
            ours_left &= ~ours.broken
            reference_left &= ~reference.broken
            equal = int((ours.broken == reference.broken).sum())
            print(
                f"{model} {parsed} seed {seed} {part}: {equal} of {len(task.indices)} equal, "
                f"ours {ours.numbers()}, reference {reference.numbers()}",
                file=sys.stderr,
                flush=True,
            )
            shown[part] = {
                "images": len(task.indices),
                "equal": equal,
                "only_ours": task.indices[ours.broken & ~reference.broken].tolist(),
                "only_reference": task.indices[~ours.broken & reference.broken].tolist(),
                "ours": ours.numbers(),
                "reference": reference.numbers(),
            }
    return {
        "model": model,
        "threat": str(parsed),
        "n": n,
        "seed": seed,
        "block": block,
        "clean": int(right.sum()),
        "robust_ours": int(np.sum(ours_left)),
        "robust_reference": int(np.sum(reference_left)),
        "parts": shown,
    }


def main() -> None:
    """Read the command line and print a JSON list with an entry per model and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument(
        "--parts", nargs="+", default=["apgd-ce", "apgd-t", "fab-t", "square"], choices=OURS
    )
    parser.add_argument("--threat", type=Threat.parse, help="default: that of its training")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--block", type=int, default=250)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [
        agreement(model, options.parts, options.threat, options.n, seed, options.block)
        for model in options.models
        for seed in options.seeds
    ]
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
