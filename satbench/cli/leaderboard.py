"""The command `satbench leaderboard`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.exchange import export, import_
from satbench.cli.page import page
from satbench.cli.shell import completion
from satbench.cli.shell.commands import group
from satbench.cli.shell.paths import FILE, FOLDER
from satbench.cli.shell.workers import workers as workers_options
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.board.published import BoardNumbers, Order
    from satbench.evaluation.workers import Workers

_ORDERS = ("best-known", "clean", "transfer", "pgd-50", "autoattack", "fast", "gap", "name")


@group(
    examples="""
    satbench leaderboard show
    satbench leaderboard build --records results
    """,
)
def leaderboard() -> None:
    """Make and show leaderboards from records."""


leaderboard.add_command(import_)
leaderboard.add_command(export)
leaderboard.add_command(page)


@leaderboard.command(
    examples="""
    satbench leaderboard build --check
    satbench leaderboard build --records results --out board
    """,
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file is out of date.")
@click.option(
    "--records",
    type=FOLDER,
    help="Folder of your own records. Default: all boards of the checkout.",
)
@click.option("--out", type=FOLDER, help="Folder to write. Default: the one above the records.")
@click.option(
    "--readme",
    type=FILE,
    help="A README in which to write the table between its markers, too.",
)
@click.option(
    "--docs", type=FOLDER, help="Folder for COST.md and AGREEMENT.md. Default: that of --out."
)
@options.as_json
def build(
    check: bool,
    records: Path | None,
    out: Path | None,
    readme: Path | None,
    docs: Path | None,
    as_json: bool,
) -> None:
    """Write LEADERBOARD.md, COST.md, AGREEMENT.md, leaderboard.csv and .json from the records.

    A record that cannot be read or counted is left out and named on stderr; --check then exits 1.

    Without --records, write these files for every board of the checkout, the list of boards,
    FLAGS.md and the table of the README.
    """
    from satbench.board.publish import (
        board_files,
        published_files,
        read_board,
        stale_files,
        write_files,
    )
    from satbench.core.errors import SatbenchError

    if records is None and (out or readme or docs):
        raise SatbenchError(
            "--out, --readme and --docs need --records: they say where its board is written"
        )
    left_out: list[str] = []
    if records is None:
        contents = published_files(left_out)
    else:
        board = read_board(records, left_out)
        contents = board_files(board, out or records.resolve().parent, readme, docs)
    stale = stale_files(contents) if check else []
    if not check:
        write_files(contents)
    fresh = "up to date" if check else "written"
    states = {_shown(path): "out of date" if path in stale else fresh for path in contents}
    if as_json:
        tell(json.dumps(states, indent=1))
    else:
        tell("\n".join(f"{state}: {path}" for path, state in states.items()))
    for fault in left_out:
        tell(f"satbench: left out: {fault}", err=True)
    if stale:
        names = ", ".join(_shown(path) for path in stale)
        again = _build_command(records, out, readme, docs)
        tell(f"satbench: out of date: {names}; run\n  {again}", err=True)
    if stale or (check and left_out):
        raise SystemExit(1)


@leaderboard.command(
    examples="""
    satbench leaderboard show --top 10
    satbench leaderboard show --activation silu --sort autoattack
    satbench leaderboard show --records results --json
    """,
)
@click.option("--records", type=FOLDER, help="Folder of records. Default: those of satbench.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N models.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(_ORDERS),
    default="best-known",
    show_default=True,
    help="The number that comes first is the highest; names go from A to Z.",
)
@click.option(
    "--dataset", metavar="NAME", shell_complete=completion.datasets, help="Only this data set."
)
@click.option(
    "--activation",
    metavar="NAME",
    shell_complete=completion.activations,
    help="Only this activation: celu, or celu(alpha=2).",
)
@options.as_json
def show(
    records: Path | None,
    top: int | None,
    order: Order,
    dataset: str | None,
    activation: str | None,
    as_json: bool,
) -> None:
    """Print the boards, or some of their models.

    A narrow terminal shows fewer columns; names are never broken.
    """
    from satbench.board.published import SCHEMA, chosen, published_numbers
    from satbench.core.text.json_text import json_text

    left_out: list[str] = []
    boards = None if records else published_numbers()
    if boards is None:
        boards = _computed(records, left_out)
    for fault in left_out:
        tell(f"satbench: left out: {fault}", err=True)
    boards = chosen(boards, dataset, activation, order, top)
    if as_json:
        value = {"schema": SCHEMA, "benchmarks": [board.values for board in boards]}
        tell(json_text(value), nl=False)
        return
    from satbench.board.terminal import leaderboard_table
    from satbench.core.console import results

    console = results()
    console.print(leaderboard_table(boards, console.width))


def _computed(records: Path | None, left_out: list[str]) -> list[BoardNumbers]:
    from satbench.board.exports import benchmark_objects
    from satbench.board.publish import published_board, read_board
    from satbench.board.published import numbers_of

    board = read_board(records, left_out) if records else published_board(left_out)
    return numbers_of(benchmark_objects(board))


@leaderboard.command(
    examples="""
    satbench leaderboard fill fashion-mnist-linf-0.1 --workers 2
    satbench leaderboard fill cifar10-linf-8-255 --model net.safetensors
    satbench leaderboard fill fashion-mnist-l2-1 --suite pgd-50 --suite fast
    """,
)
@click.argument("name", shell_complete=completion.boards)
@click.option(
    "--model",
    "models",
    multiple=True,
    shell_complete=completion.models,
    help="A model, see `satbench eval --help`. Default: the shipped ones that fit the images. "
    "May be given several times.",
)
@click.option(
    "--dataset",
    shell_complete=completion.datasets,
    help="Where the images are, if the board's data set is a folder: imagefolder:PATH@RULE.",
)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="ATTACKS",
    help="Only this suite of the board, named by its attacks, such as fast or pgd-50,autoattack. "
    "Default: all. May be given several times.",
)
@options.out(None, "the records, for a submission. Default: that of the board's records")
@options.zoo
@options.device
@options.threads
@options.data_dir
@options.trust
@workers_options
@options.how_to_tell
def fill(
    name: str,
    models: tuple[str, ...],
    dataset: str | None,
    suites: tuple[str, ...],
    out: Path | None,
    device: str,
    data_dir: Path | None,
    trust: tuple[str, ...],
    workers: Workers,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate every shipped model, or the given ones, under every suite of the board NAME.

    Existing records are kept. The same command continues a stopped one.
    """
    from satbench.board.definition import board_definition
    from satbench.evaluation.fill import fill_board

    paths = []
    board = board_definition(name)
    filled = fill_board(
        board, device, data_dir, quiet, trust, workers, models, dataset, out, suites
    )
    for path in filled:
        paths.append(_shown(path))
        if not as_json:
            tell(paths[-1])
    if as_json:
        tell(json.dumps(paths, indent=2))


def _build_command(
    records: Path | None, out: Path | None, readme: Path | None, docs: Path | None
) -> str:
    given = {"--records": records, "--out": out, "--readme": readme, "--docs": docs}
    words: Sequence[str] = [
        word for name, path in given.items() if path is not None for word in (name, str(path))
    ]
    return shlex.join(["satbench", "leaderboard", "build", *words])


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
