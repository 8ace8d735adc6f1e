"""The board: everything that the tables show, computed only from records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from satbench.board.definition import BoardDefinition
from satbench.board.marks import countable_rechecks
from satbench.board.ranking import Comparison, compare_with_relu, rank_rows
from satbench.board.rows import COLUMNS, Column, Group, Row, make_groups, make_row
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat, show_fraction
from satbench.records.answers import known_again
from satbench.records.certificates import Certificate
from satbench.records.certified import (
    certificates_of,
    certificates_without_row,
    countable_certificates,
)
from satbench.records.check import check_record
from satbench.records.rechecks import RecheckRecord, read_rechecks
from satbench.records.record import DatasetInfo, ModelInfo, Record


@dataclass(frozen=True)
class Benchmark:
    """Models that were attacked on the same images under the same threat model.

    `rows` are ordered by best known accuracy, `groups` by its mean.  `told_apart` is how many pairs
    of models the test distinguishes.  `columns` are the shown columns.
    """

    dataset: DatasetInfo
    threat: Threat
    rows: tuple[Row, ...]
    groups: tuple[Group, ...]
    comparisons: tuple[Comparison, ...]
    told_apart: int
    columns: tuple[Column, ...] = tuple(COLUMNS)

    @property
    def title(self) -> str:
        """The benchmark for people: `fashion-mnist, Linf, eps 0.1`."""
        eps = show_fraction(self.threat.eps)
        return f"{self.dataset.name}, {self.threat.norm.capitalize()}, eps {eps}"


@dataclass(frozen=True)
class Board:
    """The benchmarks, ordered by data set, then threat model; never empty."""

    benchmarks: tuple[Benchmark, ...]


def build_board(
    records: Sequence[Record],
    references: Sequence[Record] = (),
    left_out: list[str] | None = None,
    rechecks: Sequence[RecheckRecord] = (),
    certificates: Sequence[Certificate] = (),
) -> Board:
    """Build the board; the order of the records does not matter.

    `references` are records to compare with (AutoAttack by the package that defines it): they are
    used for costs and agreement, not for columns, and only for models with other records.
    `rechecks` give rows their marks.  Raises SatbenchError for no records, for two of the same run,
    and for one that fails `check_record`.  With a list `left_out`, such records, and the second of
    the same run, are left out instead, and the list gets a sentence for each; likewise a recheck
    that does not follow from its record, and a certificate of an image that a record has broken.
    """
    seen: dict[str, Record] = {}
    records = _countable(records, seen, left_out)
    references = _countable(references, seen, left_out)
    if not records:
        raise SatbenchError(
            "expected at least one record, got none; "
            "make one with satbench eval --model NAME --attack pgd-50 --attack autoattack"
        )
    checks, faults = countable_rechecks(rechecks, records)
    proven, contradictions = countable_certificates(certificates, records)
    faults += contradictions
    if faults and left_out is None:
        raise SatbenchError(faults[0])
    if left_out is not None:
        left_out += faults
    benchmarks, beside = _by_benchmark(records), _by_benchmark(references)
    built = (
        _benchmark(key[1], found, beside.get(key, ()), checks, proven)
        for key, found in benchmarks.items()
    )
    return Board(tuple(sorted(built, key=_order)))


def defined_board(definition: BoardDefinition, left_out: list[str] | None = None) -> Board:
    """Build the board of a definition from its records.

    Raises SatbenchError for no records, and for records that do not belong there or cannot be
    counted; a list `left_out` works as for `build_board`.
    """
    records = definition.read_records(left_out)
    if not records:
        raise SatbenchError(
            f"expected records (*.json) in {definition.records}, found none; make them with "
            f"satbench leaderboard fill {definition.name}"
        )
    references = definition.read_references(left_out)
    rechecks = read_rechecks(definition.rechecks, left_out)
    certificates = definition.read_certificates(left_out)
    benchmarks = build_board(records, references, left_out, rechecks, certificates).benchmarks
    name_certificates_without_row(certificates, records, left_out)
    if len(benchmarks) != 1:
        digests = ", ".join(one.dataset.digest[:12] for one in benchmarks)
        raise SatbenchError(
            f"expected records of the same images in {definition.records}, got those of the "
            f"digests {digests}"
        )
    return Board((replace(benchmarks[0], columns=definition.columns),))


def name_certificates_without_row(
    certificates: Sequence[Certificate], records: Sequence[Record], left_out: list[str] | None
) -> None:
    """Add a sentence to `left_out` for each certificate of no row; raise the first without a list.

    Otherwise a certificate with changed weights would stay in the folder unnoticed.
    """
    faults = certificates_without_row(certificates, records)
    if faults and left_out is None:
        raise SatbenchError(faults[0])
    if left_out is not None:
        left_out += faults


def _by_benchmark(records: Sequence[Record]) -> Mapping[tuple[str, Threat], list[Record]]:
    benchmarks = defaultdict(list)
    for record in records:
        threat = Threat.of(record.norm, record.eps)
        benchmarks[record.dataset.digest, threat].append(record)
    return benchmarks


def _refuse_faults(record: Record) -> None:
    faults = check_record(record) or ["there are no images"] * (not record.n)
    if faults:
        raise SatbenchError(
            f"the record of {record.model.name} ({record.identity[:12]}) cannot be counted: "
            f"{'; '.join(faults)}; evaluate the model again"
        )


def _refuse_doubles(record: Record, seen: Mapping[str, Record]) -> None:
    if record.identity in seen:
        raise SatbenchError(
            f"two records have the identity {record.identity} "
            f"({seen[record.identity].model.name} and {record.model.name}); remove one of them"
        )


def _countable(
    records: Sequence[Record], seen: dict[str, Record], left_out: list[str] | None
) -> list[Record]:
    """Return the records that can be counted; bad ones are left out, or the first is raised."""
    found = []
    for record in records:
        try:
            _refuse_faults(record)
            _refuse_doubles(record, seen)
        except SatbenchError as error:
            if left_out is None:
                raise
            left_out.append(f"{record.path}: {error}")
            continue
        seen[record.identity] = record
        found.append(record)
    return found


def _benchmark(
    threat: Threat,
    records: Sequence[Record],
    references: Sequence[Record],
    rechecks: Sequence[RecheckRecord],
    certificates: Sequence[Certificate],
) -> Benchmark:
    infos = (record.dataset for record in records)
    dataset = min(infos, key=lambda info: (info.name, info.split, info.classes, info.n))
    for record in (*records, *references):
        if record.dataset.n != dataset.n:
            raise SatbenchError(
                f"the records of {record.model.name} and others give the data set "
                f"{dataset.digest[:12]} both {dataset.n} and {record.dataset.n} images"
            )
    models, beside = _by_model(records), _by_model(references)
    made = [
        make_row(found, beside.get(key, ()), rechecks, certificates_of(found, certificates))
        for key, found in models.items()
    ]
    rows, told_apart = rank_rows(made)
    groups = make_groups(rows)
    compared = tuple(compare_with_relu(groups))
    return Benchmark(dataset, threat, tuple(rows), tuple(groups), compared, told_apart)


def _by_model(records: Sequence[Record]) -> Mapping[tuple[str, ...], list[Record]]:
    models: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    firsts: list[ModelInfo] = []
    for record in records:
        # As in a run's identity: the same tensors with another activation or other code are another
        # model; rounding alone does not make one.
        model = known_again(record.model, firsts)
        firsts.append(model)
        key = (model.weights_digest, model.architecture, model.activation, model.answers_digest)
        models[key].append(record)
    return models


def _order(benchmark: Benchmark) -> tuple[str, str, int, str, str, Fraction]:
    dataset, threat = benchmark.dataset, benchmark.threat
    return dataset.name, dataset.split, dataset.n, dataset.digest, threat.norm, threat.eps
