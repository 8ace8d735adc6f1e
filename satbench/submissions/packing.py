"""Packing of records, witnesses, card and weights into one folder, with a review."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from satbench.board.definition import BoardDefinition, board_definition, board_definitions
from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_folder, check_folder
from satbench.core.threat import Threat
from satbench.model_zoo.card import Card, card_of_digest, write_card, zoo_names
from satbench.model_zoo.weights import save_weights
from satbench.models import request_model
from satbench.models.carded import load_card
from satbench.records.record import Record, inputs_of, read_record, record_stem
from satbench.records.witnesses import find_witnesses, witnesses_path
from satbench.submissions.manifest import (
    CARD,
    PUBLIC,
    WEIGHTS,
    Division,
    Manifest,
    ModelFrom,
    write_manifest,
)
from satbench.submissions.reviewing import Review, review


@dataclass(frozen=True)
class Packing:
    """The options of packing.

    `records` are of one model, `by` is who submits.  `board` is by default the one with the same
    images and threat model.  `model` is a name for `satbench eval --model`, by default the known
    model with the weights' digest.  If the weights must not be published, `with_weights` is false,
    and `url` is their address.  `supersedes` are identities of records on the board that these
    replace.
    """

    records: tuple[Path, ...]
    by: str
    out: Path
    board: str = ""
    division: Division = "closed"
    model: str = ""
    with_weights: bool = True
    url: str = ""
    supersedes: tuple[str, ...] = ()
    note: str = ""
    data_dir: Path | None = None


def pack(asked: Packing, definition: BoardDefinition | None = None) -> Review:
    """Write a submission to the folder `out`, which must not exist, and return its review.

    The folder is written atomically.  Raises SatbenchError for records that cannot be read or
    belong to no board, and for a model whose card or weights are missing.
    """
    if asked.out.exists():
        raise SatbenchError(f"expected a folder that does not exist yet, got {asked.out}")
    check_folder(asked.out.parent)
    records = [read_record(path) for path in asked.records]
    board = definition or _board(asked.board, records)
    try:
        with atomic_folder(asked.out) as folder:
            _fill(asked, board, records, folder)
    except FileNotFoundError as error:
        raise SatbenchError(f"expected {error.filename}, which is missing") from None
    return review(asked.out, fetch=True, data_dir=asked.data_dir, definition=board)


def _fill(asked: Packing, board: BoardDefinition, records: Sequence[Record], folder: Path) -> None:
    """Write the files of a submission to a folder."""
    for record, path in zip(records, asked.records, strict=True):
        copy = folder / f"{record_stem(inputs_of(record))}.json"
        if copy.exists():
            raise SatbenchError(f"two records have the identity {record.identity[:12]}…")
        shutil.copyfile(path, copy)
        shutil.copyfile(find_witnesses(path, record.witnesses_digest), witnesses_path(copy))
    told = _add_model(asked, records[0], folder)
    manifest = Manifest(
        board=board.name,
        division=asked.division,
        by=asked.by,
        model=told,
        files={path.name: digest_file(path) for path in sorted(folder.iterdir())},
        public=asked.model if told == "public" else "",
        url=asked.url,
        supersedes=list(asked.supersedes),
        note=asked.note,
    )
    write_manifest(manifest, folder)


def _board(name: str, records: Sequence[Record]) -> BoardDefinition:
    """Return the board with a name, else that of the images and threat model of the records."""
    if not records:
        raise SatbenchError("expected at least one record to submit, got none")
    if name:
        return board_definition(name)
    data, threat = records[0].dataset, Threat.of(records[0].norm, records[0].eps)
    wanted = (data.name, data.split, data.n, threat)
    for one in board_definitions():
        if (one.dataset, one.split, one.n, one.threat) == wanted:
            return one
    names = ", ".join(one.name for one in board_definitions())
    raise SatbenchError(
        f"no board is of {data.n} {data.split} images of {data.name} within {threat}; there are "
        f"{names}: evaluate as one of their board.toml says, or give --board"
    )


def _add_model(asked: Packing, record: Record, folder: Path) -> ModelFrom:
    """Write card and weights to `folder`, and return the source of the model for a reviewer."""
    if asked.model and PUBLIC.fullmatch(asked.model):
        return "public"
    digest = record.model.weights_digest
    card, weights = _found(asked, digest)
    if card.weights_digest != digest:
        raise SatbenchError(
            f"the weights of {card.name} are not the record's: they have the digest "
            f"{card.weights_digest[:12]}…, the record {digest[:12]}…"
        )
    if card.name in zoo_names():
        return "shipped"
    write_card(replace(card, weights=WEIGHTS, url=""), folder / CARD)
    if not asked.with_weights:
        return "elsewhere"
    module = load_card(card, weights, "file").module
    save_weights(module, folder / WEIGHTS)
    return "file"


def _found(asked: Packing, digest: str) -> tuple[Card, Path]:
    name = asked.model
    if not name and (known := card_of_digest(digest)):
        name = known.name
    if not name:
        raise SatbenchError(
            f"no model of satbench's zoo or of yours has the weights {digest[:12]}… of the record: "
            "name its card with --model, which satbench models card makes"
        )
    request = request_model(name)
    if request.card is None or request.weights is None:
        raise SatbenchError(
            f"{name} has no card, so it cannot be built from data: make one with "
            "satbench models card, or name an entry of a public zoo"
        )
    return request.card, request.weights
