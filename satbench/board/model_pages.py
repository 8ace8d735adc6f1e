"""Pages of the shipped models: a markdown page for each, and a list of them.

They are written only from cards, records, registries and recipes; the same inputs give the same
bytes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from satbench.board.board import Benchmark, build_board
from satbench.board.publish import stale_files
from satbench.board.rows import COLUMNS, Column, Row, Share
from satbench.core.errors import UnknownNameError
from satbench.core.markdown import MISSING, address, cell, code, percent, table
from satbench.core.specs import split_spec
from satbench.core.templates import fill
from satbench.model_zoo.card import Card, Training
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES
from satbench.recipes import recipe_summary
from satbench.records.certificates import Certificate
from satbench.records.record import Record

INDEX = "README.md"
PICTURES, SHOWN = "pictures", 4
"""The folder of the pages' pictures, and how many images a picture shows."""

_SHARES: tuple[Column, ...] = tuple(column for column in COLUMNS if column != "gap")
_BOARD = "../../leaderboard/README.md"


@dataclass(frozen=True)
class BenchmarkRow:
    """A model's row on a benchmark."""

    benchmark: Benchmark
    row: Row


def pictured(cards: Sequence[Card], records: Sequence[Record]) -> dict[str, Record]:
    """Return by model name the record whose broken images the model's page shows.

    It is the one with the fewest survivors.  Models without a broken image and records without a
    file are left out.
    """
    found: dict[tuple[str, str, str], Record] = {}
    for record in records:
        model = record.model
        key = model.weights_digest, model.architecture, model.activation
        if record.path and record.surviving() < record.clean_correct:
            best = found.setdefault(key, record)
            if _order(record) < _order(best):
                found[key] = record
    return {card.name: found[_key(card)] for card in cards if _key(card) in found}


def picture_command(name: str, record: Record) -> str:
    """Return the command that draws the picture of a model's page."""
    place = "/".join(record.path.parts[-4:]) if record.path else ""
    return f"satbench images {place} --n {SHOWN} --figure docs/models/{PICTURES}/{name}.png"


def pages(
    cards: Sequence[Card],
    surrogates: Sequence[str],
    records: Sequence[Record],
    certificates: Sequence[Certificate] = (),
) -> dict[str, str]:
    """Return the name and the text of each page: one per card, and the list of all.

    `surrogates` are the names of the surrogates.  Records of models without a card are ignored.
    Raises SatbenchError for records that cannot be counted.
    """
    results, shown = _results(records, certificates), pictured(cards, records)
    found = {card.name: results.get(_key(card), []) for card in cards}
    written = {
        f"{card.name}.md": page(
            card, found[card.name], card.name in surrogates, shown.get(card.name)
        )
        for card in cards
    }
    return {**written, INDEX: _index(cards, found)}


def page(
    card: Card, results: Sequence[BenchmarkRow], is_surrogate: bool, shown: Record | None = None
) -> str:
    """Return the page of one model, with a picture of the broken images of the record `shown`."""
    values = {
        "card": card,
        "training": card.training,
        "facts": _facts(_model_facts(card)),
        "training_facts": _facts(_training_facts(card.training)) if card.training else "",
        "results": [_result(one) for one in results],
        "is_surrogate": is_surrogate,
        "board": _BOARD,
        "picture": f"{PICTURES}/{card.name}.png" if shown else "",
        "picture_command": picture_command(card.name, shown) if shown else "",
        "shown": shown,
    }
    return fill("model.md", values, {"cell": cell})


def stale_pages(
    contents: Mapping[Path, str], folder: Path, shown: Sequence[str] = ()
) -> list[Path]:
    """Return the pages in `folder` that are missing, differ, or belong to no model.

    It also returns pictures of the models `shown` that are missing or belong to no model.  Their
    contents are not compared, because they depend on the version of matplotlib.
    """
    pictures = {folder / PICTURES / f"{name}.png" for name in shown}
    surplus = set(folder.glob("*.md")) - set(contents)
    surplus |= pictures ^ set((folder / PICTURES).glob("*.png"))
    return [*stale_files(contents), *sorted(surplus)]


def _results(
    records: Sequence[Record], certificates: Sequence[Certificate]
) -> dict[tuple[str, str, str], list[BenchmarkRow]]:
    found: dict[tuple[str, str, str], list[BenchmarkRow]] = {}
    for benchmark in _benchmarks(records, certificates):
        for row in benchmark.rows:
            model = row.model
            key = model.weights_digest, model.architecture, model.activation
            found.setdefault(key, []).append(BenchmarkRow(benchmark, row))
    return found


def _benchmarks(
    records: Sequence[Record], certificates: Sequence[Certificate]
) -> Sequence[Benchmark]:
    return build_board(records, certificates=certificates).benchmarks if records else ()


def _order(record: Record) -> tuple[int, str]:
    return record.surviving(), str(record.path)


def _key(card: Card) -> tuple[str, str, str]:
    return card.weights_digest, card.architecture, card.activation


def _model_facts(card: Card) -> list[tuple[str, str]]:
    shape = "×".join(map(str, card.input_shape))
    return [
        ("network", network_text(card.architecture).replace("|", "\\|")),
        ("parameters", f"{card.parameters:,}"),
        ("activation", cell(activation_text(card.activation))),
        ("images", f"{shape}, pixels in [0, 1] (the net normalises), {card.classes} classes"),
        ("weights", f"{code(card.weights)}, SHA-256 of the tensors {code(card.weights_digest)}"),
        ("licence", cell(card.licence)),
        ("from", address(card.url)),
    ]


def activation_text(activation: str) -> str:
    """Return the formula of an activation, and its source."""
    entry = ACTIVATIONS[split_spec(activation)[0]]
    source = f" ({entry.source})" if entry.source else ""
    return f"{entry.summary}{source}"


def network_text(architecture: str) -> str:
    """Return the description of a network in its code: layers, differences from the paper."""
    made = ARCHITECTURES[split_spec(architecture)[0]].load()
    texts = (inspect.getdoc(made), inspect.getdoc(sys.modules[getattr(made, "__module__", "")]))
    return " ".join(" ".join(text.split()) for text in texts if text)


def _training_facts(training: Training) -> list[tuple[str, str]]:
    held_out = training.config.get("held_out")
    images = f"of {held_out:,} " if isinstance(held_out, int) else "of "
    mode = training.config.get("attack_mode")
    searched = f", batch-norm in {mode} mode" if mode else ""
    shares = ", ".join(
        f"{cell(what)} {percent(share)} %" for what, share in training.held_out.items()
    )
    return [
        ("recipe", f"{code(training.recipe)}: {cell(recipe_text(training.recipe))}"),
        (
            "threat model",
            code(training.threat) if training.attack or training.bounds else "none",
        ),
        ("attacker", f"{code(training.attack)}{searched}" if training.attack else "none"),
        *([("bounds", code(training.bounds))] if training.bounds else []),
        ("seed", str(training.seed)),
        ("data", f"{cell(training.dataset)}, training split, SHA-256 {code(training.data_digest)}"),
        ("kept", cell(training.kept) + (", as the recipe says" * (training.kept == "last epoch"))),
        ("held out", f"{shares}, {images}training images that no step saw"),
        *(("note", cell(note)) for note in training.notes),
        ("made with", cell(f"satbench {training.satbench}, torch {training.torch}")),
    ]


def recipe_text(name: str) -> str:
    """Return a recipe's summary, in one sentence."""
    try:
        return recipe_summary(name)
    except UnknownNameError:  # a user's own recipe
        return "not of satbench"


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    return table(("", ""), [row for row in rows if row[1]], words=2)


def _result(result: BenchmarkRow) -> dict[str, object]:
    benchmark, row = result.benchmark, result.row
    lines = [
        (COLUMNS[column], f"{share.count} of {share.n}", *_numbers(share))
        for column in _SHARES
        if (share := row.share(column))
    ]
    return {
        "title": cell(benchmark.title),
        "n": benchmark.dataset.n,
        "split": cell(benchmark.dataset.split),
        "digest": benchmark.dataset.digest[:12],
        "records": len(row.records),
        "rank": row.rank,
        "models": len(benchmark.rows),
        "table": table(("", "right", "%", "95 % interval"), lines, words=1),
        "flags": row.flags or (),
    }


def _numbers(share: Share) -> tuple[str, str]:
    low, high = share.interval
    return percent(share.value), f"{percent(low)}–{percent(high)}"


def _index(cards: Sequence[Card], found: Mapping[str, Sequence[BenchmarkRow]]) -> str:
    head = ("model", "activation", "recipe", "parameters", "clean", "best known", "95 %")
    lines = []
    for card in sorted(cards, key=lambda card: card.name):
        training, results = card.training, found[card.name]
        numbers = [(MISSING, MISSING, MISSING)]
        if results:  # the first of several benchmarks; the page has all
            row = results[0].row
            numbers = [(percent(row.clean.value), *_numbers(row.best_known))]
        lines.append(
            (
                f"[{cell(card.name)}]({card.name}.md)",
                code(card.activation),
                cell(training.recipe) if training else MISSING,
                f"{card.parameters:,}",
                *numbers[0],
            )
        )
    return fill("models.md", {"board": _BOARD, "table": table(head, lines, words=3)})
