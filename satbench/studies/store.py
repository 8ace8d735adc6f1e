"""What a study finds and keeps: models by their keys, records by their inputs, runs by file."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from satbench.board.definition import board_definitions
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.lock import holder_of, try_lock
from satbench.model_zoo.card import Card, find_card, read_card, user_names, zoo_names
from satbench.records.audit import audit_counts
from satbench.records.record import (
    PROTOCOL,
    SURVIVED,
    WRONG_CLEAN,
    Inputs,
    ModelInfo,
    Record,
    identity_of,
    read_record,
)
from satbench.studies.plan import Cell, training_key
from satbench.studies.run_file import (
    BROKEN,
    WRONG,
    Outcome,
    StudyRun,
    read_study_run,
    write_study_run,
)
from satbench.studies.run_file import SURVIVED as STANDS

RESULTS = Path("leaderboard/studies")
"""Where the run files are, seen from a checkout."""


@dataclass(frozen=True)
class Places:
    """Where a study looks and writes.

    `models` are folders of run folders as `satbench train --out` leaves them.  `store` holds
    trained models, records and locks.  Run files are written to `results`, and read from there;
    where that is the default, those that ship with satbench are read too.
    """

    store: Path = Path("runs/studies")
    results: Path = RESULTS
    models: tuple[Path, ...] = ()

    @property
    def trained(self) -> Path:
        """The folder of the models that studies trained."""
        return self.store / "models"

    @property
    def records(self) -> Path:
        """The folder of the full records with their witnesses."""
        return self.store / "records"

    def claimed(self, key: str) -> AbstractContextManager[bool]:
        """Yield whether this process holds the run; one that dies lets go by dying."""
        return try_lock(self._lock(key))

    def worker(self, key: str) -> str:
        """Return which process is at a run, `process 4711`."""
        return holder_of(self._lock(key))

    def _lock(self, key: str) -> Path:
        return self.store / "locks" / f"{key}.lock"

    def run(self, key: str) -> StudyRun | None:
        """Return what is kept of a model, None where nothing is."""
        for folder in self._read:
            if (folder / f"{key}.json").is_file():
                return read_study_run(folder / f"{key}.json")
        return None

    def runs(self) -> dict[str, StudyRun]:
        """Return all that is kept, by key."""
        found = {p.stem: p for folder in reversed(self._read) for p in folder.glob("*.json")}
        return {key: read_study_run(path) for key, path in sorted(found.items())}

    def write(self, run: StudyRun) -> None:
        """Keep a run."""
        write_study_run(run, self.results)

    @property
    def _read(self) -> tuple[Path, ...]:
        shipped = content_folder("leaderboard") / "studies"
        return (self.results, shipped) if self.results == RESULTS else (self.results,)


@dataclass(frozen=True)
class Model:
    """A trained model: the name or card that `--model` takes, and where it was found."""

    text: str
    card: Card
    origin: str


class Models:
    """Trained models by key: of both zoos, of the folders that were named, and of the store."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._by_key: dict[str, Model] = {}
        self._seen: set[Path] = set()
        for name in (*zoo_names(), *user_names()):
            self._add(Model(name, find_card(name)[0], "zoo"))

    def find(self, cell: Cell) -> Model | None:
        """Return the model of a cell; what has been trained meanwhile is found too."""
        if cell.key not in self._by_key:
            for folder in self._places.models:
                self._look(folder, f"found in {folder}")
            self._look(self._places.trained, "store")
        return self._by_key.get(cell.key)

    def _look(self, folder: Path, origin: str) -> None:
        # By stems, NAME comes before NAME-best and NAME-last, which have the same key.
        found = (*folder.glob("*.json"), *folder.glob("*/*.json"))
        for path in sorted(found, key=lambda path: path.with_suffix("")):
            if path in self._seen or path.name == "config.json":
                continue
            try:
                card = read_card(path)
            except SatbenchError:  # another file, or one that is being written
                continue
            self._seen.add(path)
            if (path.parent / card.weights).is_file() or card.url:
                self._add(Model(str(path), card, origin))

    def _add(self, model: Model) -> None:
        told = model.card.training
        if told and told.config:
            key = training_key(told.config, told.data_digest)
            self._by_key.setdefault(key, model)


class Records:
    """Records by what they evaluated: those that ship with satbench, and those of the store."""

    def __init__(self, places: Places) -> None:
        self._records: list[Record] = []
        shipped = [board.records for board in board_definitions()]
        for folder in (*shipped, places.records):
            for path in sorted(folder.glob("*.json")):
                self.add(read_record(path))

    @property
    def models(self) -> list[ModelInfo]:
        """The models that the records are of."""
        return [record.model for record in self._records]

    def add(self, record: Record) -> None:
        """Take a record in, if it is one evaluation's own."""
        whole = record.sequential is None and not record.replacements and not record.history
        if whole and record.protocol == PROTOCOL:
            self._records.append(record)

    def find(self, inputs: Inputs) -> Record | None:
        """Return a record of the same inputs whose suite is, or begins with, the one asked for."""
        for record in self._records:
            if record.model.weights_digest != inputs.model.weights_digest:
                continue
            if record.suite[: len(inputs.suite)] != inputs.suite:
                continue
            surrogates = {**record.sources, **inputs.sources}
            asked = replace(inputs, suite=record.suite, sources=surrogates)
            if identity_of(asked) == record.identity:
                return record
        return None


def outcome_of(record: Record, suite: tuple[str, ...]) -> Outcome:
    """Return what the first attacks of a record's suite did, image by image.

    Raises ValueError unless the record's suite begins with `suite`.
    """
    if tuple(record.suite[: len(suite)]) != suite:
        raise ValueError(f"the suite {record.suite} does not begin with {list(suite)}")
    stages = [stage for stage in record.stages if stage.attack in suite]

    def letter(verdict: int) -> str:
        if verdict == WRONG_CLEAN:
            return WRONG
        return STANDS if verdict == SURVIVED or verdict > len(stages) else BROKEN

    return Outcome(
        suite=suite,
        threat=f"{record.norm}:{record.eps}",
        dataset=record.dataset.name,
        data_digest=record.dataset.digest,
        seed=record.seed,
        verdicts="".join(map(letter, record.verdicts)),
        forwards=sum(stage.forwards for stage in stages),
        backwards=sum(stage.backwards for stage in stages),
        record=record.identity,
        audit=audit_counts(record, suite),
    )


def told_digests(places: Places) -> dict[str, str]:
    """Return the digests of training sets that the kept runs tell of, by the sets' names."""
    told = (run.training for run in places.runs().values() if run.training)
    return {training["dataset"]: training["data_digest"] for training in told}


def trained_digests(places: Places) -> dict[str, str]:
    """Return the digests of training sets that run files and cards tell of, by the sets' names."""
    told = told_digests(places)
    for folder in (*places.models, places.trained):
        for path in sorted((*folder.glob("*.json"), *folder.glob("*/*.json"))):
            with suppress(SatbenchError):  # another file, or one that is being written
                training = read_card(path).training
                if training:
                    told[training.config.get("dataset", training.dataset)] = training.data_digest
    return told


def covering(suites: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the suites to run: those that no longer one begins with.

    What a suite's first attacks did can be read off the record of the whole.
    """
    return [
        suite
        for suite in dict.fromkeys(suites)
        if not any(len(other) > len(suite) and other[: len(suite)] == suite for other in suites)
    ]
