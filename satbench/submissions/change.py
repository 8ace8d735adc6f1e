"""The changes of a board by new records: their row, and the ranks of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from satbench.board.board import Benchmark, build_board
from satbench.board.definition import BoardDefinition
from satbench.board.marks import countable_rechecks
from satbench.board.rows import RankSet, Row
from satbench.core.errors import SatbenchError
from satbench.records.rechecks import read_rechecks
from satbench.records.record import ModelInfo, Record


@dataclass(frozen=True)
class Moved:
    """A model whose set of ranks changes."""

    model: str
    weights_digest: str
    before: RankSet
    after: RankSet


@dataclass(frozen=True)
class BoardChange:
    """The new row of a model, its row `before`, if any, and the models whose rank changes.

    `models` is how many models the board has afterwards.
    """

    row: Row
    before: Row | None
    moved: tuple[Moved, ...]
    models: int


def change_of(board: BoardDefinition, records: Sequence[Record]) -> BoardChange:
    """Return the changes of a board by `records`, all of one model.

    Raises SatbenchError for records that the board cannot count.
    """
    there = board.read_records([])
    rechecks = read_rechecks(board.rechecks, [])
    before = build_board(there, left_out=[], rechecks=rechecks).benchmarks if there else ()
    after = build_board(
        [*there, *records], rechecks=countable_rechecks(rechecks, there)[0]
    ).benchmarks
    if len(after) != 1:
        raise SatbenchError(
            f"the images of the record are not those of the board {board.name}: their digest "
            "differs"
        )
    row = _row(after[0], records[0].model)
    assert row is not None  # noqa: S101 (its records are among those of the board)
    old = {_key(one.model): one for one in before[0].rows} if before else {}
    moved = [
        Moved(one.model.name, one.model.weights_digest, old[_key(one.model)].rank, one.rank)
        for one in after[0].rows
        if _key(one.model) in old and old[_key(one.model)].rank != one.rank
    ]
    return BoardChange(row, old.get(_key(records[0].model)), tuple(moved), len(after[0].rows))


def _row(benchmark: Benchmark, model: ModelInfo) -> Row | None:
    return next((row for row in benchmark.rows if _key(row.model) == _key(model)), None)


def _key(model: ModelInfo) -> tuple[str, str, str, str]:
    return model.weights_digest, model.architecture, model.activation, model.answers_digest
