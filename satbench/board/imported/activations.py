"""The activations of other benchmarks' entries: a table of names with the source of each line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.schema import convert, read_toml_values

SCHEMA = 1

SMOOTH = frozenset(
    {"silu", "gelu", "softplus", "parametric-softplus", "pssilu", "mish", "celu", "smooth-relu"}
)
"""Activations whose slope has no jump; ELU with α other than 1 has one, so it is not listed."""

UNSMOOTH = frozenset({"mean-sparse"})
"""Operators with a jump: a network with one before its activations is neither kind."""


@dataclass(frozen=True)
class Known:
    """An entry's activation, other activations of its smaller parts, and the source."""

    activation: str
    source: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    schema: int
    origin: str
    entries: dict[str, Known]


def activation_table(path: Path | None = None) -> Mapping[str, Known]:
    """Return what is known about RobustBench's entries, by `DATASET/THREAT/NAME`.

    Raises SatbenchError naming the file and the field, also for an entry without a source.

    >>> activation_table()["cifar10/Linf/Wang2023Better_WRN-28-10"].activation
    'silu'
    """
    path = path or content_folder("leaderboard") / "robustbench" / "activations.toml"
    what = "table of activations"
    table = convert(read_toml_values(path, what), _Table, what, str(path))
    if table.schema != SCHEMA:
        raise SatbenchError(
            f"expected schema {SCHEMA} in {path}, got {table.schema}; update satbench"
        )
    for name, known in table.entries.items():
        if not (known.source and known.activation):
            raise SatbenchError(
                f"the {what} {path} is wrong: {name}: expected an activation and its source"
            )
    return table.entries


def kind_of(activation: str | None, beside: tuple[str, ...]) -> str | None:
    """Return `smooth` or `relu`, None for an activation that is unknown or neither.

    >>> kind_of("silu", ("relu",)), kind_of("silu", ("mean-sparse",)), kind_of("leaky-relu", ())
    ('smooth', None, None)
    """
    if activation is None or UNSMOOTH & set(beside):
        return None
    return "smooth" if activation in SMOOTH else "relu" if activation == "relu" else None
