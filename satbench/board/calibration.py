"""How often the flags of a row are right: FLAGS.md, from records only.

An evaluation without AutoAttack gives a number and flags.  AutoAttack on the same images then shows
whether the number was right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from satbench.board.doubts import MEANINGS, NO_STRONG_ATTACK, doubts_of
from satbench.core.markdown import MISSING, cell, code, percent, table
from satbench.core.stats.intervals import wilson_interval
from satbench.core.templates import fill
from satbench.records.attack_run import version_of
from satbench.records.audit import is_audit
from satbench.records.flags import outweighs
from satbench.records.record import SURVIVED, Record

_FULL = ("autoattack(", "autoattack-reference(")

_EVALUATIONS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("PGD-50", lambda spec: spec.startswith("pgd(steps=50,")),
    ("fast", lambda spec: spec.startswith("fast(")),
    ("fast, audited", is_audit),
)
"""The evaluations that are tested: the name of each, and whether an attack is its last one."""

_TRIAL = ("model", "evaluation", "left", "AutoAttack breaks of these", "verdict", "flags")


@dataclass(frozen=True)
class FlagTrial:
    """An evaluation of a model by `n` images: `left` survived, of which AutoAttack broke `broken`.

    `flags` are the names of the flags of the number before AutoAttack ran.
    """

    model: str
    evaluation: str
    n: int
    left: int
    broken: int
    flags: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether AutoAttack broke no more than the interval of the number allows for."""
        return not outweighs(self.broken, self.left, self.n)


def trials_of(records: Iterable[Record]) -> list[FlagTrial]:
    """Return the trials in records, by model and evaluation, each once.

    A model has a trial if one of its records ran full AutoAttack: by itself, or on the survivors of
    the attacks before it.
    """
    by_model = defaultdict(list)
    for record in records:
        key = (record.model.name, record.model.weights_digest, record.dataset.digest)
        by_model[*key, record.norm, record.eps].append(record)
    return [
        trial
        for _, mine in sorted(by_model.items())
        for evaluation, is_last in _EVALUATIONS
        if (trial := _trial(mine, evaluation, is_last))
    ]


def _trial(
    mine: Sequence[Record], evaluation: str, is_last: Callable[[str], bool]
) -> FlagTrial | None:
    """Return the trial of a model whose records are `mine`, from the first with the evaluation.

    Records of newer versions of `fast` come first.
    """
    attacked = [
        np.asarray(record.verdicts) == SURVIVED
        for record in mine
        if any(spec.startswith(_FULL) for spec in _specs(record))
    ]
    for record in sorted(mine, key=_version_of_fast, reverse=True) if attacked else ():
        specs = _specs(record)
        end = next((number for number, spec in enumerate(specs, 1) if is_last(spec)), 0)
        if not end or any(spec.startswith(_FULL) for spec in specs[:end]):
            continue
        cut, standing = _cut(record, end), np.logical_and.reduce(attacked)
        robust = np.asarray(cut.verdicts) == SURVIVED
        flags = doubts_of([cut], robust) or ()
        return FlagTrial(
            record.model.name,
            evaluation,
            record.n,
            int(robust.sum()),
            int((robust & ~standing).sum()),
            tuple(flag.name for flag in flags),
        )
    return None


def _version_of_fast(record: Record) -> int:
    return max((version_of(spec) for spec in _specs(record) if spec.startswith("fast(")), default=0)


def _specs(record: Record) -> list[str]:
    return [spec for spec, _ in record.attack_stages()]


def _cut(record: Record, attacks: int) -> Record:
    """Return the record as if it had ended after its first `attacks` attacks."""
    kept = record.attack_stages()[:attacks]
    last = kept[-1][1][-1]
    return replace(
        record,
        suite=[spec for spec, _ in kept],
        stages=record.stages[:last],
        verdicts=[SURVIVED if verdict > last else verdict for verdict in record.verdicts],
    )


def render_flags(
    boards: Sequence[tuple[str, int, int]],
    shipped: Sequence[FlagTrial],
    masked: Sequence[FlagTrial],
) -> str:
    """Return FLAGS.md: what flags mean, how many rows have one, and how often they are right.

    `boards` gives for each board its title, how many rows are flagged, and how many there are.
    """
    kinds = [("shipped", shipped), ("masked", masked)]
    notable = [trial for trial in shipped if _is_notable(trial)]
    values = {
        "meanings": [(cell(name), meaning) for name, meaning in MEANINGS.items()],
        "boards": table(
            ("board", "models", "flagged"),
            [(cell(title), str(count), str(flagged)) for title, flagged, count in boards],
            words=1,
        ),
        "rates": table(
            (
                *("models", "evaluation", "AutoAttack agrees", "of these flagged"),
                *("AutoAttack breaks more", "of these flagged"),
            ),
            [
                line
                for kind, trials in kinds
                for evaluation, _ in _EVALUATIONS
                if (line := _rates(kind, evaluation, trials))
            ],
            words=2,
        ),
        "by_flag": table(
            ("flag", "raised where AutoAttack agrees", "raised where it breaks more"),
            _by_flag([*shipped, *masked]),
            words=1,
        ),
        "masked": table(_TRIAL, map(_line, masked), words=2) if masked else "",
        "shipped": table(_TRIAL, map(_line, notable), words=2) if notable else "",
        "n": " and ".join(str(n) for n in sorted({trial.n for trial in masked})),
    }
    return fill("flags.md", values).rstrip() + "\n"


def _rates(kind: str, evaluation: str, trials: Sequence[FlagTrial]) -> list[str] | None:
    mine = [trial for trial in trials if trial.evaluation == evaluation]
    if not mine:
        return None
    cells = []
    for agrees in (True, False):
        some = [trial for trial in mine if trial.agrees == agrees]
        cells += [str(len(some)), _share(sum(bool(trial.flags) for trial in some), len(some))]
    return [kind, evaluation, *cells]


def _by_flag(trials: Sequence[FlagTrial]) -> Iterator[list[str]]:
    for name in sorted({name for trial in trials for name in trial.flags}):
        by_verdict = [[one for one in trials if one.agrees == agrees] for agrees in (True, False)]
        counts = [(sum(name in one.flags for one in some), len(some)) for some in by_verdict]
        yield [cell(name), *(_share(count, n) for count, n in counts)]


def _share(count: int, n: int) -> str:
    if not n:
        return MISSING
    low, high = wilson_interval(count, n)
    return f"{count} of {n} [{percent(low)}, {percent(high)}]"


def _is_notable(trial: FlagTrial) -> bool:
    """Say whether a trial has a flag other than "no strong attack", or lacks a flag."""
    return bool(set(trial.flags) - {NO_STRONG_ATTACK}) or not (trial.flags or trial.agrees)


def _line(trial: FlagTrial) -> list[str]:
    name = trial.model.rpartition(":")[2] or trial.model
    verdict = "agrees" if trial.agrees else "breaks more"
    counts = [f"{trial.left} of {trial.n}", str(trial.broken)]
    return [code(name), trial.evaluation, *counts, verdict, cell(", ".join(trial.flags)) or MISSING]
