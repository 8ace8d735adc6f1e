"""One attack of a suite in a record: the number of images that it left, and its cost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from satbench.records.record import SURVIVED, Record, StageResult

_VERSION = re.compile(r"\(version=(\d{1,9})[,)]")


def version_of(spec: str) -> int:
    """Return the version in an attack's canonical text; 0 if it is not a number or there is none.

    >>> version_of("fast(version=3,source=none)"), version_of("autoattack(version=standard)")
    (3, 0)
    """
    found = _VERSION.search(spec)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class AttackRun:
    """An attack that ran on the survivors of the attacks `before` it.

    `standing` says of each image whether it was right after the attack; `clean` is how many were
    right before any attack.  `seconds` is the wall time of its stages, and `machine` the device and
    threads; None if they are those of another record.
    """

    attack: str
    before: tuple[str, ...]
    seed: int
    protocol: int
    identity: str
    clean: int
    standing: tuple[bool, ...]
    stages: tuple[StageResult, ...]
    seconds: float | None = None
    machine: tuple[str, int] | None = None

    @property
    def is_own_autoattack(self) -> bool:
        """Whether it is AutoAttack by satbench's own engine."""
        return self.attack.startswith("autoattack(") and self.protocol >= 2

    @property
    def is_reference(self) -> bool:
        """Whether it is AutoAttack by the package that defines it, pyautoattack."""
        by_package = self.attack.startswith("autoattack(") and self.protocol == 1
        return by_package or self.attack.startswith("autoattack-reference(")

    @property
    def is_fast(self) -> bool:
        """Whether it is the fast suite."""
        return self.attack.startswith("fast(")

    @property
    def version(self) -> int:
        """The version of the suite; 0 if it is not a number or the attack has none."""
        return version_of(self.attack)

    @property
    def arguments(self) -> str:
        """The text between the brackets of its spec."""
        return self.attack.partition("(")[2].removesuffix(")")

    @property
    def left(self) -> int:
        """How many images were right after it."""
        return sum(self.standing)

    @property
    def accuracy(self) -> float:
        """The share of all images that were right after it."""
        return self.left / len(self.standing)

    @property
    def passes(self) -> Fraction | None:
        """Passes, forwards and backwards, of the model and surrogates, per image right when clean.

        None if no image was right when clean, or if none was attacked.
        """
        if not any(stage.attacked for stage in self.stages):
            return None
        return Fraction(sum(passes_of(stage) for stage in self.stages), self.clean)

    @property
    def milliseconds(self) -> float | None:
        """Wall time per image right when clean; None if `passes` or the time is unknown."""
        if self.seconds is None or self.passes is None:
            return None
        return 1000 * self.seconds / self.clean


def passes_of(stage: StageResult) -> int:
    """Return all passes of a stage: forwards and backwards, of the model and of its sources."""
    return stage.forwards + stage.backwards + stage.source_forwards + stage.source_backwards


def attack_runs(records: Iterable[Record]) -> list[AttackRun]:
    """Return the attacks of records, without those that ran after a stage of another run.

    After a stage that ran apart (in a merged record) the verdicts do not say how many images each
    attack would have left.
    """
    return [run for record in records for run in _runs(record)]


def _runs(record: Record) -> list[AttackRun]:
    runs: list[AttackRun] = []
    before: tuple[str, ...] = ()
    for attack, numbers in record.attack_stages():
        last = numbers[-1]
        if any(stage.apart for stage in record.stages[:last]):
            break
        stages = tuple(record.stages[number - 1] for number in numbers)
        first, where = stages[0], record.environment
        is_timed = not any(stage.origin for stage in stages)
        spent = sum(float(where.stage_seconds[number - 1]) for number in numbers)
        runs.append(
            AttackRun(
                attack=attack,
                before=before,
                seed=record.seed if first.seed is None else first.seed,
                protocol=record.protocol if first.protocol is None else first.protocol,
                identity=first.origin or record.identity,
                clean=record.clean_correct,
                standing=tuple(v == SURVIVED or v > last for v in record.verdicts),
                stages=stages,
                seconds=spent if is_timed else None,
                machine=(where.device, where.threads) if is_timed else None,
            )
        )
        before = (*before, attack)
    return runs
