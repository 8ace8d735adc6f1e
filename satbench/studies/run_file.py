"""Run files: the verdicts and measures of one model of a study.  JSON in and out, no torch.

A study trains many models.  For each it commits one small file: how it was trained, one letter per
image for each evaluation, and the gradient measures.  Witnesses stay in the store of the study.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.schema import Number, convert, parse_schema, read_text
from satbench.records.audit import AuditCounts

KIND, SCHEMA = "study run", 1

SURVIVED, BROKEN, WRONG = "o", "x", "-"
"""The letters of a verdict: survived, broken by the attack, wrong when clean."""


@dataclass(frozen=True)
class Outcome:
    """The result of one suite of attacks on a model, image by image.

    `suite` has the canonical specs in order, `threat` is `NORM:EPS`.  `verdicts` has a letter per
    image, `SURVIVED`, `BROKEN` or `WRONG`, in the order of the data set; `data_digest` is the
    digest of exactly these images.  `record` is the identity of the full record, `audit` are the
    counts of an audit at the end of the suite, None for a suite without one.
    """

    suite: tuple[str, ...]
    threat: str
    dataset: str
    data_digest: str
    seed: int
    verdicts: str
    forwards: int
    backwards: int
    record: str
    audit: AuditCounts | None = None

    @property
    def n(self) -> int:
        """Images."""
        return len(self.verdicts)

    @property
    def clean_accuracy(self) -> float:
        """Share of images that are right when clean, in [0, 1]."""
        return 1 - self.verdicts.count(WRONG) / self.n

    @property
    def robust_accuracy(self) -> float:
        """Share of images that survived, in [0, 1]."""
        return self.verdicts.count(SURVIVED) / self.n


@dataclass(frozen=True)
class StudyRun:
    """One trained or given model of a study.

    `key` is the digest of everything that the weights depend on (`training`, the config with the
    digest of the data; empty for a given model, which `model` names).  `command` trains or loads it
    again.  `answers` identify given code.  `held_out` are the last epoch's metrics.  `measures` are
    means over images of the gradient measures, by name.  `environment` (versions, seconds, host)
    may differ between two runs of the same inputs.  `notes` are the card's remarks on the training.
    """

    key: str
    model: str
    architecture: str
    activation: str
    parameters: int
    seed: int
    training: dict[str, Any]
    weights_digest: str
    command: str
    held_out: dict[str, Any] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    measures: dict[str, Number] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    answers: str = ""
    notes: tuple[str, ...] = ()

    def outcome(self, suite: Sequence[str], threat: str, dataset: str, n: int) -> Outcome | None:
        """Return the outcome of an evaluation, None if it is missing."""
        wanted = (tuple(suite), threat, dataset, n)
        for found in self.outcomes:
            if (found.suite, found.threat, found.dataset, found.n) == wanted:
                return found
        return None

    def with_outcome(self, outcome: Outcome) -> StudyRun:
        """Return the run with another outcome, which replaces an old one of the same evaluation."""
        old = self.outcome(outcome.suite, outcome.threat, outcome.dataset, outcome.n)
        kept = (one for one in self.outcomes if one is not old)
        ordered = sorted((*kept, outcome), key=lambda one: (one.dataset, one.threat, one.suite))
        return replace(self, outcomes=tuple(ordered))


def write_study_run(run: StudyRun, folder: Path) -> Path:
    """Write a run to `folder/KEY.json` atomically; return the path."""
    path = folder / f"{run.key}.json"
    values = {"kind": KIND, "schema": SCHEMA, **asdict(run)}
    for name in ("answers", "notes"):
        if not values[name]:  # like older runs
            del values[name]
    write_text(path, json.dumps(values, indent=1, sort_keys=True) + "\n")
    return path


def read_study_run(path: Path) -> StudyRun:
    """Read a run.  Raises SatbenchError for a file that is missing or wrong."""
    values = parse_schema(read_text(path, KIND), KIND, str(path), (SCHEMA,), KIND)
    fields = {name: value for name, value in values.items() if name not in ("kind", "schema")}
    run = convert(fields, StudyRun, KIND, str(path))
    for number, outcome in enumerate(run.outcomes):
        if not outcome.verdicts or set(outcome.verdicts) - {SURVIVED, BROKEN, WRONG}:
            raise SatbenchError(
                f"the {KIND} {path} is wrong: outcomes[{number}].verdicts: expected the letters "
                f"{SURVIVED}, {BROKEN} and {WRONG}, one an image"
            )
    return run
