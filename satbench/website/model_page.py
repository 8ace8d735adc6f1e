"""The page of a model: its card, its numbers on each board, and all its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satbench.board.marks import PROMISES
from satbench.board.rows import COLUMNS, Column, Row
from satbench.core.markdown import percent
from satbench.core.schema import read_text
from satbench.records.flags import Flag
from satbench.records.record import ModelInfo, Record
from satbench.website.board_page import SiteBoard
from satbench.website.card_facts import (
    Cards,
    card_of,
    model_facts,
    training_command,
    training_facts,
)
from satbench.website.data_table import DataTable, Fact, PageCell, PageColumn
from satbench.website.pictures import picture_grid, shown_record
from satbench.website.places import model_key, model_place, model_title
from satbench.website.record_part import record_path, record_place, record_values

_SHARES: tuple[Column, ...] = tuple(column for column in COLUMNS if column != "gap")


@dataclass(frozen=True)
class SiteModel:
    """A model of the site, with its row on each board that it is on; never empty."""

    rows: tuple[tuple[SiteBoard, Row], ...]

    @property
    def model(self) -> ModelInfo:
        """The model, as its first board has it."""
        return self.rows[0][1].model

    @property
    def place(self) -> str:
        """Where its page lies."""
        return model_place(self.model)

    @property
    def records(self) -> list[Record]:
        """Its records, board by board, the strongest first."""
        return [
            record
            for _, row in self.rows
            for record in sorted(row.records, key=lambda one: (one.surviving(), one.identity))
        ]


def site_models(boards: Iterable[SiteBoard]) -> list[SiteModel]:
    """Return the models of all boards, each once, in the order of their places."""
    found: dict[tuple[str, ...], list[tuple[SiteBoard, Row]]] = {}
    for board in boards:
        for row in board.benchmark.rows if board.benchmark else ():
            found.setdefault(model_key(row.model), []).append((board, row))
    models = (SiteModel(tuple(rows)) for rows in found.values())
    return sorted(models, key=lambda one: one.place)


def model_values(one: SiteModel, cards: Cards, pictures: int) -> dict[str, object]:
    """Return what the template of the page is filled with; it shows up to so many pictures."""
    model, card = one.model, card_of(one.model, cards)
    shown = shown_record(one.records) if pictures else None
    return {
        "title": model_title(model),
        "trail": [(one.rows[0][0].title, one.rows[0][0].place), (model_title(model), one.place)],
        "lead": f"{model.architecture} with {model.activation}",
        "about": model_facts(model, card),
        "training": training_facts(model, card),
        "training_command": training_command(card),
        "has_card": card is not None,
        "boards": [_board_part(board, row, k) for k, (board, row) in enumerate(one.rows, 1)],
        "grid": picture_grid(shown, pictures) if shown else None,
        "grid_path": record_path(shown) if shown else "",
        "grid_threat": f"{shown.norm.capitalize()}, eps {shown.eps}" if shown else "",
        "flags": _flags(row for _, row in one.rows),
        "diagnosed": any(row.flags is not None for _, row in one.rows),
        "records": [record_values(record, k) for k, record in enumerate(one.records, 1)],
        "evaluate": f"satbench eval --model {card.name}" if card else "",
    }


def record_files(models: Sequence[SiteModel]) -> dict[str, str]:
    """Return the copies of all records, by their place in the site."""
    return {record_place(record): _text(record) for one in models for record in one.records}


def _text(record: Record) -> str:
    return record.to_json() if record.path is None else read_text(record.path, "record")


def _board_part(board: SiteBoard, row: Row, number: int) -> dict[str, object]:
    benchmark = board.benchmark
    return {
        "title": board.title,
        "place": board.place,
        "facts": [
            Fact("Rank", f"{row.rank} of {len(benchmark.rows) if benchmark else 0}"),
            Fact("Mark", f"{row.mark}: {PROMISES[row.mark]}"),
            *_checked(row),
            Fact("Images", board.images),
            *_gap(row),
            Fact("Passes", f"{row.passes_per_image:,.0f} an image, of all attacks together"),
            *_cost(row),
            *_agreement(row),
        ],
        "table": _numbers(row, f"numbers-{number}"),
    }


def _checked(row: Row) -> list[Fact]:
    if row.checked is None:
        return []
    one = row.checked
    text = f"{one.broken} of {one.sampled} survivors fell when they were attacked again; with 95 % "
    text += f"confidence best known is too high by at most {percent(one.too_high)} points"
    return [Fact("Recheck", text), Fact("by", ", then ".join(one.attacks), code=True)]


def _gap(row: Row) -> list[Fact]:
    gap = row.value("gap")
    if gap is None:
        return []
    return [Fact("Gap", f"{percent(gap)} points: PGD-50 minus the lower of AutoAttack and fast")]


def _cost(row: Row) -> list[Fact]:
    runs = {"AutoAttack": row.cost.autoattack, "fast": row.cost.fast}
    texts = [
        f"{name} {float(run.passes):,.1f}"
        for name, run in runs.items()
        if run is not None and run.passes is not None
    ]
    told = f"{', '.join(texts)}, for each image that was right when clean"
    return [Fact("Passes of suites", told)] if texts else []


def _agreement(row: Row) -> list[Fact]:
    if row.agreement is None:
        return []
    one = row.agreement
    text = f"satbench's AutoAttack leaves {one.ours.left}, the package pyautoattack "
    text += f"{one.reference.left}; {one.differing} images differ"
    return [Fact("Reference", text)]


def _numbers(row: Row, name: str) -> DataTable:
    columns = [
        PageColumn("what", "Accuracy"),
        PageColumn("right", "Right", "", "number"),
        PageColumn("percent", "%", "", "number"),
        PageColumn("interval", "95 % interval", "Wilson's, over images", "number"),
    ]
    rows = []
    for column in _SHARES:
        share = row.share(column)
        if share is None:
            continue
        low, high = share.interval
        rows.append(
            [
                PageCell(COLUMNS[column]),
                PageCell(f"{share.count:,} of {share.n:,}", order=share.count),
                PageCell(percent(share.value), order=share.value, strong=column == "best_known"),
                PageCell(f"{percent(low)} to {percent(high)}", order=low),
            ]
        )
    return DataTable(name, "Accuracy, in percent of all images", columns, rows, "what")


def _flags(rows: Iterable[Row]) -> list[Flag]:
    """Return the flags of all boards, each once."""
    return list(dict.fromkeys(flag for row in rows for flag in row.flags or ()))
