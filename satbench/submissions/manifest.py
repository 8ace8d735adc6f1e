"""The manifest of a submission, `submission.json`, and the files of its folder."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.limits import GIB
from satbench.core.schema import convert, parse_schema, read_text
from satbench.records.witnesses import witnesses_path

KIND = "submission"
SCHEMA = 1
MANIFEST, CARD, WEIGHTS = "submission.json", "card.json", "weights.safetensors"

MOST_BYTES = 2 * GIB
"""Limit for all files of a submission: 25,000 witnesses of 3 × 224 × 224, and the weights."""
MOST_FILES = 64

Division = Literal["closed", "open"]
ModelFrom = Literal["shipped", "file", "public", "elsewhere"]
"""The source of the model for a reviewer: satbench's zoo, `weights.safetensors`, a public zoo by
name, or an address, which is used only if a person wants it."""

Line = Annotated[str, Meta(max_length=200)]
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,199}", re.ASCII)

PUBLIC = re.compile(
    r"robustbench:\w+/\w+/[\w.-]+"
    r"|torchvision:[a-z0-9_]+@[A-Z0-9_]+"
    r"|timm:[\w.-]+"
    r"|hf:[\w-][\w.-]*/[\w-][\w.-]*(@\w+)?",
    re.ASCII,
)
"""Names of public models that a reviewer may download: none of them runs a submitter's code."""


@dataclass(frozen=True)
class Manifest:
    """The file `submission.json`.

    `board` is the name of a board, `by` who submits.  `files` are all other files of the folder,
    name to SHA-256.  `model` is the source of the model; `public` is its name there, `url` an
    address.  `supersedes` are identities of records on the board that this submission replaces, and
    `note` says why, or anything else.
    """

    board: Line
    division: Division
    by: Line
    model: ModelFrom
    files: dict[str, _Digest]
    public: Line = ""
    url: Line = ""
    supersedes: list[_Digest] = field(default_factory=list)
    note: Annotated[str, Meta(max_length=2000)] = ""
    kind: str = KIND
    schema: int = SCHEMA

    def records(self, folder: Path) -> list[Path]:
        """Return the paths of the records, ordered by name."""
        names = sorted(name for name in self.files if name.endswith(".json") and name != CARD)
        return [folder / name for name in names]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a submission.  Raises SatbenchError for a missing or malformed one."""
    path = folder / MANIFEST
    values = parse_schema(read_text(path, "submission"), "submission", str(path), (SCHEMA,), KIND)
    return convert(values, Manifest, "submission", str(path))


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest of a submission atomically."""
    write_text(folder / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")


def check_files(folder: Path) -> Iterator[str]:
    """Yield what a submission must not have: links, folders, too many files; nothing is read.

    Raises SatbenchError if it is not a folder.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise SatbenchError(f"expected the folder of a submission, got {str(folder)!r}")
    total = 0
    found = sorted(folder.iterdir())
    if len(found) > MOST_FILES:
        yield f"the folder holds {len(found)} files: expected at most {MOST_FILES}"
        return
    for path in found:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            yield f"{path.name!r} is a link or a folder: a submission holds plain files only"
        elif not _NAME.fullmatch(path.name):
            yield f"{path.name!r}: expected names of letters, digits, '.', '_', '+' and '-'"
        total += status.st_size
    if total > MOST_BYTES:
        yield f"the files have {total:,} bytes: expected at most {MOST_BYTES:,}"


def check_manifest(manifest: Manifest, folder: Path) -> Iterator[str]:
    """Yield where the files of a folder are not those of its manifest, one sentence each."""
    named, there = set(manifest.files), {path.name for path in folder.iterdir()} - {MANIFEST}
    for name in sorted(named - there):
        what = (
            "a file in another folder" if "/" in name or "\\" in name else "a file that is missing"
        )
        yield f"the manifest names {name!r}, {what}"
    for name in sorted(there - named):
        yield f"the folder holds {name!r}, which the manifest does not name"
    for name in sorted(named & there):
        if digest_file(folder / name) != manifest.files[name]:
            yield f"{name} was changed after it was packed: its digest differs from the manifest's"
    known = {CARD, WEIGHTS}
    for record in manifest.records(folder):
        known |= {record.name, witnesses_path(record).name}
    if not manifest.records(folder):
        yield "the submission holds no record"
    for name in sorted((named & there) - known):
        yield (
            f"{name!r} does not belong in a submission: expected records, their witnesses, {CARD} "
            f"and {WEIGHTS}"
        )
    yield from _check_words(manifest)


def _check_words(manifest: Manifest) -> Iterator[str]:
    texts = {"by": manifest.by, "url": manifest.url, "note": manifest.note.replace("\n", " ")}
    for name, text in texts.items():
        if not text.isprintable():
            yield f"{name}: expected printable text, got {text[:60]!r}"
    if not manifest.by.strip():
        yield "by: expected the name of who submits"
    files = set(manifest.files)
    if manifest.model == "file" and not {CARD, WEIGHTS} <= files:
        yield f"the model is a file: expected {CARD} and {WEIGHTS}"
    if manifest.model != "file" and WEIGHTS in files:
        yield f"there is {WEIGHTS}, but the model is declared as {manifest.model}"
    if manifest.model == "public" and not PUBLIC.fullmatch(manifest.public):
        yield (
            f"public: expected robustbench:DATASET/THREAT/NAME, torchvision:NAME@WEIGHTS, "
            f"timm:NAME or hf:ORG/REPO, got {manifest.public!r}"
        )
    if manifest.model == "elsewhere" and not (
        CARD in files and manifest.url.startswith("https://")
    ):
        yield f"the weights are elsewhere: expected {CARD} and their address, https://…"
