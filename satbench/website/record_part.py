"""The records on a model's page: the share that each attack broke, its cost, how to check it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from satbench.attacks import short_spec
from satbench.board.comparison import broken_by
from satbench.core.content import content_folder
from satbench.core.markdown import percent
from satbench.core.stats.intervals import wilson_interval
from satbench.evaluation.record_page import recheck_commands
from satbench.evaluation.report import notes_of
from satbench.records.attack_run import passes_of
from satbench.records.record import SURVIVED, WRONG_CLEAN, Record
from satbench.website.data_table import DataTable, Fact, PageCell, PageColumn


@dataclass(frozen=True)
class SharePart:
    """A part of a bar: a `share` of all images, in [0, 1], its name and its style class."""

    name: str
    images: int
    share: float
    style: str

    @property
    def text(self) -> str:
        """The share in percent, as text."""
        return f"{percent(self.share)} %"


def record_place(record: Record) -> str:
    """Return the place of a record's copy in the site."""
    return f"records/{record.identity[:16]}.json"


def record_path(record: Record) -> str:
    """Return a record's path for commands: from the top of a checkout, else folder and name."""
    if record.path is None:
        return f"{record.identity[:16]}.json"
    path, top = record.path.resolve(), content_folder("leaderboard").resolve().parent
    inside = path.is_relative_to(top)
    return path.relative_to(top).as_posix() if inside else "/".join(path.parts[-2:])


def suite_text(record: Record) -> str:
    """Return the short names of a record's attacks: `pgd-50, then autoattack`."""
    return ", then ".join(short_spec(spec).partition("(")[0] for spec in record.suite)


def shares_of(record: Record) -> list[SharePart]:
    """Return the shares of wrong, broken (by attack) and surviving images; they sum to 1.

    Stages that broke nothing are left out.
    """
    counts = {verdict: record.verdicts.count(verdict) for verdict in set(record.verdicts)}
    broken = [number for number in sorted(counts) if number > WRONG_CLEAN]
    names = {WRONG_CLEAN: "wrong without an attack", SURVIVED: "survived"}
    names |= {number: broken_by(record, number) for number in broken}
    styles = {WRONG_CLEAN: "wrong", SURVIVED: "survived"}
    styles |= {number: f"broken-{place % 4}" for place, number in enumerate(broken)}
    return [
        SharePart(names[number], counts[number], counts[number] / record.n, styles[number])
        for number in (WRONG_CLEAN, *broken, SURVIVED)
        if number in counts
    ]


def record_values(record: Record, number: int) -> dict[str, object]:
    """Return the values of a record for the template; `number` is its number on the page."""
    low, high = wilson_interval(record.surviving(), record.n)
    left, path = record.surviving(), record_path(record)
    flags = record.diagnosis.flags if record.diagnosis else []
    return {
        "suite": suite_text(record),
        "anchor": f"record-{record.identity[:16]}",
        "robust": f"{percent(left / record.n)} % [{percent(low)}, {percent(high)}]",
        "threat": f"{record.norm.capitalize()}, eps {record.eps}",
        "place": record_place(record),
        "shares": shares_of(record),
        "stages": _stages_table(record, number),
        "facts": _facts(record, path),
        "notes": notes_of(record)[len(flags) :],
        "commands": [f"satbench show {shlex.quote(path)}", *recheck_commands(record, path)],
    }


def _facts(record: Record, path: str) -> list[Fact]:
    made, left = record.environment, record.surviving()
    wrong = record.n - record.clean_correct
    proven = record.n - left - wrong
    return [
        Fact("Proven", f"{proven:,} images have a witness, {wrong:,} are wrong without an attack"),
        Fact("Claimed", f"{left:,} images survive; this is not proven"),
        *_diagnosis(record),
        Fact("File", path, code=True),
        Fact("Identity", record.identity, code=True),
        Fact("SHA-256 of the witnesses", record.witnesses_digest, code=True),
        *(Fact("Attack", spec, code=True) for spec in record.suite),
        *(Fact("Surrogate", name) for name in record.sources),
        Fact("Seed", str(record.seed)),
        Fact("Made", f"{made.finished}, satbench {made.satbench}, torch {made.torch}"),
        Fact("Machine", f"{made.platform}, {made.device}, {made.threads} threads"),
    ]


def _diagnosis(record: Record) -> list[Fact]:
    """Return the signs of masked gradients that were found in the model and in the verdicts."""
    found = record.diagnosis
    if found is None:
        return [Fact("Diagnosis", "nobody examined the model for masked gradients")]
    if not found.flags:
        passes = found.forwards + found.backwards
        return [Fact("Diagnosis", f"no sign of masked gradients, in {passes:,} passes")]
    return [Fact("Diagnosis", str(flag)) for flag in found.flags]


def _stages_table(record: Record, number: int) -> DataTable:
    columns = [
        PageColumn("order", "", "the order in which they ran", "number"),
        PageColumn("stage", "Attack"),
        PageColumn("attacked", "Attacked", "images that it attacked", "number", narrow=False),
        PageColumn("broken", "Broken", "", "number"),
        PageColumn("share", "Of all images, %", "", "number"),
        PageColumn("left", "Left, %", "of all images", "number"),
        PageColumn("forwards", "Forwards", "", "number", narrow=False),
        PageColumn("backwards", "Backwards", "", "number", narrow=False),
        PageColumn("passes", "Passes an image", "of those attacked", "number"),
    ]
    wrong = record.n - record.clean_correct
    rows = [_stage_row(record, k) for k in range(1, len(record.stages) + 1)]
    clean = [
        PageCell("0", order=0),
        PageCell("none: wrong without an attack"),
        _count(record.n),
        _count(wrong),
        _percent(wrong / record.n),
        _percent(record.clean_correct / record.n),
        _count(record.n),
        _count(0),
        PageCell("1", order=1),
    ]
    caption = f"Record {number}: the share that each attack broke"
    return DataTable(f"stages-{number}", caption, columns, [clean, *rows], "stage")


def _stage_row(record: Record, number: int) -> list[PageCell]:
    stage = record.stages[number - 1]
    broken = record.verdicts.count(number)
    forwards = stage.forwards + stage.source_forwards
    backwards = stage.backwards + stage.source_backwards
    each = passes_of(stage) / stage.attacked if stage.attacked else 0.0
    return [
        PageCell(str(number), order=number),
        PageCell(broken_by(record, number)),
        _count(stage.attacked),
        _count(broken),
        _percent(broken / record.n),
        _percent(record.surviving(number) / record.n),
        _count(forwards),
        _count(backwards),
        PageCell(f"{each:,.1f}", order=each),
    ]


def _count(number: int) -> PageCell:
    return PageCell(f"{number:,}", order=number)


def _percent(share: float) -> PageCell:
    return PageCell(percent(share), order=share)
