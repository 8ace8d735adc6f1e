"""Synthetic records: what the leaderboard is tested on, without a model or an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from satbench.core.digests import digest_json
from satbench.records.flags import Flag
from satbench.records.record import (
    DatasetInfo,
    Diagnosis,
    Environment,
    Inputs,
    ModelInfo,
    Record,
    StageResult,
    identity_of,
)

MakeRecord = Callable[..., Record]

PGD50 = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"
AUTOATTACK = "autoattack(version=standard,block=100)"
REFERENCE = "autoattack-reference(version=standard,block=100)"
FAST = "fast(version=1,source=none)"
TRANSFER = "transfer(source=a+b)"
PARTS = {
    AUTOATTACK: ("apgd-ce", "square"),
    REFERENCE: ("apgd-ce", "square"),
    TRANSFER: ("a", "b"),
}

MADE = "2026-11-25T12:00:00+00:00"
ENVIRONMENT = Environment("0", "0", "0", "test", "cpu", 1, 8, MADE, 0.0, [])

FLAG = Flag("zero-gradients", 150, 160, "the gradient is 0", "run square on all survivors")


def _training(recipe: str | None, seed: int | None) -> dict[str, Any]:
    if recipe is None:
        return {}
    attack = "" if recipe == "standard" else "pgd(steps=1)"
    return {"recipe": recipe, "seed": seed, "threat": "linf:0.1", "attack": attack}


def a_record(
    verdicts: Sequence[int],
    suite: Sequence[str] = (PGD50, AUTOATTACK),
    *,
    name: str = "m",
    weights: str | None = None,
    activation: str = "relu",
    recipe: str | None = "sat",
    train_seed: int | None = 0,
    source: str = "zoo",
    dataset: str = "shapes",
    images: str = "images",
    eps: str = "0.1",
    seed: int = 0,
) -> Record:
    """Build a record; in the default suite stage 1 is PGD-50, 2 and 3 are AutoAttack's."""
    spelled = [(attack, part) for attack in suite for part in PARTS.get(attack, ("",))]
    left, stages = sum(verdict != 0 for verdict in verdicts), []
    for number, (attack, part) in enumerate(spelled, 1):
        broken = list(verdicts).count(number)
        stages.append(StageResult(attack, part, left, broken, 10 * left, 5 * left))
        left -= broken
    weights_digest = digest_json(weights or name)
    training = _training(recipe, train_seed)
    model = ModelInfo(name, source, "tiny(width=8)", activation, 9, weights_digest, training)
    info = DatasetInfo(dataset, "test", len(verdicts), 10, digest_json(images))
    return Record(
        identity=identity_of(Inputs(model, info, "linf", eps, seed, list(suite))),
        model=model,
        dataset=info,
        norm="linf",
        eps=eps,
        seed=seed,
        suite=list(suite),
        stages=stages,
        verdicts=list(verdicts),
        witnesses_digest="0" * 64,
        environment=replace(ENVIRONMENT, stage_seconds=[0.0] * len(stages)),
    )


def spread(wrong: int, pgd: int, autoattack: int, n: int) -> list[int]:
    """Return verdicts of which so many are wrong when clean, by PGD, by AutoAttack's last part."""
    return [0] * wrong + [1] * pgd + [3] * autoattack + [-1] * (n - wrong - pgd - autoattack)


def a_few_records() -> list[Record]:
    """Records of ReLU and SiLU over three seeds, a control, and a foreign model without PGD."""
    broken = {("relu", s): (40, 60 + s, 30 - 2 * s) for s in range(3)}
    broken |= {("silu", s): (36, 66 + 2 * s, 5 + s) for s in range(3)}
    records = [
        a_record(
            spread(*counts, 200),
            name=f"sat-tiny-{activation}-s{seed}",
            activation=activation,
            train_seed=seed,
        )
        for (activation, seed), counts in broken.items()
    ]
    control = a_record(spread(20, 180, 0, 200), name="standard-tiny-relu-s0", recipe="standard")
    foreign = a_record(
        [0] * 50 + [1] * 60 + [-1] * 90,
        ("square(queries=100)",),
        name="a|b <model>",
        activation="elu",
        recipe=None,
        source="factory",
    )
    harder = a_record(spread(40, 100, 40, 200), name="sat-tiny-relu-s0", eps="8/255")
    fast = replace(
        a_record([0] * 40 + [1] * 91 + [-1] * 69, (FAST,), name="sat-tiny-relu-s0"),
        diagnosis=Diagnosis([FLAG], 200, 200),
    )
    transfer = a_record(
        [0] * 40 + [1] * 5 + [2] * 15 + [-1] * 140, (TRANSFER,), name="sat-tiny-relu-s0"
    )
    return [*records, control, foreign, harder, fast, transfer]
