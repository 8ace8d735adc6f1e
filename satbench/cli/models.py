"""The command `satbench models`: list, show, add or import named models."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.card import card as card_command
from satbench.cli.import_tf1 import import_tf1
from satbench.cli.shell import completion
from satbench.cli.shell.commands import group
from satbench.cli.shell.paths import FOLDER, PATH
from satbench.core.text.terminal import one_line, tell
from satbench.model_zoo.card import Card

if TYPE_CHECKING:
    from satbench.records.record import Record


@group(
    invoke_without_command=True,
    examples="""
    satbench models
    satbench models --names --board
    satbench models show fmnist-sat-tiny-silu-s0
    """,
)
@click.option("--board", is_flag=True, help="Only shipped models that are not surrogates.")
@click.option("--names", "names_only", is_flag=True, help="Print only the names, one a line.")
@options.as_json
@options.zoo
@click.pass_context
def models(ctx: click.Context, board: bool, names_only: bool, as_json: bool) -> None:
    """List the named models: those that ship with satbench, and your own."""
    if ctx.invoked_subcommand is None:
        _list(board, names_only, as_json)


models.add_command(import_tf1)
models.add_command(card_command)


@models.command(
    "list",
    examples="""
    satbench models list --json
    """,
)
@click.option("--board", is_flag=True, help="Only shipped models that are not surrogates.")
@click.option("--names", "names_only", is_flag=True, help="Print only the names, one a line.")
@options.as_json
@options.zoo
def list_models(board: bool, names_only: bool, as_json: bool) -> None:
    """List the models, as `satbench models` does."""
    _list(board, names_only, as_json)


@models.command(
    examples="""
    satbench models show fmnist-sat-tiny-silu-s0
    satbench models show runs/mine --json
    """,
)
@click.argument("name", shell_complete=completion.models)
@options.as_json
@options.zoo
def show(name: str, as_json: bool) -> None:
    """Print the card of a model: what it is, how it was trained, how to evaluate it.

    NAME is a model of the zoo, a card, the folder of a run, or a known file of weights.
    """
    from satbench.core.errors import SatbenchError
    from satbench.models import request_model

    card = request_model(name).card
    if card is None:
        raise SatbenchError(f"{name} has no card: name a model of the zoo, a run or a card")
    tell(json.dumps(card.to_dict(), indent=2) if as_json else _card_text(card, name))


@models.command(
    examples="""
    satbench models add runs/mine
    satbench models add card.json --zoo my-zoo
    """,
)
@click.argument("card", type=PATH)
@options.as_json
@options.zoo
def add(card: Path, as_json: bool) -> None:
    """Check a card and its weights, and add the model to your own zoo.

    CARD is a card, the folder of a run, or a file of weights that carries its card.
    The weights must have the card's digest, fit the network exactly and give finite logits.
    """
    from satbench.model_zoo.card import user_zoo
    from satbench.models.user_zoo import add_model

    added = add_model(card)
    path = user_zoo() / f"{added.name}.json"
    if as_json:
        tell(json.dumps({"name": added.name, "card": str(path)}, indent=2))
        return
    tell(f"added {added.name} to {path.parent}")
    tell(_eval_command(added, added.name))


@models.command(
    examples="""
    satbench models presets
    """,
)
@options.as_json
def presets(as_json: bool) -> None:
    """List the presets: the kinds of weight files that `--preset` can read, and how."""
    from satbench.model_zoo.presets import PRESETS

    if as_json:
        tell(json.dumps([asdict(one) for one in PRESETS.values()], indent=2))
        return
    width = max(map(len, PRESETS))
    for one in PRESETS.values():
        tell(f"{one.name:<{width}}  {one.summary} ({one.source})")


@models.command(
    examples="""
    satbench models cards --check
    satbench models cards --out pages
    """,
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a page is out of date.")
@click.option("--pictures", is_flag=True, help="Draw the pictures of broken images again.")
@click.option(
    "--records",
    type=FOLDER,
    help="Folder of records. Default: those of satbench.",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("docs/models"),
    show_default=True,
    help="Folder of the pages.",
)
@options.as_json
def cards(check: bool, pictures: bool, records: Path | None, out: Path, as_json: bool) -> None:
    """Write a page in markdown for each model that ships, and a list of them.

    They are made only from the cards and the committed records.  --pictures runs each model
    on the images that its page shows.
    """
    from satbench.board.model_pages import PICTURES, pages, pictured, stale_pages
    from satbench.board.publish import published_certificates, published_records, write_files
    from satbench.model_zoo.card import board_names, zoo_card, zoo_names
    from satbench.records.record import read_records

    names = zoo_names()
    found = read_records(records) if records else published_records()
    shipped = [zoo_card(name) for name in names]
    surrogates = sorted(set(names) - set(board_names()))
    written = pages(shipped, surrogates, found, () if records else published_certificates())
    contents = {out / name: text for name, text in written.items()}
    shown = pictured(shipped, found)
    if not check:
        write_files(contents)
        if pictures:
            draw_pictures(shown, out / PICTURES)
    stale = stale_pages(contents, out, list(shown))
    if as_json:
        counts = {"pages": len(contents), "stale": [str(path) for path in stale] if check else []}
        tell(json.dumps(counts, indent=2))
    else:
        state = f"{len(stale)} out of date" if check else "written"
        tell(f"{len(contents)} pages in {out}: {state}")
    if check and stale:
        listed = ", ".join(path.name for path in stale[:5]) + (", …" if len(stale) > 5 else "")
        tell(
            f"satbench: out of date: {listed}; run satbench models cards --out {out} and remove "
            "the pages that belong to no model",
            err=True,
        )
        raise SystemExit(1)


def draw_pictures(shown: Mapping[str, Record], folder: Path) -> None:
    """Draw the picture of each model's page, from the record that it shows."""
    from satbench.board.model_pages import SHOWN
    from satbench.core.console import progress_bar
    from satbench.evaluation.given import Given
    from satbench.evaluation.python.result import Result
    from satbench.figures.picture import check_can_draw

    check_can_draw()
    with progress_bar() as bar:
        task = bar.add_task("drawing", total=len(shown), note="")
        for name, record in shown.items():
            Result.of(record, Given()).show(SHOWN).save(folder / f"{name}.png")
            bar.advance(task)


def _list(board: bool, names_only: bool, as_json: bool) -> None:
    from satbench.core.errors import SatbenchError
    from satbench.model_zoo.card import board_names, user_card, user_names, zoo_card, zoo_names
    from satbench.models import MODELS, SOURCES

    shipped = board_names() if board else zoo_names()
    own = [] if board else user_names()
    if names_only:
        names = [*shipped, *own]
        tell(json.dumps(names, indent=2) if as_json else "\n".join(map(one_line, names)))
        return
    cards = [zoo_card(name) for name in shipped]
    for name in own:
        try:
            cards.append(user_card(name))
        except SatbenchError as error:  # list the other cards when one is bad
            tell(f"satbench: {error}", err=True)
    for fault in [*MODELS.faults, *SOURCES.faults]:
        tell(f"satbench: {fault}", err=True)
    if as_json:
        tell(json.dumps([card.to_dict() for card in cards], indent=2))
        return
    _print_table(cards)
    if not board:
        _print_sources()


def _print_table(cards: list[Card]) -> None:
    from rich import box
    from rich.table import Table

    from satbench.core.console import FittingTable, results, words

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("name", "activation", "recipe", "threat", "parameters"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "name")
    for card in cards:
        recipe, threat = (
            (card.training.recipe, card.training.threat) if card.training else ("–", "–")
        )
        activation = card.activation.partition("(")[0]
        table.add_row(words(card.name), words(activation), recipe, threat, f"{card.parameters:,}")
    results().print(FittingTable(table, ("parameters", "activation", "threat", "recipe")))


def _print_sources() -> None:
    from satbench.models import MODELS, SOURCES

    tell("other models, which need a full name:")
    for entry in [*SOURCES, *MODELS]:
        tell(f"  {entry.summary if not entry.plugin else f'{entry.name}, {entry.summary}'}")


def _card_text(card: Card, name: str) -> str:
    """Return a card as lines of `field  value`."""
    shape = "×".join(str(n) for n in card.input_shape)
    rows = [
        ("name", card.name),
        ("architecture", card.architecture),
        ("activation", card.activation),
        ("parameters", f"{card.parameters:,}"),
        ("images", f"{shape}, {card.classes} classes"),
        ("weights", card.weights),
        ("from", card.url),
        ("origin", card.origin),
        ("sha-256", card.weights_digest),
        ("licence", card.licence),
    ]
    if trained := card.training:
        held_out = ", ".join(f"{what} {share:.1%}" for what, share in trained.held_out.items())
        rows += [
            ("recipe", f"{trained.recipe}, seed {trained.seed}"),
            ("trained on", f"{trained.dataset} (sha-256 {trained.data_digest[:12]}…)"),
            (
                "against",
                f"{trained.attack} in {trained.threat}" if trained.attack else "no adversary",
            ),
            ("kept", trained.kept),
            *(("note", note) for note in trained.notes),
            ("held out", f"{held_out} (training images that no step saw)"),
            ("with", f"satbench {trained.satbench}, torch {trained.torch}"),
            ("again", trained.command),
        ]
    rows.append(("evaluate", _eval_command(card, name)))
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:<{width}}  {one_line(value)}" for what, value in rows if value)


def _eval_command(card: Card, name: str) -> str:
    command = f"satbench eval --model {shlex.quote(name)}"
    return command if card.training else f"{command} --dataset NAME --eps 8/255"
