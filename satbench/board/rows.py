"""Rows (one per model) and groups (models that differ only in the training seed) from records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from satbench.board.agreement import Agreement, agreement_of
from satbench.board.cost import Cost, cost_of
from satbench.board.doubts import doubts_of
from satbench.board.marks import Checked, Mark, checked_of, mark_of
from satbench.core.stats.intervals import wilson_interval
from satbench.records.attack_run import attack_runs, passes_of, version_of
from satbench.records.certificates import Certificate
from satbench.records.certified import certified_of
from satbench.records.flags import Flag
from satbench.records.rechecks import RecheckRecord
from satbench.records.record import SURVIVED, ModelInfo, Record, StageResult

Column = Literal[
    "clean", "transfer", "pgd50", "autoattack", "fast", "best_known", "certified", "gap"
]

COLUMNS: Mapping[Column, str] = {
    "clean": "Clean",
    "transfer": "Transfer",
    "pgd50": "PGD-50",
    "autoattack": "AutoAttack",
    "fast": "Fast",
    "best_known": "Best known",
    "certified": "Certified",
    "gap": "Gap",
}
"""The columns of numbers, in order, with their titles."""

_STRONGER_THAN_PGD = ("autoattack", "fast(", "strongest(")  # without them, a gap of 0 says nothing


@dataclass(frozen=True)
class Share:
    """`count` of `n` images."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return wilson_interval(self.count, self.n)


@dataclass(frozen=True)
class TrainingInfo:
    """How a model was trained, according to its record; `attack` is empty for no attack.

    `objective` is the certified objective, which bounds all images of the ball; None for another.
    """

    recipe: str | None
    seed: int | None
    threat: str | None
    attack: str | None
    objective: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether recipe and seed are known, so that models can be compared over seeds."""
        return self.recipe is not None and self.seed is not None

    @property
    def is_control(self) -> bool:
        """Whether it is known that there was no adversarial training."""
        return self.attack == "" and self.objective is None


@dataclass(frozen=True)
class RankSet:
    """The possible ranks of a model: `best` is 1 + the number of models shown to be better.

    `worst` is the number of all models minus those shown to be worse.
    """

    best: int
    worst: int

    def __str__(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}–{self.worst}"


@dataclass(frozen=True)
class Row:
    """A model on a benchmark, from all its records.

    `robust` has one truth value per image: whether it survived in every record.  `records` are
    these records, `attacks` the specs that they ran, and the search cost `passes_per_image`
    (forward and backward, of the model and of surrogates).  `flags` are the reasons to doubt that
    the number is low enough, one per name; None if no record has a diagnosis.  `cost` and
    `agreement` use reference records too, which are used for nothing else.  `masks` (N,) say for
    each column of accuracies which images are right.  `rank` is 0 until `rank_rows` sets it.
    `mark` says how far the numbers were checked, and `checked` is the result of rechecks.
    """

    model: ModelInfo
    clean: Share
    transfer: Share | None
    pgd50: Share | None
    autoattack: Share | None
    fast: Share | None
    best_known: Share
    robust: tuple[bool, ...]
    records: tuple[Record, ...]
    attacks: tuple[str, ...]
    passes_per_image: float
    flags: tuple[Flag, ...] | None
    cost: Cost
    agreement: Agreement | None
    masks: Mapping[Column, NDArray[np.bool_]] = field(compare=False, default_factory=dict)
    rank: RankSet = RankSet(0, 0)
    mark: Mark = "unverified"
    checked: Checked | None = None
    certified: Share | None = None

    @property
    def training(self) -> TrainingInfo:
        """How the model was trained."""
        known = self.model.training
        seed = known.get("seed")
        texts = {key: known.get(key) for key in ("recipe", "threat", "attack", "objective")}
        return TrainingInfo(
            seed=seed if isinstance(seed, int) else None,
            **{key: text if isinstance(text, str) else None for key, text in texts.items()},
        )

    def share(self, column: Column) -> Share | None:
        """Return the accuracy of a column; None if no record ran the attack, and for the gap."""
        share: Share | None = None if column == "gap" else getattr(self, column)
        return share

    def value(self, column: Column) -> float | None:
        """Return a column's number, a share of the images.

        The gap is PGD-50 minus best known.  It is None if no other attack broke more and none of
        AutoAttack, fast and strongest ran.
        """
        if column == "gap":
            return self._gap()
        share = self.share(column)
        return None if share is None else share.value

    def _gap(self) -> float | None:
        if self.pgd50 is None:
            return None
        missed = self.pgd50.count - self.best_known.count
        ran_stronger = any(one.startswith(_STRONGER_THAN_PGD) for one in self.attacks)
        return missed / self.pgd50.n if missed or ran_stronger else None


@dataclass(frozen=True)
class Summary:
    """A mean over training seeds and their standard deviation (n - 1; None for one seed)."""

    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True)
class Group:
    """Models with the same training that differ only in the seed; never empty.

    A model of unknown recipe or seed is a separate group.
    """

    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        """One of its models, for the properties that all share."""
        return self.rows[0]

    @property
    def seeds(self) -> int:
        """The number of training seeds."""
        return len({row.training.seed for row in self.rows})

    def by_seed(self, column: Column) -> dict[int | None, float]:
        """Return a column's number for each training seed that has it.

        If two models have the same seed (trained twice on different machines), it is their mean.
        """
        values = defaultdict(list)
        for row in self.rows:
            value = row.value(column)
            if value is not None:
                values[row.training.seed].append(value)
        return {seed: fmean(found) for seed, found in values.items()}

    def masks_by_seed(self, column: Column) -> dict[int | None, NDArray[np.float64]]:
        """Return which images are right, (N,) in [0, 1], for each training seed with the column.

        If two models have the same seed, it is their mean.
        """
        found = defaultdict(list)
        for row in self.rows:
            if column in row.masks:
                found[row.training.seed].append(row.masks[column].astype(np.float64))
        return {seed: np.mean(masks, axis=0) for seed, masks in found.items()}

    def summary(self, column: Column) -> Summary | None:
        """Return a column's mean over the training seeds; None if no seed has it."""
        values = list(self.by_seed(column).values())
        if not values:
            return None
        return Summary(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def make_row(
    records: Sequence[Record],
    references: Sequence[Record] = (),
    rechecks: Sequence[RecheckRecord] = (),
    certificates: Sequence[Certificate] = (),
) -> Row:
    """Return the row of one model on one benchmark; `references` are its reference records.

    A column counts the images that survived in every record that ran its attack.  For `fast`, only
    the records of its newest version count.  The passes of a stage that several records have count
    once.  `rechecks`, of any records, give it its mark.  `certificates` are those of the model on
    these images.
    """
    survivors = [_standing(record, 0) for record in records]
    clean = np.logical_and.reduce(survivors)
    robust = np.logical_and.reduce([_standing(record, len(record.stages)) for record in records])
    searches = _searches(records)
    passes = sum(passes_of(stage) for stage in searches)
    runs = attack_runs([*records, *references])
    checked = checked_of(robust, records, rechecks)
    masks: dict[Column, NDArray[np.bool_] | None] = {
        "clean": clean,
        "transfer": _column(records, _transfer_stage, clean),
        "pgd50": _column(records, _pgd50_stage, clean),
        "autoattack": _column(records, _autoattack_stage, clean),
        "fast": _column(_of_newest_fast(records), _fast_stage, clean),
        "best_known": robust,
        "certified": certified_of(certificates),
    }
    measured = {column: mask for column, mask in masks.items() if mask is not None}
    shares = {column: _share(mask) for column, mask in measured.items()}
    return Row(
        model=min(records, key=_as_named).model,
        clean=shares["clean"],
        transfer=shares.get("transfer"),
        pgd50=shares.get("pgd50"),
        autoattack=shares.get("autoattack"),
        fast=shares.get("fast"),
        best_known=shares["best_known"],
        robust=tuple(robust.tolist()),
        records=tuple(sorted(records, key=lambda record: record.identity)),
        attacks=tuple(sorted({stage.attack for stage in searches})),
        passes_per_image=passes / len(robust),
        flags=doubts_of(records, _in_doubt(robust, masks["certified"]), checked),
        cost=cost_of(runs),
        agreement=agreement_of(runs),
        masks=measured,
        mark=mark_of(robust, checked),
        checked=checked,
        certified=shares.get("certified"),
    )


def _searches(records: Sequence[Record]) -> list[StageResult]:
    """Return the stages that were run, each once: a challenge also has those of its parent."""
    ran = {
        (stage.origin or record.identity, stage.attack, stage.part): stage
        for record in records
        for stage in record.stages
    }
    return list(ran.values())


def make_groups(rows: Sequence[Row]) -> list[Group]:
    """Group the models that differ only in the training seed, the most robust group first.

    Within a group the seeds ascend.
    """
    groups = defaultdict(list)
    for row in sorted(rows, key=_seed_order):
        groups[_kind(row)].append(row)
    return sorted((Group(tuple(group)) for group in groups.values()), key=_group_order)


def _standing(record: Record, stages: int) -> NDArray[np.bool_]:
    """Return which images are right after the first `stages` stages.  -> (N,)."""
    verdicts = np.asarray(record.verdicts)
    standing: NDArray[np.bool_] = (verdicts == SURVIVED) | (verdicts > stages)
    return standing


def _in_doubt(robust: NDArray[np.bool_], certified: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return the survivors, (N,), or none if a certificate covers them all."""
    if certified is None or (robust & ~certified).any():
        return robust
    return np.zeros_like(robust)


def _column(
    records: Sequence[Record],
    stage_of: Callable[[Record], int | None],
    clean: NDArray[np.bool_],
) -> NDArray[np.bool_] | None:
    stages = ((record, stage_of(record)) for record in records)
    masks = [_standing(record, stage) for record, stage in stages if stage is not None]
    if not masks:
        return None
    left: NDArray[np.bool_] = np.logical_and.reduce([clean, *masks])
    return left


def _pgd50_stage(record: Record) -> int | None:
    return _last_stage(record, "pgd(steps=50,", behind="pgd(")


def _transfer_stage(record: Record) -> int | None:
    # After its last part: the worst case over its sources.
    return _last_stage(record, "transfer(", behind="transfer(")


def _autoattack_stage(record: Record) -> int | None:
    return _last_stage(record, ("autoattack(", "autoattack-reference("))


def _fast_stage(record: Record) -> int | None:
    return _last_stage(record, "fast(")


def _of_newest_fast(records: Sequence[Record]) -> list[Record]:
    """Return the records with the newest version of `fast` that any of them has."""
    versions = {
        record.identity: version_of(record.stages[stage - 1].attack)
        for record in records
        if (stage := _fast_stage(record)) is not None
    }
    newest = max(versions.values(), default=0)
    return [record for record in records if versions.get(record.identity) == newest]


def _last_stage(record: Record, spec: str | tuple[str, ...], behind: str = "") -> int | None:
    """Return the last stage whose attack begins with `spec`, if all before begin with `behind`.

    After an attack of another kind, the survivors say nothing about PGD or transfer by themselves.
    """
    last = None
    for number, stage in enumerate(record.stages, 1):
        if not stage.attack.startswith(behind):
            break
        if stage.attack.startswith(spec):
            last = number
    return last


def _share(mask: NDArray[np.bool_]) -> Share:
    return Share(int(mask.sum()), len(mask))


def _as_named(record: Record) -> tuple[bool, str, str]:
    # The same weights may be a zoo entry and a file: prefer the name in the zoo.
    return record.model.source != "zoo", record.model.name, record.identity


def _kind(row: Row) -> tuple[str, ...]:
    training = row.training
    return (
        row.model.architecture,
        row.model.activation,
        training.recipe or "",
        training.threat or "",
        training.attack or "",
        "" if training.is_known else row.model.weights_digest,
    )


def _seed_order(row: Row) -> tuple[int, str, str]:
    seed = row.training.seed
    return -1 if seed is None else seed, row.model.name, row.model.weights_digest


def _group_order(group: Group) -> tuple[float, str, tuple[str, ...]]:
    best = fmean(group.by_seed("best_known").values())
    return -best, group.first.training.recipe or "", _kind(group.first)
