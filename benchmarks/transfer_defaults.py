"""Survivors of transfer attacks with other settings: how the defaults were chosen.

The images come after those of the boards, and the models should be on no board:
python benchmarks/transfer_defaults.py CARD.json … [--specs 'transfer(…)' …]
"""

from __future__ import annotations

import argparse
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.attacks.transfer.surrogates import FromSurrogates, Transfer
from satbench.calling.borrow import borrowed
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.judge import broken, predict
from satbench.engine.memory import CountingSurrogates
from satbench.engine.passes import Passes
from satbench.evaluation.surrogates import NamedSurrogates, with_surrogates
from satbench.models import load_model, request_model

BEST = "method=mi+di+ti,step=eps/2,loss=margin"
SPECS = (
    "transfer(method=pgd,step=eps/10,loss=ce)",
    "transfer(method=pgd,steps=40,step=eps/4,loss=margin)",
    "transfer(method=mi+di+ti,step=eps/10,loss=ce)",
    f"transfer({BEST})",
    f"transfer({BEST},steps=20)",
    f"transfer({BEST},resize=1.3)",
    f"transfer({BEST},ensemble=true)",
)
FIRST = 5000  # the first image; boards use the first thousand
BATCH = 250


def survivors(
    spec: str, targets: list[nn.Module], data: Dataset, rows: np.ndarray, threat: Threat
) -> tuple[list[int], int]:
    """Return how many images each target has right under all sources, and the gradient passes."""
    (pinned,) = with_surrogates([spec], data.name, threat)
    passes = Passes()
    surrogates = CountingSurrogates(NamedSurrogates(data), passes, torch.device("cpu"))
    parts = cast(Transfer, parse_attack(pinned)).parts()
    ready = [
        (name, cast(FromSurrogates, part).prepare(_nobody, surrogates, threat, 0))
        for name, part in parts
    ]
    right = [0] * len(targets)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        x, y = torch.from_numpy(data.pixels(batch)), torch.from_numpy(data.labels[batch])
        made = [
            attack(_nobody, x, y, threat, Noise(0, name, tuple(batch.tolist())))
            for name, attack in ready
        ]
        for place, target in enumerate(targets):
            with borrowed(target) as judged:
                kept = predict(judged, x) == y
                for x_adv in made:
                    kept &= ~broken(judged, x, x_adv, y, threat)
            right[place] += int(kept.sum())
    return right, passes.backwards


def _nobody(x: Tensor) -> Tensor:
    raise AssertionError("no target is asked while images are made")


def main() -> None:
    """Print a line of markdown for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cards", nargs="+")
    parser.add_argument("--specs", nargs="+", default=SPECS)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--threat", type=Threat.parse, default=Threat.parse("linf:0.1"))
    parser.add_argument("--n", type=int, default=500)
    asked = parser.parse_args()
    data = load_dataset(asked.dataset, "test", None)
    rows = np.arange(FIRST, FIRST + asked.n)
    loaded = [load_model(request_model(card), data.classes) for card in asked.cards]
    targets = [model.module for model in loaded]
    names = " | ".join(model.info.name for model in loaded)
    print(f"| attack | {names} | mean | gradients per image |")
    print("| --- |" + " ---: |" * (len(loaded) + 2))
    for spec in asked.specs:
        right, backwards = survivors(spec, targets, data, rows, asked.threat)
        cells = " | ".join(f"{100 * count / asked.n:.1f}" for count in right)
        mean = 100 * sum(right) / asked.n / len(right)
        print(f"| `{spec}` | {cells} | {mean:.1f} | {backwards // asked.n} |", flush=True)


if __name__ == "__main__":
    main()
