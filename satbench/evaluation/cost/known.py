"""How many passes an attack takes, from published records, else from its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from satbench.attacks import attack_spec
from satbench.attacks.expenses import Expenses, expenses_of
from satbench.attacks.suites.suite import parse_suite
from satbench.attacks.suites.suite_parts import Chosen
from satbench.board.definition import board_definitions
from satbench.core.specs import split_spec
from satbench.records.record import Record, StageResult, read_record


@dataclass(frozen=True)
class Spending:
    """Passes an image of the data set: of the model, forward and backward, and of surrogates."""

    forwards: float
    backwards: float
    surrogates: float = 0.0

    @property
    def passes(self) -> float:
        """All passes."""
        return self.forwards + self.backwards + self.surrogates

    def times(self, factor: float) -> Spending:
        """Return the spending times `factor`."""
        return Spending(factor * self.forwards, factor * self.backwards, factor * self.surrogates)


@dataclass(frozen=True)
class Foreseen:
    """The passes of an attack per image, expected and at most, and what this is based on.

    `most` is None if a part of the attack has no known bound.
    """

    attack: str
    about: Spending
    most: Spending | None
    basis: str


def foreseen(attacks: Sequence[str], model: str, norm: str, classes: int) -> list[Foreseen]:
    """Return the passes of each attack of a suite per image, in order.

    The source is a published record of the model, else the mean of records of other models under
    the norm, else the most that the parameters allow.
    """
    own = [record for record in published(model) if record.model.name == model]
    others = [record for record in published("") if record.norm == norm]
    found = []
    for text in attacks:
        spec, most = attack_spec(text), _most(text, classes)
        if counted := _mean(spec, own):
            found.append(Foreseen(spec, counted, most, "counted in records of this model"))
        elif counted := _mean(spec, others):
            found.append(Foreseen(spec, counted, most, "mean of records of other models"))
        else:
            basis = "unknown" if most is None else "at most, from its parameters"
            found.append(Foreseen(spec, most or Spending(0.0, 0.0), most, basis))
    return found


def _mean(spec: str, records: Iterable[Record]) -> Spending | None:
    """Return the mean passes of an attack per image; None if no record ran it."""
    counted = [spent for record in records for spent in _counted(spec, record)]
    if not counted:
        return None
    return Spending(
        fmean(one.forwards for one in counted),
        fmean(one.backwards for one in counted),
        fmean(one.surrogates for one in counted),
    )


@cache
def published(model: str) -> tuple[Record, ...]:
    """Return the published records of models whose names begin with `model`, ordered by file."""
    folders = [board.records for board in board_definitions()]
    paths = [path for folder in folders for path in folder.glob(f"{model}*.json")]
    return tuple(read_record(path) for path in sorted(paths))


def _counted(spec: str, record: Record) -> Iterable[Spending]:
    """Yield the passes of an attack per image in a record; those of PGD scale with its steps."""
    name, wanted = split_spec(spec)
    for attack, numbers in record.attack_stages():
        other, arguments = split_spec(attack)
        if other != name:
            continue
        differ = {key for key in wanted if wanted[key] != arguments.get(key)}
        if differ - {"steps", "source"}:
            continue
        scale = 1.0
        if "steps" in differ:
            if not (wanted["steps"].isdigit() and arguments.get("steps", "").isdigit()):
                continue
            scale = int(wanted["steps"]) / int(arguments["steps"])
        yield _spent([record.stages[k - 1] for k in numbers]).times(scale / record.n)


def _spent(stages: Sequence[StageResult]) -> Spending:
    return Spending(
        sum(one.forwards for one in stages),
        sum(one.backwards for one in stages),
        sum(one.source_forwards + one.source_backwards for one in stages),
    )


def _most(text: str, classes: int) -> Spending | None:
    """Return the passes of an attack on images that all survive; None if unknown."""
    total = Spending(0.0, 0.0)
    for stage in parse_suite([text]):
        attack = stage.attack
        share = 1.0
        if isinstance(attack, Chosen):
            share = attack.choice.share
        spent = expenses_of(attack, classes)
        if spent is None:
            return None
        one = _spending(spent).times(share)
        total = Spending(
            total.forwards + one.forwards,
            total.backwards + one.backwards,
            total.surrogates + one.surrogates,
        )
    return total


def _spending(spent: Expenses) -> Spending:
    return Spending(spent.forwards, spent.backwards, 2 * spent.surrogates)
