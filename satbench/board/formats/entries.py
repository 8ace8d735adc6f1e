"""Rows of a board as entries of RobustBench: the JSON files of its leaderboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from satbench.board.board import Benchmark, Board
from satbench.board.imported.robustbench import RobustBenchEntry, plain_entry
from satbench.board.rows import Row
from satbench.core.errors import SatbenchError
from satbench.core.files import file_stem
from satbench.core.markdown import MISSING
from satbench.core.schema import convert, read_toml_values
from satbench.core.text.characters import visible
from satbench.core.threat import show_fraction
from satbench.recipes import recipe_names

FOLDERS = {"linf": "Linf", "l2": "L2"}
"""RobustBench's names of norms; it has no leaderboard for others."""


@dataclass(frozen=True)
class About:
    """The fields that RobustBench needs besides the numbers, and that no record has."""

    name: str
    authors: str
    link: str
    venue: str
    additional_data: bool
    number_forward_passes: int = 1
    reported: str = ""


SHIPPED = About(
    name="A model that ships with satbench",
    authors="The satbench founders",
    link="",
    venue="Unpublished",
    additional_data=False,
)
"""The fields of a model that was trained by one of satbench's recipes."""


def read_about(path: Path) -> dict[str, About]:
    """Read a TOML file with a table for each model; `[default]` is for all others.

    Raises SatbenchError naming file and field.
    """
    what = "file about models"
    found: dict[str, About] = convert(
        read_toml_values(path, what), dict[str, About], what, str(path)
    )
    return found


def robustbench_entries(
    board: Board, about: dict[str, About], left_out: list[str]
) -> dict[str, str]:
    """Return the files of a board's rows, `DATASET/THREAT/NAME.json` -> text.

    A row that does not fit RobustBench is left out, and the list gets a sentence: a row without
    AutoAttack, with another norm, or of a model that `about` does not describe.
    """
    files = {}
    for benchmark in board.benchmarks:
        for row in benchmark.rows:
            try:
                path, entry = _entry(benchmark, row, about)
                if path in files:
                    raise SatbenchError("a model with that name already has an entry")
            except SatbenchError as error:
                left_out.append(f"{visible(row.model.name)}: {error}")
                continue
            text = json.dumps(plain_entry(entry), indent=2, ensure_ascii=True)
            files[path] = text + "\n"
    return files


def _entry(benchmark: Benchmark, row: Row, about: dict[str, About]) -> tuple[str, RobustBenchEntry]:
    norm = benchmark.threat.norm
    if norm not in FOLDERS:
        raise SatbenchError(f"RobustBench has no leaderboard for {norm}, only for linf and l2")
    if row.autoattack is None:
        raise SatbenchError(
            "expected a record with AutoAttack, whose number an entry gives; "
            "run satbench eval --attack autoattack"
        )
    said = about.get(row.model.name) or about.get("default") or _shipped(row)
    if said is None:
        raise SatbenchError(
            "nothing says which paper, authors and training data it has; give --about FILE.toml "
            "with a table of that name, or [default]"
        )
    lower = row.best_known.count < row.autoattack.count
    entry = RobustBenchEntry(
        link=said.link,
        name=said.name,
        authors=said.authors,
        additional_data=said.additional_data,
        number_forward_passes=said.number_forward_passes,
        dataset=visible(benchmark.dataset.name),
        venue=said.venue,
        architecture=visible(row.model.architecture),
        eps=show_fraction(benchmark.threat.eps),
        clean_acc=_percent(row.clean.value),
        reported=said.reported,
        autoattack_acc=_percent(row.autoattack.value),
        external=_percent(row.best_known.value) if lower else UNSET,
        footnote=_footnote(benchmark, row, lower),
        unreliable=bool(row.flags),
    )
    name = file_stem([row.model.name]) or row.model.weights_digest[:8]
    return f"{file_stem([entry.dataset]) or 'dataset'}/{FOLDERS[norm]}/{name}.json", entry


def _footnote(benchmark: Benchmark, row: Row, lower: bool) -> str:
    said: Sequence[str] = [
        f"Evaluated by satbench on the first {benchmark.dataset.n:,} images of the "
        f"{benchmark.dataset.split} split ({row.mark}); activation "
        f"{visible(row.model.activation) or MISSING}.",
        *(["The external number is the lowest over all attacks of its records."] if lower else []),
        *([f"Flags: {', '.join(flag.name for flag in row.flags)}."] if row.flags else []),
    ]
    return " ".join(said)


def _shipped(row: Row) -> About | None:
    return SHIPPED if row.training.recipe in recipe_names() else None


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
