"""The matrix of transfer attacks as data: each target under images made on each source.

JSON in and out, no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.schema import convert, parse_schema, read_text
from satbench.core.stats.intervals import wilson_interval
from satbench.records.record import (
    PROTOCOL,
    DatasetInfo,
    Environment,
    ModelInfo,
    leave_out_unknown,
)

TRANSFER_SCHEMA = 1

KIND = "transfer"


@dataclass(frozen=True)
class TransferSource:
    """A source of a matrix: the models that images were made on.

    `weights` are the digests of its models by name: one, or several for an ensemble.  `forwards`
    and `backwards` are the passes to make one image for every test image, once for all targets.
    `search` says what was searched, as in a record's stages.
    """

    name: str
    weights: dict[str, str]
    forwards: int
    backwards: int
    search: str = field(default="", compare=False)


@dataclass(frozen=True)
class TransferTarget:
    """One target: how many images it gets right, as the judge decided.

    `correct` has one count per source; an image that is wrong when clean is wrong under every
    source.  `white_box` says which sources contain the target itself.  Over the others, `worst` is
    the number of images right under all of them (None if there are no others), and `broken_by`
    counts the images right when clean by how many sources broke them, 0, 1, ….  Its `forwards` are
    those of the judge: one per clean image, and one per image and source.
    """

    model: ModelInfo
    clean_correct: int
    correct: list[int]
    white_box: list[bool]
    worst: int | None
    broken_by: list[int]
    forwards: int


@dataclass(frozen=True)
class TransferMatrix:
    """Every source against every target, for one attack, data set, threat model and seed."""

    identity: str
    dataset: DatasetInfo
    norm: str
    eps: str
    seed: int
    attack: str
    sources: list[TransferSource]
    targets: list[TransferTarget]
    environment: Environment
    kind: str = KIND
    protocol: int = PROTOCOL
    schema: int = TRANSFER_SCHEMA

    @property
    def n(self) -> int:
        """The number of images."""
        return self.dataset.n

    def interval(self, correct: int) -> tuple[float, float]:
        """Return the 95 % Wilson interval of `correct` of all images, in [0, 1]."""
        return wilson_interval(correct, self.n)

    def to_json(self) -> str:
        """Return the matrix as JSON text; `parse_matrix` is its inverse."""
        values = asdict(self)
        leave_out_unknown(values["environment"])
        return json.dumps(values, indent=1, allow_nan=False) + "\n"


def matrix_identity(
    dataset: DatasetInfo,
    threat: str,
    seed: int,
    attack: str,
    sources: Mapping[str, ModelInfo],
    targets: Mapping[str, ModelInfo],
) -> str:
    """Return the identity of a matrix: the SHA-256 of its inputs.  `attack` names the sources."""
    inputs = {
        "kind": KIND,
        "protocol": PROTOCOL,
        "dataset": dataset.digest,
        "threat": threat,
        "seed": seed,
        "attack": attack,
        "sources": {name: _weights(info) for name, info in sources.items()},
        "targets": [[name, _weights(info)] for name, info in targets.items()],
    }
    return digest_json(inputs)


def _weights(info: ModelInfo) -> list[str]:
    return [info.architecture, info.activation, info.weights_digest, info.answers_digest]


def parse_matrix(text: str, where: str) -> TransferMatrix:
    """Read a matrix from JSON text.  Raises SatbenchError naming `where` and what is wrong."""
    what = "transfer matrix"
    values = parse_schema(text, what, where, (TRANSFER_SCHEMA,), KIND)
    matrix = convert(values, TransferMatrix, what, where)
    if matrix.n < 1:
        raise SatbenchError(f"the {what} {where} is wrong: dataset.n: expected 1 or more")
    if any(
        not len(target.correct) == len(target.white_box) == len(matrix.sources)
        for target in matrix.targets
    ):
        raise SatbenchError(
            f"the transfer matrix {where} must have {len(matrix.sources)} counts for each target"
        )
    return matrix


def read_matrix(path: Path) -> TransferMatrix:
    """Read a matrix from a file.  Raises SatbenchError for a missing or malformed one."""
    return parse_matrix(read_text(path, "transfer matrix"), str(path))


def write_matrix(matrix: TransferMatrix, path: Path) -> None:
    """Write a matrix atomically."""
    write_text(path, matrix.to_json())
