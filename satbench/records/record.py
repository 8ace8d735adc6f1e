"""The record: the finished result of a run as data.  JSON in and out, no torch.

Everything a reader needs to re-check the result is in it or named by a digest.  Two runs of the
same inputs give the same bytes, but for `environment` (times, host, versions) and, on another
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
"""The schema of new records; those of schema 1, which lack what came later, are read too."""

PROTOCOL = 2
"""Goes up with every change of the program that can move a number.

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
    `training` says how it was trained as far as its card knows: recipe, seed, attack, …; empty for
    a model without a card.  `answers` are numbers of its logits and gradients on the first images
    (`satbench.records.answers`), for models whose code is the user's: weights alone do not tell
    two of these apart.  `answers_digest` is their SHA-256; older records have it of rounded logits,
    and no answers.
    `assumed` tells what neither a file of weights nor its user said of the network, such as
    `normalize=cifar10`, with spaces between; empty if nothing was assumed.
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
    """The images: the first `n` of a named split, with the SHA-256 of just these.

    Where `population` is above 0, the first `n` of a random order of that many.
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

    `attack` is the canonical spec of the suite's attack and `part` the stage's name within it
    (empty for an attack of one stage).  `attacked` images came in, `broken` of them the judge
    found broken; the search cost `forwards` and `backwards` passes of the model, and
    `source_forwards` and `source_backwards` of surrogates, which it was given or trained.
    `passed_over` images survived until here, and the stage did not take them on.

    `by` says who ran a challenge.  `origin`, `seed` and `protocol` tell of a stage that another
    record brought in: that record's identity, and what it ran with; None for the record's own.  A
    stage that ran `apart` came to its numbers in a record of its own: not on what the stages
    before it left here, so that fewer verdicts than `broken` may name it.

    `search` is `folded` where fast copies were searched, each proven to be its model, and `plain`
    where a model was searched as it is; empty where none was, and in older records.  It makes no
    other result, and may differ on another machine.
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
    search: Annotated[str, Meta(pattern="^(folded|plain|)$")] = field(default="", compare=False)


@dataclass(frozen=True)
class Environment:
    """What may differ between two runs of the same inputs: versions, host, times in seconds.

    `flops` are those of the clean pass and the stages, of the model itself, and `joules` what the
    machine says that it spent meanwhile, with all else that ran on it; None where nobody knows, and
    in older records.
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
    """Take out what nobody knows: files from before it was told keep their bytes."""
    for name in ("flops", "joules"):
        if environment[name] is None:
            del environment[name]


@dataclass(frozen=True)
class Diagnosis:
    """Signs that robustness may be overstated, and the passes that looking for them cost."""

    flags: list[Flag]
    forwards: int
    backwards: int


@dataclass(frozen=True)
class Sequential:
    """A run that looked after each chunk of images, and stopped once the interval was narrow.

    `low` and `high` bound the share of the whole population that survives, at 95 % whenever one
    stops looking; the run went on until they were no more than `width` apart.
    """

    width: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class Record:
    """The finished result of one run.

    `verdicts` has one number an image, in the data set's order: -1 survived, 0 wrong when clean,
    k the stage (counted from 1) that broke it.  `witnesses_digest` is the SHA-256 of the
    witnesses beside the record.  `sources` are the surrogates, name to digest of
    weights.  `replacements` are the layers that searches ran a differentiable replacement of
    (BPDA), name to what replaced it.  `notes` are what a reader should know of how the model was
    read, a sentence each.  `suites` are the suite files that were run, name to digest of their
    parts.

    Two fields say how this object came about, and are in no file: `path` is the file that it was
    read from or written to, and `found` whether `satbench.evaluate` found it there, made before.
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
        """How many images the model gets right when nobody attacks."""
        return sum(verdict != WRONG_CLEAN for verdict in self.verdicts)

    def surviving(self, stages: int | None = None) -> int:
        """How many images are right after the first `stages` stages (all of them for None)."""
        last = len(self.stages) if stages is None else stages
        return sum(verdict == SURVIVED or verdict > last for verdict in self.verdicts)

    def attack_stages(self) -> list[tuple[str, list[int]]]:
        """Return the attacks of the suite in order, each with the numbers (from 1) of its stages.

        An attack that was run again as a challenge, with another seed, is there twice.
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
            if not stage["search"]:  # records from before it was told keep their bytes
                del stage["search"]
        leave_out_unknown(values["environment"])
        verdicts = json.dumps(values.pop("verdicts"), separators=(",", ":"))
        # One line for the verdicts, so that a diff of two records can be read.
        values["verdicts"] = _PLACE
        return json.dumps(values, indent=1).replace(f'"{_PLACE}"', verdicts) + "\n"


@dataclass(frozen=True)
class Inputs:
    """What decides the outcome of a run, and so its identity."""

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
    """Return the inputs that a record tells of."""
    return Inputs(**{one.name: getattr(record, one.name) for one in fields(Inputs)})


def record_stem(inputs: Inputs) -> str:
    """Name a record's file: for people to read, with the identity's first digits behind."""
    threat = f"{inputs.norm}-{inputs.eps.replace('/', 'over')}"
    words = (inputs.model.name, inputs.dataset.name, threat, identity_of(inputs)[:8])
    return file_stem(words)


def history_of(stages: Sequence[StageResult]) -> list[list[str | int | bool | None]]:
    """Return where each of `stages` comes from; empty if all are of one evaluation."""
    told = [
        [stage.attack, stage.part, stage.origin, stage.by, stage.seed, stage.protocol, stage.apart]
        for stage in stages
    ]
    return told if any(line[2:] != ["", "", None, None, False] for line in told) else []


def identity_of(inputs: Inputs) -> str:
    """Return the identity of a run: the SHA-256 of its inputs.

    Device and batch size do not enter it, for the verdicts do not depend on them; the model's
    name does not either, its weights do.
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
    # Left out where empty, so that identities from before there were any stay what they are.
    later = {
        "sources": inputs.sources,
        "replacements": inputs.replacements,
        "history": inputs.history,
        "assumed": inputs.model.assumed,
    }
    return digest_json(values | {name: value for name, value in later.items() if value})


class _Trained(TypedDict, total=False):
    """What a record tells of the training of a model that has a card."""

    recipe: str
    seed: int
    threat: str
    attack: str
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

    Raises SatbenchError for the first bad one; where a list `left_out` is given, the bad ones are
    left out instead, and the list gets a sentence for each.
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
