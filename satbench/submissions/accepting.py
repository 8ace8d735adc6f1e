"""Bring an accepted submission to its board: the keeper's step, in a checkout."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from satbench.board.definition import BoardDefinition, board_definition
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import read_card, write_card
from satbench.records.record import read_record
from satbench.records.witnesses import find_witnesses, stored_path
from satbench.submissions.manifest import CARD, WEIGHTS
from satbench.submissions.reviewing import Review


def accept(
    found: Review, definition: BoardDefinition | None = None, zoo: Path | None = None
) -> list[Path]:
    """Copy the files of a reviewed submission to its board and the model zoo; return where.

    Witnesses first, records last, so that the board never has one without the other.  Records that
    it supersedes move to the folder `superseded`, where they can be read and re-checked.  Raises
    SatbenchError for a submission that is refused, and for files that are there already.
    """
    manifest = found.manifest
    if manifest is None or not found.is_acceptable:
        raise SatbenchError(f"the submission is refused: {found.refusals[0]}")
    board = definition or board_definition(manifest.board)
    moves: list[tuple[Path, Path]] = []
    records = manifest.records(found.folder)
    for path in records:
        digest = read_record(path).witnesses_digest
        moves.append((find_witnesses(path, digest), stored_path(board.witnesses, digest)))
    zoo = zoo or content_folder("model_zoo")
    if manifest.model == "file":
        card = read_card(found.folder / CARD)
        card = replace(card, weights=f"{card.name}.safetensors")
        weights = zoo / "weights" / card.weights
        moves.append((found.folder / WEIGHTS, weights))
    moves += [(path, board.records / path.name) for path in records]
    for _, new in moves:
        if new.exists() and new.suffix != ".npz":  # equal witnesses share a file
            raise SatbenchError(f"expected nothing at {new}, which is there already")
    for old, new in moves:
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old, new)
    written = [new for _, new in moves]
    if manifest.model == "file":
        place = zoo / "cards" / f"{card.name}.json"
        write_card(card, place)
        written.append(place)
    for path in board.records.glob("*.json"):
        if read_record(path).identity in manifest.supersedes:
            board.superseded.mkdir(exist_ok=True)
            written.append(path.replace(board.superseded / path.name))
    return written
