"""Model cards for people: a markdown page for each model that ships, and a list of them.

Written from cards, records, registries and recipes alone: the same of these, the same bytes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from satbench.core.errors import UnknownNameError
from satbench.core.registry import Entry
from satbench.core.specs import split_spec
from satbench.leaderboard.board import Benchmark, build_board
from satbench.leaderboard.markdown import MISSING, cell, percent, table
from satbench.leaderboard.publish import stale_files
from satbench.leaderboard.record import Record
from satbench.leaderboard.rows import COLUMNS, Column, Row, Share
from satbench.model_zoo._registry import ACTIVATIONS, ARCHITECTURES
from satbench.model_zoo.card import Card, Training
from satbench.recipes import recipe_summary

INDEX = "README.md"

_SHARES: tuple[Column, ...] = tuple(column for column in COLUMNS if column != "gap")
_BOARD = "../../leaderboard/LEADERBOARD.md"

_INTRODUCTION = f"""# The models that ship with satbench

A page a model: what it is, how it was trained, what is left of it under attack, what it is for.
Percent of all images of the benchmark, with 95 % intervals; **best known** is what no committed
record broke, an upper bound.  Models are compared, over training seeds, on the
[leaderboard]({_BOARD}).  Do not edit these pages: `satbench models cards` writes them.
"""


@dataclass(frozen=True)
class Result:
    """A model's row on a benchmark."""

    benchmark: Benchmark
    row: Row


def pages(
    cards: Sequence[Card], surrogates: Sequence[str], records: Sequence[Record]
) -> dict[str, str]:
    """Return the name and the text of each page: one a card, and the list of all.

    `surrogates` are the names of models that attacks borrow.  Records of models without a card
    enter nothing.  Raises SatbenchError for records that cannot be counted.
    """
    results = _results(records)
    found = {card.name: results.get(_key(card), []) for card in cards}
    written = {
        f"{card.name}.md": page(card, found[card.name], card.name in surrogates) for card in cards
    }
    return {**written, INDEX: _index(cards, found)}


def page(card: Card, results: Sequence[Result], is_surrogate: bool) -> str:
    """Return the page of one model."""
    told = card.training
    parts = [f"# {cell(card.name)}", _lead(card), _facts(_model_facts(card))]
    if told:
        parts += [
            "## Training",
            _facts(_training_facts(told)),
            "This command trains the same weights again, on the same data and versions:",
            f"```sh\n{told.command}\n```",
        ]
    parts += ["## Results", *_result_parts(results)]
    parts += ["## Use and limits", "\n".join(f"- {line}" for line in _limits(card, is_surrogate))]
    return "\n\n".join(parts) + "\n"


def stale_pages(contents: Mapping[Path, str], folder: Path) -> list[Path]:
    """Return the pages in `folder` that are missing, hold something else, or are of no model."""
    surplus = set(folder.glob("*.md")) - set(contents)
    return [*stale_files(contents), *sorted(surplus)]


def _results(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Result]]:
    found: dict[tuple[str, str, str], list[Result]] = {}
    for benchmark in build_board(records).benchmarks if records else ():
        for row in benchmark.rows:
            model = row.model
            key = model.weights_digest, model.architecture, model.activation
            found.setdefault(key, []).append(Result(benchmark, row))
    return found


def _key(card: Card) -> tuple[str, str, str]:
    return card.weights_digest, card.architecture, card.activation


def _lead(card: Card) -> str:
    network = f"`{card.architecture}` with `{card.activation}`"
    if not card.training:
        return f"{network}."
    told = card.training
    how = f"trained against `{told.attack}`" if told.attack else "trained without an adversary"
    return f"{network}, {how} on {cell(told.dataset)}, seed {told.seed}."


def _model_facts(card: Card) -> list[tuple[str, str]]:
    shape = "×".join(map(str, card.input_shape))
    return [
        ("network", _network_text(ARCHITECTURES[split_spec(card.architecture)[0]])),
        ("parameters", f"{card.parameters:,}"),
        ("activation", _activation_text(ACTIVATIONS[split_spec(card.activation)[0]])),
        ("images", f"{shape}, pixels in [0, 1] (the net normalises), {card.classes} classes"),
        ("weights", f"`{card.weights}`, SHA-256 of the tensors `{card.weights_digest}`"),
        ("licence", cell(card.licence)),
        ("from", cell(card.url)),
    ]


def _activation_text(entry: Entry) -> str:
    source = f" ({entry.source})" if entry.source else ""
    return cell(f"{entry.summary}{source}")


def _network_text(entry: Entry) -> str:
    """Return what the network's own code says of it: layers, and what the paper's code has."""
    made = entry.load()
    texts = (inspect.getdoc(made), inspect.getdoc(sys.modules[getattr(made, "__module__", "")]))
    plain = " ".join(" ".join(text.split()) for text in texts if text)
    return plain.replace("|", "\\|")


def _training_facts(told: Training) -> list[tuple[str, str]]:
    held_out = told.config.get("held_out")
    images = f"of {held_out:,} " if isinstance(held_out, int) else "of "
    mode = told.config.get("attack_mode")
    searched = f", batch-norm in {mode} mode" if mode else ""
    shares = ", ".join(f"{cell(what)} {percent(share)} %" for what, share in told.held_out.items())
    return [
        ("recipe", f"`{told.recipe}`: {cell(_recipe_text(told.recipe))}"),
        ("threat model", f"`{told.threat}`" if told.attack else "none"),
        ("attacker", f"`{told.attack}`{searched}" if told.attack else "none"),
        ("seed", str(told.seed)),
        ("data", f"{cell(told.dataset)}, training split, SHA-256 `{told.data_digest}`"),
        ("kept", cell(told.kept) + (", as the recipe says" if told.kept == "last epoch" else "")),
        ("held out", f"{shares}, {images}training images that no step saw"),
        ("made with", cell(f"satbench {told.satbench}, torch {told.torch}")),
    ]


def _recipe_text(name: str) -> str:
    try:
        return recipe_summary(name)
    except UnknownNameError:  # a recipe of the trainer's own
        return "not of satbench"


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    return table(("", ""), [row for row in rows if row[1]], words=2)


def _result_parts(results: Sequence[Result]) -> list[str]:
    if not results:
        return ["No committed record is about this model."]
    parts = []
    for result in results:
        benchmark, row = result.benchmark, result.row
        data = benchmark.dataset
        parts += [
            f"**{cell(benchmark.title)}**: {data.n} images of the {data.split} split "
            f"(digest `{data.digest[:12]}`), {row.records} records; rank {row.rank} of "
            f"{len(benchmark.rows)} by best known on the [leaderboard]({_BOARD}).",
            table(
                ("", "right", "%", "95 % interval"),
                [
                    (COLUMNS[column], f"{share.count} of {share.n}", *_numbers(share))
                    for column in _SHARES
                    if (share := row.share(column))
                ],
                words=1,
            ),
        ]
        parts += [f"† {cell(str(flag))}" for flag in row.flags or ()]
    return parts


def _numbers(share: Share) -> tuple[str, str]:
    low, high = share.interval
    return percent(share.value), f"{percent(low)}–{percent(high)}"


def _limits(card: Card, is_surrogate: bool) -> list[str]:
    lines = ["For research on robustness; not for use where a wrong answer does harm."]
    told = card.training
    if told and told.attack:
        lines.append(
            f"Trained for {cell(told.threat)} on {cell(told.dataset)}; nothing is claimed of other "
            "norms and radii, of other changes to an image, or of other images."
        )
    if told and not told.attack:
        lines.append("A control: it is not robust, and every attack must break it.")
    if is_surrogate:
        lines.append("A surrogate: transfer attacks borrow it, and it is on no leaderboard.")
    lines += [
        "Robust accuracy is an upper bound: a stronger attack can only lower it "
        f"(`satbench challenge`). To measure it again: `satbench eval --model {card.name}`.",
        "One training seed: what an activation does shows over the seeds of a recipe, not here.",
    ]
    return lines


def _index(cards: Sequence[Card], found: Mapping[str, Sequence[Result]]) -> str:
    head = ("model", "activation", "recipe", "parameters", "clean", "best known", "95 %")
    lines = []
    for card in sorted(cards, key=lambda card: card.name):
        told, results = card.training, found[card.name]
        numbers = [(MISSING, MISSING, MISSING)]
        if results:  # of several benchmarks the first; the page has them all
            row = results[0].row
            numbers = [(percent(row.clean.value), *_numbers(row.best_known))]
        lines.append(
            (
                f"[{cell(card.name)}]({card.name}.md)",
                f"`{card.activation}`",
                cell(told.recipe) if told else MISSING,
                f"{card.parameters:,}",
                *numbers[0],
            )
        )
    return f"{_INTRODUCTION}\n{table(head, lines, words=3)}\n"
