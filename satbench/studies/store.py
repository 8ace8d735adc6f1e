"""The stores of a study: models by key, records by inputs, runs by file."""

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
"""The folder of the run files in a checkout."""


@dataclass(frozen=True)
class Places:
    """The folders that a study reads and writes.

    `models` are folders of run folders, written by `satbench train --out`.  `store` has trained
    models, records and locks.  Run files are written to and read from `results`; if that is the
    default, those that ship with satbench are read too.
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
        """Try to claim a run; yield whether this process got it.  A claim ends with its process."""
        return try_lock(self._lock(key))

    def worker(self, key: str) -> str:
        """Return which process does a run, `process 4711`."""
        return holder_of(self._lock(key))

    def _lock(self, key: str) -> Path:
        return self.store / "locks" / f"{key}.lock"

    def run(self, key: str) -> StudyRun | None:
        """Return the kept run of a model, None if there is none."""
        for folder in self._read:
            if (folder / f"{key}.json").is_file():
                return read_study_run(folder / f"{key}.json")
        return None

    def runs(self) -> dict[str, StudyRun]:
        """Return all kept runs, by key."""
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
    """A trained model: the name or card for `--model`, and where it was found."""

    text: str
    card: Card
    origin: str


class Models:
    """Trained models by key: those of both zoos, of the given folders, of studies, of the store.

    A checkout has the models of the pre-registered studies, which no board lists, in
    `leaderboard/studies/models`.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._by_key: dict[str, Model] = {}
        self._seen: set[Path] = set()
        for name in (*zoo_names(), *user_names()):
            self._add(Model(name, find_card(name)[0], "zoo"))

    def find(self, cell: Cell) -> Model | None:
        """Return the model of a cell; models trained since the start are found too."""
        if cell.key not in self._by_key:
            for folder in self._places.models:
                self._look(folder, f"found in {folder}")
            self._look(content_folder("leaderboard") / "studies" / "models", "shipped")
            self._look(self._places.trained, "store")
        return self._by_key.get(cell.key)

    def _look(self, folder: Path, origin: str) -> None:
        # In this order, NAME is before NAME-best and NAME-last, which have the same key.
        found = (*folder.glob("*.json"), *folder.glob("*/*.json"))
        for path in sorted(found, key=lambda path: path.with_suffix("")):
            if path in self._seen or path.name == "config.json" or _is_of_one_epoch(path):
                continue
            try:
                card = read_card(path)
            except SatbenchError:  # another file, or one that is being written
                continue
            self._seen.add(path)
            if (path.parent / card.weights).is_file() or card.url:
                self._add(Model(str(path), card, origin))

    def _add(self, model: Model) -> None:
        training = model.card.training
        if training and training.config:
            key = training_key(training.config, training.data_digest)
            self._by_key.setdefault(key, model)


def _is_of_one_epoch(card: Path) -> bool:
    """Return whether a card is of the best or the last epoch of a run: its model is beside it.

    Until the run has ended, only these are there.
    """
    return card.stem in (f"{card.parent.name}-best", f"{card.parent.name}-last")


class Records:
    """Records by their inputs: those that ship with satbench, and those of the store."""

    def __init__(self, places: Places) -> None:
        self._records: list[Record] = []
        shipped = [board.records for board in board_definitions()]
        for folder in (*shipped, places.records):
            for path in sorted(folder.glob("*.json")):
                self.add(read_record(path))

    @property
    def models(self) -> list[ModelInfo]:
        """The models of the records."""
        return [record.model for record in self._records]

    def add(self, record: Record) -> None:
        """Add a record, if it is of a single evaluation."""
        whole = record.sequential is None and not record.replacements and not record.history
        if whole and record.protocol == PROTOCOL:
            self._records.append(record)

    def find(self, inputs: Inputs) -> Record | None:
        """Return a record of the same inputs whose suite equals or begins with the wanted one."""
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
    """Return the result of the first attacks of a record's suite, image by image.

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


def kept_digests(places: Places) -> dict[str, str]:
    """Return the digests of training sets in the kept runs, by the names of the sets."""
    trainings = (run.training for run in places.runs().values() if run.training)
    return {training["dataset"]: training["data_digest"] for training in trainings}


def trained_digests(places: Places) -> dict[str, str]:
    """Return the digests of training sets in run files and cards, by the names of the sets."""
    digests = kept_digests(places)
    for folder in (*places.models, places.trained):
        for path in sorted((*folder.glob("*.json"), *folder.glob("*/*.json"))):
            with suppress(SatbenchError):  # another file, or one that is being written
                training = read_card(path).training
                if training:
                    digests[training.config.get("dataset", training.dataset)] = training.data_digest
    return digests


def covering(suites: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the suites to run: those that are not the beginning of a longer one.

    The result of a suite's first attacks is in the record of the whole suite.
    """
    return [
        suite
        for suite in dict.fromkeys(suites)
        if not any(len(other) > len(suite) and other[: len(suite)] == suite for other in suites)
    ]
