"""The demo: attacks on three models in under a minute, or on all models."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from satbench.board.board import build_board
from satbench.board.exports import benchmark_objects
from satbench.board.publish import published_board
from satbench.board.published import numbers_of
from satbench.board.tables import render_markdown
from satbench.board.terminal import leaderboard_table
from satbench.calling.threads import with_threads
from satbench.core.console import BarProgress, results
from satbench.core.files import write_text
from satbench.core.text.terminal import tell
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.config import eval_config
from satbench.evaluation.demo_time import Clock, Work
from satbench.evaluation.given import Given
from satbench.evaluation.python.result import Result
from satbench.evaluation.report import brief_table_of, rows_of, table_of
from satbench.model_zoo.card import board_names, zoo_card
from satbench.records.record import Record

THREE = ("fmnist-standard-tiny-relu-s0", "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0")
THREE_ATTACKS = ("pgd-50", "fast")
THREE_EXAMPLES = 200

PICTURE = "images.png"
IMAGES = 4

PGD = "pgd-20"
PGD_EXAMPLES = 1000
AUTOATTACK_EXAMPLES = 50
AUTOATTACK_MODELS = ("fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0")

_LIVE = "> **Live**: computed just now on this machine by `satbench demo --all`."
_COMMITTED = (
    "> **Committed**: the full leaderboard that ships with satbench; nothing was run for it here."
)


@dataclass(frozen=True)
class _Place:
    """Where the demo runs and where it writes."""

    out: Path
    device: str
    quiet: bool


def run_demo(out: Path, device: str, quiet: bool) -> list[Result]:
    """Evaluate three models, print a table and next steps; return their records."""
    jobs = [Work(name, THREE_ATTACKS, THREE_EXAMPLES) for name in THREE]
    records = _run(jobs, _Place(out, device, quiet))
    console = results()
    console.print(_three_rows(records))
    console.print(
        Text(
            f"Percent of {THREE_EXAMPLES} test images that stay right when each pixel may change "
            f"by {records[0].eps}, with the 95 % interval after the last attack.\n"
            f"{THREE_ATTACKS[1]} broke {_missed(records)} images that {THREE_ATTACKS[0]} did not: "
            "robust accuracy is an upper bound.\n"
        )
    )
    if find_spec("matplotlib"):
        picture = records[-1].show(IMAGES).save(out / PICTURE)
        tell(f"{picture}: images that fool {records[-1].model.name}\n")
    console.print(Text(_next(out)), soft_wrap=True)
    return records


def run_whole_demo(out: Path, device: str, quiet: bool) -> list[Result]:
    """Evaluate all shipped models, print and write both leaderboards; return the records."""
    jobs = [Work(name, (PGD,), PGD_EXAMPLES) for name in board_names()]
    strong_jobs = [Work(name, ("autoattack",), AUTOATTACK_EXAMPLES) for name in AUTOATTACK_MODELS]
    records = _run([*jobs, *strong_jobs], _Place(out, device, quiet))
    live, strong = records[: len(jobs)], records[len(jobs) :]
    console = results()
    console.rule(f"live: {PGD} on the first {PGD_EXAMPLES} images")
    console.print(brief_table_of(live))
    console.rule(f"live: AutoAttack on the first {AUTOATTACK_EXAMPLES} images")
    console.print(table_of(strong))
    console.rule("committed with satbench: the full leaderboard")
    committed = published_board()
    numbers = numbers_of(benchmark_objects(committed))
    console.print(leaderboard_table(numbers, console.width))
    path = out / "LEADERBOARD.md"
    here, there = render_markdown(build_board(records)), render_markdown(committed)
    write_text(path, f"{_LIVE}\n\n{here}\n{_COMMITTED}\n\n{there}")
    tell(
        "PGD makes a model look more robust than it is: compare the columns above.\n"
        f"wrote both leaderboards, the live one first, to {path}, and the live records next to it"
    )
    return records


def _run(jobs: Sequence[Work], place: _Place) -> list[Result]:
    records = []
    with with_threads(1), BarProgress(place.quiet) as progress:
        clock = Clock(jobs, place.device)
        for number, job in enumerate(jobs, 1):
            if not place.quiet:
                tell(
                    f"model {number} of {len(jobs)}: {job.model}, {' and '.join(job.attacks)} on "
                    f"{job.n:,} images; {clock.left()}",
                    err=True,
                )
            progress.model(f"{number}/{len(jobs)} {job.model}")
            with clock.working(job):
                config = eval_config(
                    job.model,
                    attacks=list(job.attacks),
                    n_examples=job.n,
                    device=place.device,
                    out=place.out,
                )
                done = evaluate_config(config, progress)
                record = replace(done.record, path=done.path)
                records.append(Result.of(record, Given(job.model)))
    return records


def _missed(records: Sequence[Result]) -> int:
    """Return how many images later attacks broke that the first one did not."""
    first = [record.attack_stages()[0][1][-1] for record in records]
    return sum(
        record.surviving(stage) - record.surviving()
        for record, stage in zip(records, first, strict=True)
    )


def _three_rows(records: Sequence[Record]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    table.add_column("activation", no_wrap=True)
    for heading in ("clean", *THREE_ATTACKS, "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        clean, *attacked, overall = rows_of(record)
        card = zoo_card(record.model.name)
        table.add_row(
            Text(record.model.name),
            Text(card.activation),
            *(f"{row.accuracy:.1%}" for row in (clean, *attacked)),
            f"{overall.low:.1%} – {overall.high:.1%}",
        )
    return table


def _next(out: Path) -> str:
    program = _program()
    return (
        "Next:\n"
        f"  {program} verify {out}/*.json    # re-check these results with their witnesses\n"
        f"  {program} eval --model {THREE[-1]} --attack autoattack --n-examples 100\n"
        f"  {program} eval --model mypackage.module:factory --dataset cifar10 --eps 8/255"
        "    # your own network"
    )


def _program() -> str:
    """Return the command for this program: its name if the shell finds it."""
    if shutil.which("satbench"):
        return "satbench"
    program = Path(sys.executable).parent / "satbench"
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)
