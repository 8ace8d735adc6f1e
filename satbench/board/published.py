"""Boards as they are in `leaderboard.json`, chosen and ordered for a reader.

`satbench leaderboard build` writes these files, and `build --check` compares them with the records.
They are read at once; to compute a board from its records takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import msgspec

from satbench.board.definition import BoardDefinition, board_definitions
from satbench.board.file_names import JSON_FILE
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.schema import parse_schema, read_text

SCHEMA = 5
"""The schema of `leaderboard.json`."""

Order = Literal["best-known", "clean", "transfer", "pgd-50", "autoattack", "fast", "gap", "name"]


@dataclass(frozen=True)
class ModelNumbers:
    """The numbers of a model in a table: a part of its object in the file; shares are in [0, 1]."""

    rank: int
    rank_worst: int
    model: str
    mark: str
    activation: str
    flags: str | None
    records: int
    clean: float
    transfer: float | None
    pgd50: float | None
    autoattack: float | None
    fast: float | None
    best_known: float
    best_known_low: float
    best_known_high: float
    certified: float | None
    gap: float | None


@dataclass(frozen=True)
class BoardNumbers:
    """A board: its models, and `values`, its whole object in the file."""

    dataset: str
    n: int
    norm: str
    eps: str
    models: tuple[ModelNumbers, ...]
    values: Mapping[str, object]

    @property
    def title(self) -> str:
        """The board for people: `fashion-mnist, Linf, eps 0.1`."""
        return f"{self.dataset}, {self.norm.capitalize()}, eps {self.eps}"


def read_numbers(text: str, where: str) -> list[BoardNumbers]:
    """Read `leaderboard.json`.  Raises SatbenchError for another file or a wrong one."""
    values = parse_schema(text, "board", where, (SCHEMA,))
    try:
        return numbers_of(values["benchmarks"])
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise SatbenchError(
            f"the board {where} is wrong ({error}); satbench leaderboard build writes it again"
        ) from None


def numbers_of(benchmarks: Sequence[Mapping[str, object]]) -> list[BoardNumbers]:
    """Return boards from their objects in the file."""
    return [_board(one) for one in benchmarks]


def published_numbers() -> list[BoardNumbers] | None:
    """Return the shipped boards; None if a file does not have all the records."""
    found = []
    for one in board_definitions():
        if one.is_filled:
            boards = _published(one)
            if boards is None:
                return None
            found += boards
    return sorted(found, key=lambda board: board.title)


def chosen(
    boards: Sequence[BoardNumbers],
    dataset: str | None = None,
    activation: str | None = None,
    order: Order = "best-known",
    top: int | None = None,
) -> list[BoardNumbers]:
    """Return the boards of a data set, with the models of an activation, the `top` first in order.

    `activation` includes all its settings: `celu` includes `celu(alpha=2)`.  Models without the
    number that orders them come last.  Raises UnknownNameError for a name that is on no board.
    """
    _check("dataset", dataset, {board.dataset for board in boards})
    models = [model for board in boards for model in board.models]
    known = {model.activation for model in models}
    _check("activation", activation, known | {spec.partition("(")[0] for spec in known})
    return [
        _kept(
            board,
            sorted(
                (
                    model
                    for model in board.models
                    if activation in (None, model.activation, model.activation.partition("(")[0])
                ),
                key=_key(order),
            )[:top],
            activation,
        )
        for board in boards
        if dataset in (None, board.dataset)
    ]


def _board(values: Mapping[str, object]) -> BoardNumbers:
    models = cast(Sequence[Mapping[str, object]], values["models"])
    return BoardNumbers(
        str(values["dataset"]),
        int(str(values["n"])),
        str(values["norm"]),
        str(values["eps"]),
        tuple(msgspec.convert(model, ModelNumbers) for model in models),
        values,
    )


def _published(definition: BoardDefinition) -> list[BoardNumbers] | None:
    path = definition.folder / JSON_FILE
    if not path.is_file():
        return None
    boards = read_numbers(read_text(path, "board"), str(path))
    told = sum(model.records for board in boards for model in board.models)
    return boards if told == len(list(definition.records.glob("*.json"))) else None


def _kept(
    board: BoardNumbers, models: Sequence[ModelNumbers], activation: str | None
) -> BoardNumbers:
    objects = cast(Sequence[Mapping[str, object]], board.values["models"])
    by_model = {id(model): value for model, value in zip(board.models, objects, strict=True)}
    names = {model.model for model in models}
    values: dict[str, object] = {**board.values, "models": [by_model[id(one)] for one in models]}
    flags = cast(Sequence[Mapping[str, object]], board.values["flags"])
    values["flags"] = [flag for flag in flags if flag["model"] in names]
    for part in ("groups", "against_relu"):
        lines = cast(Sequence[Mapping[str, object]], board.values[part])
        values[part] = [line for line in lines if _is_of(str(line["activation"]), activation)]
    return replace(board, models=tuple(models), values=values)


def _is_of(spec: str, activation: str | None) -> bool:
    return activation in (None, spec, spec.partition("(")[0])


def _check(kind: str, name: str | None, known: set[str]) -> None:
    if name is not None and name not in known:
        raise UnknownNameError(kind, name, known)


def _key(order: Order) -> Callable[[ModelNumbers], tuple[bool, float, str]]:
    field = {"best-known": "best_known", "pgd-50": "pgd50"}.get(order, order)

    def key(model: ModelNumbers) -> tuple[bool, float, str]:
        value = 0.0 if order == "name" else getattr(model, field)
        return value is None, -(value or 0.0), model.model

    return key
