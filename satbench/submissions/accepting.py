"""Acceptance of a submission to its board: the maintainer's step, in a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from satbench.board.definition import BoardDefinition, board_definition
from satbench.core.content import content_folder
from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.files import copy_file, write_text
from satbench.model_zoo.card import Card, read_card, write_card
from satbench.records.record import read_record
from satbench.records.witnesses import find_witnesses, stored_path
from satbench.submissions.manifest import (
    CARD,
    MANIFEST,
    WEIGHTS,
    Manifest,
    check_files,
    check_manifest,
    read_manifest,
)
from satbench.submissions.reviewing import Review

BEGUN = ".accepting"
"""A file in the folder of a board that names the submission that is being added."""


def accept(
    found: Review, definition: BoardDefinition | None = None, zoo: Path | None = None
) -> list[Path]:
    """Copy the files of a reviewed submission to its board and the model zoo; return their paths.

    Witnesses first, records last, so that the board never has one without the other.  Records that
    it supersedes move to the folder `superseded`, where they can be read and re-checked.  Raises
    SatbenchError for a refused submission, for files that already exist, and if the acceptance of
    another submission was stopped.
    """
    manifest = found.manifest
    if manifest is None or not found.is_acceptable:
        raise SatbenchError(f"the submission is refused: {found.refusals[0]}")
    bringing = _Bringing(found.folder, manifest, definition, zoo)
    bringing.begin()
    return bringing.carry_out()


def go_on(
    folder: Path, definition: BoardDefinition | None = None, zoo: Path | None = None
) -> list[Path] | None:
    """Continue the stopped acceptance of a submission; None if none was stopped.

    It was reviewed before; its files must still have the digests of its manifest.
    """
    if any(check_files(folder)):
        return None
    try:
        manifest = read_manifest(folder)
        if any(check_manifest(manifest, folder)):
            return None
        bringing = _Bringing(folder, manifest, definition, zoo)
    except SatbenchError:  # the review reports it
        return None
    return bringing.carry_out() if bringing.has_begun() else None


class _Bringing:
    """The acceptance of one submission: each step may be repeated."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        definition: BoardDefinition | None,
        zoo: Path | None,
    ) -> None:
        self.folder, self.manifest = folder, manifest
        self.board = definition or board_definition(manifest.board)
        self.zoo = zoo or content_folder("model_zoo")
        self.mark = self.board.folder / BEGUN

    def has_begun(self) -> bool:
        """Whether the acceptance of this submission has begun."""
        return self.mark.is_file() and self.mark.read_text().split("\n")[0] == self._digest()

    def begin(self) -> None:
        """Record that the acceptance has begun. Raises SatbenchError if files are in the way."""
        if self.mark.is_file():
            other = self.mark.read_text().split("\n")[1]
            raise SatbenchError(
                f"another submission was stopped on its way to the board {self.board.name}: run "
                f"satbench review {other} --accept first, or remove {self.mark}"
            )
        for old, new in self._files():
            # Equal witnesses share a file.
            if new.suffix != ".npz" and new.exists() and digest_file(old) != digest_file(new):
                raise SatbenchError(f"{new} exists already")
        card = self._card()
        for new in [*self._records().values(), *([self._place(card)] if card else ())]:
            if new.exists():
                raise SatbenchError(f"{new} exists already")
        write_text(self.mark, f"{self._digest()}\n{self.folder}\n")

    def carry_out(self) -> list[Path]:
        """Do the remaining steps; return the paths of all files."""
        written = []
        for old, new in self._files():
            if not new.exists():
                copy_file(old, new)
            written.append(new)
        if card := self._card():
            write_card(card, self._place(card))
            written.append(self._place(card))
        for old, new in self._records().items():
            copy_file(old, new)
            written.append(new)
        for path in self.board.records.glob("*.json"):
            if read_record(path).identity in self.manifest.supersedes:
                self.board.superseded.mkdir(exist_ok=True)
                written.append(path.replace(self.board.superseded / path.name))
        self.mark.unlink()
        return written

    def _records(self) -> dict[Path, Path]:
        """Return the destination of each record."""
        return {path: self.board.records / path.name for path in self.manifest.records(self.folder)}

    def _digest(self) -> str:
        return digest_file(self.folder / MANIFEST)

    def _card(self) -> Card | None:
        """Return the card in its form for the zoo; None for a model that is there or elsewhere."""
        if self.manifest.model != "file":
            return None
        card = read_card(self.folder / CARD)
        return replace(card, weights=f"{card.name}.safetensors")

    def _place(self, card: Card) -> Path:
        return self.zoo / "cards" / f"{card.name}.json"

    def _files(self) -> Iterator[tuple[Path, Path]]:
        """Yield the witnesses and the weights with their destinations."""
        for path in self.manifest.records(self.folder):
            digest = read_record(path).witnesses_digest
            yield find_witnesses(path, digest), stored_path(self.board.witnesses, digest)
        if card := self._card():
            yield self.folder / WEIGHTS, self.zoo / "weights" / card.weights
