"""The flags of a row: the reasons to doubt that its number is low enough.

A record has the signs that its run showed.  A row has several records, and one may settle a doubt
that another left open, so the flags of a row are computed from all of them. docs/FLAGS.md says how
often they are right (`satbench.board.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from satbench.board.marks import STRONG, Checked
from satbench.records.audit import audit_counts
from satbench.records.flags import (
    AT_CHANCE,
    NOT_DIAGNOSED,
    RESULT_FLAGS,
    WENT_ON,
    Flag,
    Kind,
    disagreement,
    outweighs,
)
from satbench.records.record import SURVIVED, WRONG_CLEAN, Record, StageResult

AUDIT = "audit-broke-survivors"
RECHECK = "recheck-broke-survivors"
NO_STRONG_ATTACK = "no-strong-attack"

_NOT_OF_THE_NUMBER = ("few-classes",)
"""Signs that say how to attack a model, but nothing about what was found."""

_FULL = ("autoattack(", "autoattack-reference(", "strongest(")


def doubts_of(
    records: Sequence[Record], robust: NDArray[np.bool_], checked: Checked | None = None
) -> tuple[Flag, ...] | None:
    """Return the flags of the number that all `records` of a model give, by name.

    `robust` (N,) says which images survive in all of them; `checked` is the result of rechecks.
    None if no record has a diagnosis and the verdicts show no sign.
    """
    diagnosed = any(record.diagnosis is not None for record in records)
    found = {flag.name: flag for flag in _all(records, robust, checked)}
    return tuple(found[name] for name in sorted(found)) if diagnosed or found else None


def _all(
    records: Sequence[Record], robust: NDArray[np.bool_], checked: Checked | None
) -> Iterator[Flag]:
    right = int(np.logical_and.reduce([_verdicts(r) != WRONG_CLEAN for r in records]).sum())
    for one in _REASONS:
        yield from one(records, robust, right)
    if checked is not None:
        yield from _recheck(checked, robust)


def _diagnosed(records: Sequence[Record], robust: NDArray[np.bool_], right: int) -> Iterator[Flag]:
    """Yield the signs of the diagnoses that may apply to the survivors.

    A sign on some images counts if so many survivors have it that they outweigh the interval.
    """
    survivors, n = int(robust.sum()), len(robust)
    diagnoses = [record.diagnosis for record in records if record.diagnosis is not None]
    raised = sorted(
        {flag for diagnosis in diagnoses for flag in diagnosis.flags},
        key=lambda flag: (flag.images / max(flag.of, 1), str(flag)),
    )
    someone_looked = any(
        all(flag.name != NOT_DIAGNOSED for flag in diagnosis.flags) for diagnosis in diagnoses
    )
    for flag in raised:
        if flag.name == NOT_DIAGNOSED and someone_looked:
            continue
        if flag.name == WENT_ON:
            if survivors and not _ran(records, _FULL):
                yield flag
        elif flag.name in (AT_CHANCE, NOT_DIAGNOSED, "training-data") or flag.name.startswith(
            "assumed-"
        ):
            yield flag
        elif flag.name not in (*RESULT_FLAGS, *_NOT_OF_THE_NUMBER):
            without = right * (1 - flag.images / max(flag.of, 1))
            if outweighs(survivors - without, survivors, n):
                yield flag


def _disagreements(
    records: Sequence[Record], robust: NDArray[np.bool_], right: int
) -> Iterator[Flag]:
    """Yield flags if attacks without the model's gradients broke what no attack with them did."""
    followed = np.zeros(len(robust), np.bool_)  # attacked by the model's gradients
    broken = {kind: np.zeros(len(robust), np.bool_) for kind in _KINDS}
    for record in records:
        verdicts = _verdicts(record)
        for number, stage in enumerate(record.stages, 1):
            kind = kind_seen(stage)
            if kind == "white-box":
                followed |= (verdicts >= number) | (verdicts == SURVIVED)
            if kind is not None:
                broken[kind] |= verdicts == number
    only = followed & ~broken["white-box"]
    for kind in _KINDS[1:]:
        images = int((only & broken[kind]).sum())
        if outweighs(images, int(robust.sum()), len(robust)):
            yield disagreement(kind, images, right)


def _audit(records: Sequence[Record], robust: NDArray[np.bool_], right: int) -> Iterator[Flag]:
    """Yield a flag if AutoAttack broke some audited survivors and was not run on the others."""
    if _ran(records, _FULL) or not robust.any():
        return
    counted = [audit_counts(record, record.suite) for record in records]
    audits = [counts for counts in counted if counts is not None]
    broken = sum(one.sampled_broken + one.weakest_broken for one in audits)
    if broken:
        of = sum(one.sampled + one.weakest for one in audits)
        cause = "AutoAttack broke some of the few survivors that it audited"
        yield Flag(AUDIT, broken, of, cause, "run autoattack on all images")


def _recheck(checked: Checked, robust: NDArray[np.bool_]) -> Iterator[Flag]:
    """Yield a flag if a recheck broke so many that, in proportion, they outweigh the interval."""
    survivors = int(robust.sum())
    if outweighs(survivors * checked.broken / max(1, checked.sampled), survivors, len(robust)):
        cause = "a recheck of a sample of the survivors broke some of them"
        run = "run the attacks of the recheck on all images"
        yield Flag(RECHECK, checked.broken, checked.sampled, cause, run)


def _no_strong_attack(
    records: Sequence[Record], robust: NDArray[np.bool_], right: int
) -> Iterator[Flag]:
    survivors = int(robust.sum())
    if survivors and not _ran(records, STRONG):
        cause = "neither AutoAttack nor fast attacked the model, and other attacks can miss much"
        run = "run fast, or autoattack"
        yield Flag(NO_STRONG_ATTACK, survivors, len(robust), cause, run)


_KINDS: tuple[Kind, ...] = ("white-box", "gradient-free", "transfer")

_REASONS: tuple[Callable[[Sequence[Record], NDArray[np.bool_], int], Iterator[Flag]], ...] = (
    _diagnosed,
    _disagreements,
    _audit,
    _no_strong_attack,
)

MEANINGS: Mapping[str, str] = {
    "gradient-free-beats-gradients": "random search broke images that no attack by the model's "
    "gradients broke, more than the interval allows for",
    "transfer-beats-white-box": "images made on other models broke images that no attack by the "
    "model's gradients broke, more than the interval allows for",
    AUDIT: "AutoAttack broke some of the audited survivors, and was not run on all",
    RECHECK: "a recheck broke images of its sample; in proportion, all survivors would have more "
    "such images than the interval allows for",
    NO_STRONG_ATTACK: "there are survivors, and neither AutoAttack nor fast was run",
    WENT_ON: "late parts of a suite broke so many images that it ran the parts that it runs only "
    "in doubt, and neither AutoAttack nor strongest was run",
    "a sign of the diagnosis": "more survivors have the sign, such as a gradient of zero or a "
    "random answer, than the interval allows for",
    "clean-at-chance, training-data, not-diagnosed, assumed-…": "a record has the flag for the "
    "model as a whole",
}
"""What each flag of a row means."""


def kind_seen(stage: StageResult) -> Kind | None:
    """Return what a stage used, by its passes; None if it attacked nothing."""
    if stage.source_forwards or stage.source_backwards:
        return "transfer"
    if stage.backwards:
        return "white-box"
    return "gradient-free" if stage.forwards else None


def _ran(records: Sequence[Record], attacks: tuple[str, ...]) -> bool:
    return any(
        stage.attack.startswith(attacks)
        for record in records
        for stage in record.stages
        if not stage.apart
    )


def _verdicts(record: Record) -> NDArray[np.int64]:
    return cast(NDArray[np.int64], np.asarray(record.verdicts))
