"""The review of a submission, and what it would change on the board.

No code of the submitter runs: records, cards and witnesses are data, weights are safetensors for
architectures of satbench, and a public model is downloaded by name only if that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from satbench.attacks.suites.suite import parse_suite
from satbench.board.definition import BoardDefinition, board_definition
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.engine.judge import check_allowed
from satbench.evaluation.given import Given, find_images, find_model
from satbench.evaluation.surrogates import with_surrogates
from satbench.model_zoo.card import Card, card_of_digest, read_card, zoo_names
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES
from satbench.proofs.verification import Verified, check_witness_list, verify_record
from satbench.records.check import check_record
from satbench.records.record import (
    PROTOCOL,
    SCHEMA,
    Record,
    inputs_of,
    record_stem,
)
from satbench.records.witnesses import read_witnesses, witnesses_path
from satbench.submissions.carding import NAME
from satbench.submissions.change import BoardChange, change_of
from satbench.submissions.manifest import (
    CARD,
    WEIGHTS,
    Manifest,
    check_files,
    check_manifest,
    read_manifest,
)


@dataclass(frozen=True)
class Review:
    """The result of a review.

    `refusals` are the reasons to refuse the submission, one sentence each; `notes` say what a
    person must still check.  `confirmed` are the records whose broken images were proven broken.
    `change` is what accepting it changes on the board; None if it is refused.
    """

    folder: Path
    manifest: Manifest | None
    refusals: tuple[str, ...]
    notes: tuple[str, ...] = ()
    confirmed: tuple[Verified, ...] = ()
    change: BoardChange | None = None

    @property
    def is_acceptable(self) -> bool:
        """Whether there is no reason to refuse it."""
        return not self.refusals


def review(
    folder: Path,
    *,
    fetch: bool = False,
    data_dir: Path | None = None,
    definition: BoardDefinition | None = None,
) -> Review:
    """Review the submission in `folder` for its board, or for the `definition` given.

    With `fetch`, a public model is downloaded from the source in its name.  Raises SatbenchError if
    the folder does not exist.
    """
    if faults := list(check_files(folder)):
        return Review(folder, None, tuple(faults))
    try:
        manifest = read_manifest(folder)
        if faults := list(check_manifest(manifest, folder)):
            return Review(folder, manifest, tuple(faults))
        board = definition or board_definition(manifest.board)
    except SatbenchError as error:
        return Review(folder, None, (str(error),))
    return _Reviewing(folder, manifest, board, fetch, data_dir).review()


class _Reviewing:
    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        board: BoardDefinition,
        fetch: bool,
        data_dir: Path | None,
    ) -> None:
        self.folder, self.manifest, self.board = folder, manifest, board
        self.fetch, self.data_dir = fetch, data_dir
        self.refusals: list[str] = []
        self.notes: list[str] = []

    def review(self) -> Review:
        """Do all checks, the cheap ones first."""
        records = self._records()
        card = self._card(records)
        self.refusals += self._check_names(records)
        if not self.refusals:
            self.refusals += self._check_suites(records)
            self.refusals += self._check_supersedes()
        confirmed = () if self.refusals else tuple(self._judge(records, card))
        change = None
        if not self.refusals:
            try:
                change = change_of(self.board, records)
            except SatbenchError as error:
                self.refusals.append(str(error))
        return Review(
            self.folder,
            self.manifest,
            tuple(self.refusals),
            tuple(self.notes),
            confirmed,
            change,
        )

    def _records(self) -> list[Record]:
        """Return the records that can be read; every fault is a refusal."""
        found: list[Record] = []
        on_board = {record.identity for record in self.board.read_records([])}
        for path in self.manifest.records(self.folder):
            try:
                record = self.board.read_record(path)
                found.append(record)
                faults = check_record(record) + list(self._check_record(record, path))
            except SatbenchError as error:
                faults = [str(error)]
            else:
                if record.identity in on_board:
                    faults.append("the board has a record of the same identity already")
                on_board.add(record.identity)
            self.refusals += [f"{path.name}: {fault}" for fault in faults]
        first = found[0].model if found else None
        for record in found[1:]:
            if first and _kind(record) != _kind(found[0]):
                self.refusals.append(
                    f"the records are of two models, {first.name!r} and {record.model.name!r}: "
                    "submit each in its own folder"
                )
        return found

    def _check_record(self, record: Record, path: Path) -> Iterator[str]:
        if (record.schema, record.protocol) != (SCHEMA, PROTOCOL):
            yield (
                f"it is of schema {record.schema} and protocol {record.protocol}: expected "
                f"{SCHEMA} and {PROTOCOL}, those of new records"
            )
        stem = record_stem(inputs_of(record))
        if path.stem != stem:
            yield f"expected the file to be called {stem}.json, as satbench eval does"
        if not witnesses_path(path).is_file():
            yield "its witnesses are not in the folder"
        if record.dataset.population or record.sequential:
            yield "it stopped at an interval, on images in a random order: expected the board's"

    def _card(self, records: Sequence[Record]) -> Card | None:
        """Return the card of the model, checked against the records; shipped models have one."""
        path = self.folder / CARD
        if not path.is_file() or not records:
            return None
        try:
            card = read_card(path)
        except SatbenchError as error:
            self.refusals.append(str(error))
            return None
        model = records[0].model
        compared = {
            "name": (card.name, model.name),
            "architecture": (card.architecture, model.architecture),
            "activation": (card.activation, model.activation),
            "parameters": (card.parameters, model.parameters),
            "weights_digest": (card.weights_digest, model.weights_digest),
        }
        self.refusals += [
            f"the card says {name} {mine!r}, the record {theirs!r}"
            for name, (mine, theirs) in compared.items()
            if mine != theirs
        ]
        if card.url or card.weights != WEIGHTS:
            self.refusals.append(f"{CARD}: expected {WEIGHTS} as its weights, and no address")
        if not card.licence.strip():
            self.refusals.append(f"{CARD}: expected the licence of the weights")
        for key, registry in (("activation", ACTIVATIONS), ("architecture", ARCHITECTURES)):
            if plugin := registry.plugin_of(getattr(card, key)):
                self.refusals.append(
                    f"{CARD}: the {key} is of the plug-in {plugin}: expected one of satbench's own"
                )
        known = card_of_digest(card.weights_digest)
        if known and known.name in zoo_names():
            self.refusals.append(
                f"the weights are those of {known.name}, which already ships: submit its records "
                "without a card"
            )
        elif card.name in zoo_names():
            self.refusals.append(f"the name {card.name!r} is that of a shipped model")
        return card

    def _check_names(self, records: Sequence[Record]) -> Iterator[str]:
        """Check that the name of a model is that of its card or of its public zoo."""
        manifest = self.manifest
        for record in records:
            model = record.model
            if manifest.model == "public" and model.name == manifest.public:
                continue
            if not NAME.fullmatch(model.name):
                yield (
                    "expected a model's name of letters, digits, '.', '_', '+' and '-', got "
                    f"{model.name[:80]!r}"
                )
            elif manifest.model == "shipped":
                known = card_of_digest(model.weights_digest)
                if known is None or known.name not in zoo_names():
                    yield f"no model that ships has the weights {model.weights_digest[:12]}…"
                elif known.name != model.name:
                    yield f"the weights are those of {known.name}, not of a model {model.name}"

    def _check_suites(self, records: Sequence[Record]) -> Iterator[str]:
        """Check that a closed submission ran exactly the board's suites, as the board does."""
        if self.manifest.division == "open":
            if self.manifest.model == "elsewhere":
                self.notes.append("the witnesses are not judged here: the weights are elsewhere")
            return
        wanted = board_suites(self.board)
        there = [tuple(one.suite) for one in records]
        ours = [one for one in self.board.read_records([]) if _kind(one) == _kind(records[0])]
        for record in records:
            if tuple(record.suite) not in wanted:
                yield (
                    f"closed division: the attacks {' then '.join(record.suite)} are no suite of "
                    f"the board {self.board.name}: run one of its suites, or submit to the open one"
                )
            if record.seed or record.replacements or record.history or record.model.assumed:
                yield (
                    "closed division: expected seed 0, no replaced gradients, no challenge, and no "
                    "assumptions about the model; the open division accepts other records"
                )
        for suite in wanted:
            if suite not in [*there, *(tuple(one.suite) for one in ours)]:
                yield (
                    "closed division: no record of the suite "
                    f"{' then '.join(spec.partition('(')[0] for spec in suite)}"
                )
        if self.manifest.model == "elsewhere":
            yield "closed division: expected weights in the folder, or a public model by its name"

    def _check_supersedes(self) -> Iterator[str]:
        identities = {record.identity for record in self.board.read_records([])}
        for identity in self.manifest.supersedes:
            if identity not in identities:
                yield f"supersedes: no record on the board has the identity {identity[:12]}…"
        if self.manifest.supersedes and not self.manifest.note.strip():
            yield "supersedes: expected a note that says why"

    def _judge(self, records: Sequence[Record], card: Card | None) -> Iterator[Verified]:
        """Yield what the witnesses prove, if the model is available."""
        given = self._given(card)
        for record in records:
            assert record.path is not None  # noqa: S101 (it was read from a file)
            try:
                if given is None:
                    faults = list(_check_images(record, record.path, self.data_dir))
                else:
                    done = verify_record(record.path, given)
                    faults = done.faults or list(self._check_public_name(record, given))
                    if not faults:
                        yield done
            except SatbenchError as error:
                faults = [str(error)]
            self.refusals += [f"{record.path.name}: {fault}" for fault in faults]

    def _check_public_name(self, record: Record, given: Given) -> Iterator[str]:
        """Check that the name of a public model in a record is that of its zoo."""
        if self.manifest.model == "public":
            name = find_model(record, given).info.name
            if record.model.name != name:
                yield f"{self.manifest.public} is called {name}, in the record {record.model.name}"

    def _given(self, card: Card | None) -> Given | None:
        """Return how to find the model; None if it is not available here."""
        manifest = self.manifest
        if manifest.model == "shipped":
            return Given(data_dir=self.data_dir)
        if manifest.model == "file" and card:
            return Given(str(self.folder / CARD), data_dir=self.data_dir)
        if manifest.model == "public" and self.fetch:
            return Given(manifest.public, data_dir=self.data_dir)
        if manifest.model == "public":
            self.notes.append(
                f"the witnesses are not judged here: {manifest.public} is fetched only with --fetch"
            )
        return None


def _check_images(record: Record, path: Path, data_dir: Path | None) -> Iterator[str]:
    """Check witnesses as far as possible without the model: indices, ball and pixels."""
    witnesses = read_witnesses(witnesses_path(path), most=record.n)
    yield from check_witness_list(record, witnesses)
    with own_generators(torch.device("cpu"), 0):
        dataset = find_images(record, Given(data_dir=data_dir))
    if dataset is None or dataset.digest != record.dataset.digest:
        yield "the images are not those of the board: their digest differs"
        return
    threat = Threat.of(record.norm, record.eps)
    clean = torch.from_numpy(dataset.pixels(np.asarray(witnesses.indices)))
    try:
        check_allowed(clean, torch.from_numpy(witnesses.images), threat)
    except SatbenchError as error:
        yield str(error)


def board_suites(board: BoardDefinition) -> list[tuple[str, ...]]:
    """Return the suites of a board in the form of records: the canonical specs, in order."""
    return [
        tuple(
            dict.fromkeys(
                stage.spec
                for stage in parse_suite(with_surrogates(suite, board.dataset, board.threat))
            )
        )
        for suite in board.suites
    ]


def _kind(record: Record) -> tuple[str, str, str, str]:
    model = record.model
    return model.weights_digest, model.architecture, model.activation, model.answers_digest
