"""The command `satbench study`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FOLDER, PathOf
from satbench.core.errors import SatbenchError
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.studies.images import DatasetCache
    from satbench.studies.plan import StudyPlan
    from satbench.studies.runner import Machine, Part, Runner
    from satbench.studies.store import Places


@command(
    examples="""
    satbench study --list
    satbench study activations --dry-run
    satbench study activations --seeds 0-4 --workers cuda:all
    """,
)
@click.argument("name", required=False, shell_complete=completion.studies)
@click.option("--list", "show_list", is_flag=True, help="List the studies.")
@click.option(
    "--overview",
    is_flag=True,
    help="Write the page that lists the studies, and the table between the markers of README.md.",
)
@options.zoo
@click.option(
    "--recipe",
    shell_complete=completion.recipes,
    help="Train by another recipe; see `satbench recipes`.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a setting of the recipe; settings of the arms still override it. May "
    "be given several times.",
)
@click.option(
    "--seeds",
    help="Such as 0-4, 0,2,5 or 0 (only this seed); 5x means seeds 0 to 4. Default: the seeds of "
    "the study.",
)
@click.option(
    "--sweep",
    metavar="KEY=VALUE,…",
    help="Choose a setting for each arm, such as weight_decay=1e-4,2e-4,5e-4: the value with the "
    "greatest PGD-10 accuracy on held-out training images.",
)
@click.option(
    "--sweep-seeds",
    help="Seeds that --sweep trains, written as for --seeds. Default: those of the study.",
)
@options.n_examples("those of the study, 500 or 2000")
@click.option(
    "--eval-dataset",
    default="",
    shell_complete=completion.datasets,
    help="Default: the test set of the training data set.",
)
@click.option(
    "--models",
    "folders",
    multiple=True,
    type=PathOf(file_okay=False, exists=True),
    help="Folder of trained models, written by `satbench train --out`. May be given several times.",
)
@click.option(
    "--store",
    type=FOLDER,
    default=Path("runs/studies"),
    show_default=True,
    help="Folder for trained models, full records and witnesses.",
)
@click.option(
    "--results",
    type=FOLDER,
    default=Path("leaderboard/studies"),
    show_default=True,
    help="Folder of the run files (one for each model) that the page is made from.",
)
@click.option(
    "--docs",
    type=FOLDER,
    help="Folder for the page and its figures. Default: docs/studies; with --recipe its subfolder "
    "named like the recipe; with --sweep the subfolder sweep-KEY of that.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the runs and an estimate of the time, and do nothing else.",
)
@click.option(
    "--check", is_flag=True, help="Compare the page with the run files; exit 1 if they differ."
)
@click.option(
    "--only",
    type=click.Choice(["train", "evaluate", "page"]),
    help="Do only this part; `evaluate` skips models that are not trained yet.",
)
@click.option(
    "--workers",
    metavar="DEVICES",
    help="One process for each device, which share the runs: cuda:all, cuda:0,cuda:1, or a "
    "number of processes on the CPU.",
)
@options.device
@options.threads_given
@options.data_dir
@options.how_to_tell
@click.pass_context
def study(
    ctx: click.Context,
    name: str | None,
    show_list: bool,
    overview: bool,
    recipe: str | None,
    overrides: tuple[str, ...],
    seeds: str | None,
    sweep: str | None,
    sweep_seeds: str | None,
    n_examples: int | None,
    eval_dataset: str,
    folders: tuple[Path, ...],
    store: Path,
    results: Path,
    docs: Path | None,
    dry_run: bool,
    check: bool,
    only: str | None,
    workers: str | None,
    device: str,
    threads: int | None,
    data_dir: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a study of the SAT paper: train, evaluate, and write a page with a verdict.

    Existing models and results are used, so the same command continues a stopped study.  With
    --workers, one process for each device takes a share of the runs.  A second process with the
    same command, on this machine or on another with the same folders, takes a share too.
    """
    if show_list:
        _list(as_json)
        return
    if overview:
        ctx.exit(
            _overview((store, results, folders), data_dir, docs or Path("docs/studies"), check)
        )
    if name is None:
        raise SatbenchError(
            "expected the name of a study, such as activations; satbench study --list prints all"
        )
    from satbench.recipes import parse_overrides
    from satbench.studies import load_study
    from satbench.studies.images import DatasetCache
    from satbench.studies.plan import StudyOptions, parse_seeds
    from satbench.studies.store import Places, kept_digests, trained_digests
    from satbench.studies.sweep import outlook, parse_sweep, plan_sweep, plan_swept

    if sweep_seeds and not sweep:
        raise SatbenchError("--sweep-seeds needs --sweep: give both")
    swept = parse_sweep(sweep, parse_seeds(sweep_seeds) if sweep_seeds else ()) if sweep else None
    chosen = StudyOptions(
        parse_overrides(overrides),
        parse_seeds(seeds) if seeds else (),
        n_examples,
        eval_dataset,
        swept,
    )
    definition = load_study(name, recipe)
    if workers and device != "auto":
        raise SatbenchError(f"give --workers {workers} or --device {device}, not both")
    devices = None
    if workers and not dry_run and not check and only != "page":
        from satbench.studies.crew import parse_workers

        devices = parse_workers(workers)
    places = Places(store, results, folders)
    if dry_run:
        from satbench.studies.outline import Outlines

        images: DatasetCache = Outlines(data_dir, trained_digests(places), _teller(quiet))
    else:
        images = DatasetCache(data_dir, kept_digests(places) if check or only == "page" else None)
    pages = docs or Path("docs/studies", recipe or "", f"sweep-{swept.key}" if swept else "")
    if check:
        ctx.exit(_check(plan_swept(definition, chosen, images, places), places, images, pages))
    from satbench.studies.runner import Machine, Part, Runner

    machine = Machine(device, threads, quiet, _teller(quiet))
    if dry_run:
        plans = outlook(definition, chosen, images, places, _teller(quiet))
        _show(plans, places, images, machine, as_json)
        return
    part = cast(Part, only or "all")
    if swept:
        first = plan_sweep(definition, swept, chosen, images)
        # This part evaluates nothing, but the choice needs its run files.
        _carry_out(
            Runner(first, places, images, machine), "all" if part == "train" else part, devices
        )
    plan = plan_swept(definition, chosen, images, places)
    _carry_out(Runner(plan, places, images, machine), part, devices)
    written = _write(plan, places, images, pages) if part in ("all", "page") else []
    _report(plan, places, written, as_json)


def _carry_out(runner: Runner, part: Part, devices: Sequence[str] | None) -> None:
    if part == "page":
        return
    if devices:
        from satbench.studies.crew import share_out

        share_out(runner, part, devices, runner.machine.say, _teller(quiet=False))
    else:
        from satbench.studies.estimate import Estimate

        runner.carry_out(part, Estimate(runner).seconds)


def _report(plan: StudyPlan, places: Places, written: Sequence[Path], as_json: bool) -> None:
    if as_json:
        runs = {cell.key: asdict(run) for cell in plan.cells if (run := places.run(cell.key))}
        choices = {"choices": list(map(asdict, plan.choices))} if plan.options.sweep else {}
        files = list(map(str, written))
        tell(json.dumps({"runs": runs, **choices, "files": files}, indent=1))
        return
    for choice in plan.choices:
        tell(f"{choice.arm}: {choice.setting}, held-out PGD-10 {max(choice.scores):.1%}")
    for path in written:
        tell(f"wrote {path}")


def _list(as_json: bool) -> None:
    from satbench.cli.lists import show_rows
    from satbench.studies import STUDIES

    show_rows([{"name": e.name, "what": e.summary, "source": e.source} for e in STUDIES], as_json)


def _overview(
    places: tuple[Path, Path, tuple[Path, ...]], data_dir: Path | None, docs: Path, check: bool
) -> int:
    from satbench.core.files import write_text
    from satbench.studies.images import DatasetCache
    from satbench.studies.pages.build import check_texts, overview
    from satbench.studies.store import Places, kept_digests

    kept = Places(*places)
    pages = overview(kept, DatasetCache(data_dir, kept_digests(kept)), docs, Path("README.md"))
    if check:
        said = check_texts(pages, "satbench study --overview")
        if said:
            tell(f"satbench: {said}", err=True)
        return int(bool(said))
    for path, text in pages.items():
        write_text(path, text)
        tell(f"wrote {path}")
    return 0


def _teller(quiet: bool) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not quiet:
            tell(text, err=True)

    return say


def _check(plan: StudyPlan, places: Places, images: DatasetCache, pages: Path) -> int:
    from satbench.studies.pages.build import check_page

    said = check_page(plan, places, images, pages)
    if said:
        tell(f"satbench: {said}", err=True)
    return int(bool(said))


def _write(plan: StudyPlan, places: Places, images: DatasetCache, pages: Path) -> list[Path]:
    from satbench.studies.pages.build import write_page

    return write_page(plan, places, images, pages)


def _show(
    plans: Sequence[StudyPlan],
    places: Places,
    images: DatasetCache,
    machine: Machine,
    as_json: bool,
) -> None:
    """Print what is to be done; print work that two plans share only once."""
    from satbench.core.console import results
    from satbench.studies.estimate import Estimate, table_of
    from satbench.studies.runner import Runner

    found = {
        line.key: line
        for plan in plans
        for line in Estimate(Runner(plan, places, images, machine)).lines()
    }
    lines = list(found.values())
    if as_json:
        tell(json.dumps([asdict(line) for line in lines], indent=1))
        return
    results().print(table_of(lines))
