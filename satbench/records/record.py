"""The record: the finished result of a run as data.  JSON in and out, no torch.

Everything that a reader needs to check the result is in it or named by a digest.  Two runs of the
same inputs give the same bytes, except for `environment` (times, host, versions) and, on another
machine, for what was searched (`search` of a stage).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.core.files import file_stem, write_text
from satbench.core.schema import Number, convert, parse_schema, read_text
from satbench.records.flags import Flag

SCHEMA = 2
"""The schema of new records; those of schema 1, which lack later fields, can be read too."""

PROTOCOL = 2
"""The protocol; it rises with every change of the program that can change a number.

1: `autoattack` and its parts ran by the package pyautoattack.  2: they run by satbench's own
engine, and `autoattack-reference` by the package.
"""

_PLACE = "@verdicts@"  # holds the place of the verdicts while the rest is indented

_IN_NO_FILE = {"path", "found"}

WRONG_CLEAN = 0
SURVIVED = -1


@dataclass(frozen=True)
class ModelInfo:
    """The model under evaluation.

    `source` says how it was given: `zoo`, `user-zoo`, `file`, `factory`, `python`, `plug-in NAME`,
    or a source such as `robustbench`.  `weights_digest` is the SHA-256 of its named tensors.
    `training` says how it was trained according to its card: recipe, seed, attack, …; it is empty
    for a model without a card.  `answers` are numbers of its logits and gradients on the first
    images (`satbench.records.answers`), for models of a user's own code, which weights alone do not
    identify.  `answers_digest` is their SHA-256; older records have a digest of rounded logits, and
    no answers.  `assumed` lists what neither a file of weights nor the user said about the network,
    such as `normalize=cifar10`, separated by spaces; it is empty if nothing was assumed.
    """

    name: str
    source: str
    architecture: str
    activation: str
    parameters: int
    weights_digest: str
    training: dict[str, Any]
    answers_digest: str = ""
    answers: str = ""
    assumed: str = ""


@dataclass(frozen=True)
class DatasetInfo:
    """The images: the first `n` of a named split, with the SHA-256 of exactly these.

    If `population` is above 0, they are the first `n` of a random order of that many.
    """

    name: str
    split: str
    n: int
    classes: int
    digest: str
    population: int = 0


@dataclass(frozen=True)
class StageResult:
    """One stage of the suite.

    `attack` is the canonical spec of the suite's attack and `part` the stage's name in it (empty
    for an attack of one stage).  The stage attacked `attacked` images, and the judge found `broken`
    of them broken.  The search cost `forwards` and `backwards` passes of the model, and
    `source_forwards` and `source_backwards` of surrogates, given or trained.  `passed_over` images
    survived until here, but the stage did not attack them.

    `by` says who ran a challenge.  `origin`, `seed` and `protocol` describe a stage from another
    record: that record's identity, and the seed and protocol of its run; None for the record's own
    stages.  A stage that ran `apart` has the numbers of its own record, where other stages ran
    before it.  So fewer verdicts than `broken` may name it.

    `search` is `folded` if fast copies were searched, each checked against its model, and `plain`
    if a model was searched directly; it is empty if none was, and in older records.  It does not
    affect the result, and may differ on another machine.  It is the precision if the search was in
    less than float32 (`satbench.engine.machine.ways`), which may break other images.
    """

    attack: str
    part: str
    attacked: int
    broken: int
    forwards: int
    backwards: int
    source_forwards: int = 0
    source_backwards: int = 0
    passed_over: int = 0
    by: str = ""
    origin: str = ""
    seed: int | None = None
    protocol: int | None = None
    apart: bool = False
    search: Annotated[str, Meta(pattern="^(folded|plain|tf32|bfloat16|float16|)$")] = field(
        default="", compare=False
    )


@dataclass(frozen=True)
class Environment:
    """The parts that may differ between two runs of the same inputs: versions, host, seconds.

    `flops` are those of the model itself in the clean pass and the stages, and `joules` what the
    machine reports for that time, with everything else that ran on it; None if unknown, and in
    older records.
    """

    satbench: str
    torch: str
    python: str
    platform: str
    device: str
    threads: int
    batch_size: int
    finished: str
    clean_seconds: Number
    stage_seconds: list[Number]
    flops: Number | None = None
    joules: Number | None = None


def leave_out_unknown(environment: dict[str, Any]) -> None:
    """Remove unknown fields, so that older files keep their bytes."""
    for name in ("flops", "joules"):
        if environment[name] is None:
            del environment[name]


@dataclass(frozen=True)
class Diagnosis:
    """Signs that robustness may be overstated, and the passes that looking for them cost.

    `images` were examined; None in older records, which do not state it.
    """

    flags: list[Flag]
    forwards: int
    backwards: int
    images: int | None = None


@dataclass(frozen=True)
class Sequential:
    """A run that computed the interval after each chunk of images, and stopped once it was narrow.

    `low` and `high` bound the share of the whole population that survives, at 95 % whenever one
    stops; the run continued until they were at most `width` apart.
    """

    width: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class Record:
    """The finished result of one run.

    `verdicts` has one number per image, in the data set's order: -1 survived, 0 wrong when clean, k
    broken by stage k (counted from 1).  `witnesses_digest` is the SHA-256 of the witnesses next to
    the record.  `sources` are the surrogates, name to digest of weights.  `replacements` are the
    layers with a differentiable replacement in searches (BPDA), name to replacement.  `notes` tell
    a reader how the model was used, one sentence each.  `suites` are the suite files that were run,
    name to digest of their parts.

    Two fields are about this object and are not in the file: `path` is the file that it was read
    from or written to, and `found` says whether `satbench.evaluate` found it there.
    """

    identity: str
    model: ModelInfo
    dataset: DatasetInfo
    norm: str
    eps: str
    seed: int
    suite: list[str]
    stages: list[StageResult]
    verdicts: list[int]
    witnesses_digest: str
    environment: Environment
    sources: dict[str, str] = field(default_factory=dict)
    replacements: dict[str, str] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    sequential: Sequential | None = None
    notes: list[str] = field(default_factory=list)
    suites: dict[str, str] = field(default_factory=dict)
    protocol: int = PROTOCOL
    schema: int = SCHEMA
    path: Path | None = field(default=None, compare=False, repr=False)
    found: bool = field(default=False, compare=False, repr=False)

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.verdicts)

    @property
    def clean_correct(self) -> int:
        """How many images the model gets right without an attack."""
        return sum(verdict != WRONG_CLEAN for verdict in self.verdicts)

    def surviving(self, stages: int | None = None) -> int:
        """How many images are right after the first `stages` stages (all of them for None)."""
        last = len(self.stages) if stages is None else stages
        return sum(verdict == SURVIVED or verdict > last for verdict in self.verdicts)

    def attack_stages(self) -> list[tuple[str, list[int]]]:
        """Return the attacks of the suite in order, each with the numbers (from 1) of its stages.

        An attack that ran again as a challenge, with another seed, is listed twice.
        """
        numbered = groupby(
            enumerate(self.stages, 1), key=lambda pair: (pair[1].attack, pair[1].origin)
        )
        return [(attack, [number for number, _ in pairs]) for (attack, _), pairs in numbered]

    @property
    def history(self) -> list[list[str | int | bool | None]]:
        """Where each stage comes from; empty for a record that one evaluation made."""
        return history_of(self.stages)

    def to_json(self) -> str:
        """Return the record as JSON text; `parse_record` is its inverse."""
        values = {name: value for name, value in asdict(self).items() if name not in _IN_NO_FILE}
        for stage in values["stages"]:
            if not stage["search"]:  # older records keep their bytes
                del stage["search"]
        leave_out_unknown(values["environment"])
        if values["diagnosis"] and values["diagnosis"]["images"] is None:
            del values["diagnosis"]["images"]
        verdicts = json.dumps(values.pop("verdicts"), separators=(",", ":"))
        # One line for the verdicts, so that a diff of two records is readable.
        values["verdicts"] = _PLACE
        return json.dumps(values, indent=1).replace(f'"{_PLACE}"', verdicts) + "\n"


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the outcome of a run, and so its identity."""

    model: ModelInfo
    dataset: DatasetInfo
    norm: str
    eps: str
    seed: int
    suite: list[str]
    sources: dict[str, str] = field(default_factory=dict)
    replacements: dict[str, str] = field(default_factory=dict)
    protocol: int = PROTOCOL
    history: list[list[str | int | bool | None]] = field(default_factory=list)


def inputs_of(record: Record) -> Inputs:
    """Return the inputs in a record."""
    return Inputs(**{one.name: getattr(record, one.name) for one in fields(Inputs)})


def record_stem(inputs: Inputs) -> str:
    """Return the name of a record's file: readable, with the first digits of the identity."""
    threat = f"{inputs.norm}-{inputs.eps.replace('/', 'over')}"
    words = (inputs.model.name, inputs.dataset.name, threat, identity_of(inputs)[:8])
    return file_stem(words)


def history_of(stages: Sequence[StageResult]) -> list[list[str | int | bool | None]]:
    """Return where each of `stages` comes from; empty if all are of one evaluation."""
    lines = [
        [stage.attack, stage.part, stage.origin, stage.by, stage.seed, stage.protocol, stage.apart]
        for stage in stages
    ]
    return lines if any(line[2:] != ["", "", None, None, False] for line in lines) else []


def identity_of(inputs: Inputs) -> str:
    """Return the identity of a run: the SHA-256 of its inputs.

    Device and batch size are not in it, because the verdicts do not depend on them.  The model's
    weights are in it, but not its name.
    """
    values = {
        "protocol": inputs.protocol,
        "weights": inputs.model.weights_digest,
        "answers": inputs.model.answers_digest,
        "architecture": inputs.model.architecture,
        "activation": inputs.model.activation,
        "dataset": inputs.dataset.digest,
        "norm": inputs.norm,
        "eps": inputs.eps,
        "seed": inputs.seed,
        "suite": inputs.suite,
    }
    # Left out if empty, so that older identities do not change.
    later = {
        "sources": inputs.sources,
        "replacements": inputs.replacements,
        "history": inputs.history,
        "assumed": inputs.model.assumed,
    }
    return digest_json(values | {name: value for name, value in later.items() if value})


class _Trained(TypedDict, total=False):
    """The training of a model with a card, in a record."""

    recipe: str
    seed: int
    threat: str
    attack: str
    objective: str
    dataset: str
    data_digest: str


def parse_record(text: str, where: str) -> Record:
    """Read a record from JSON text.  Raises SatbenchError naming `where` and what is wrong."""
    values = parse_schema(text, "record", where, (1, SCHEMA))
    for name in _IN_NO_FILE & values.keys():
        raise SatbenchError(f"the record {where} has a field that is in no file, {name}")
    record = convert(values, Record, "record", where)
    convert(record.model.training, _Trained, "record", f"{where}, model.training")
    return record


def read_record(path: Path) -> Record:
    """Read a record from a file.  Raises SatbenchError for a missing or malformed one."""
    return replace(parse_record(read_text(path, "record"), str(path)), path=path)


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically."""
    write_text(path, record.to_json())


def read_records(
    folder: Path,
    left_out: list[str] | None = None,
    read: Callable[[Path], Record] = read_record,
) -> list[Record]:
    """Read every record of a folder, ordered by file name.

    Raises SatbenchError for the first bad one; with a list `left_out`, bad ones are left out
    instead, and the list gets a sentence for each.
    """
    if not folder.is_dir():
        raise SatbenchError(f"expected a folder of records, got {str(folder)!r}")
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read(path))
        except SatbenchError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    return found
