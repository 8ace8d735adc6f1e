"""The page of a model: its card, its numbers on each board and all its records."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satbench.board.marks import PROMISES
from satbench.board.rows import COLUMNS, Column, Row
from satbench.core.markdown import percent
from satbench.core.schema import read_text
from satbench.core.threat import show_fraction
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
from satbench.website.known import KnownBeside, KnownPoint, Series, by_eps, by_steps
from satbench.website.looks import Drawn, Looks
from satbench.website.model_charts import eps_chart, steps_chart
from satbench.website.pictures import Pictures, shown_record
from satbench.website.places import model_key, model_place, model_title
from satbench.website.record_part import record_path, record_place, record_values

_SHARES: tuple[Column, ...] = tuple(column for column in COLUMNS if column != "gap")


@dataclass(frozen=True)
class SiteModel:
    """A model of the site, with its row on each of its boards; it has at least one."""

    rows: tuple[tuple[SiteBoard, Row], ...]

    @property
    def model(self) -> ModelInfo:
        """The model as it is on its first board."""
        return self.rows[0][1].model

    @property
    def place(self) -> str:
        """The place of its page in the site."""
        return model_place(self.model)

    @property
    def records(self) -> list[Record]:
        """Its records by board, the strongest first."""
        return [
            record
            for _, row in self.rows
            for record in sorted(row.records, key=lambda one: (one.surviving(), one.identity))
        ]


def site_models(boards: Iterable[SiteBoard]) -> list[SiteModel]:
    """Return the models of all boards, each once, in the order of their places.

    The boards of a model are ordered by their number of models, the largest first.
    """
    found: dict[tuple[str, ...], list[tuple[SiteBoard, Row]]] = {}
    measured = [board for board in boards if board.benchmark]
    for board in sorted(measured, key=lambda one: -len(one.rows)):
        for row in board.rows:
            found.setdefault(model_key(row.model), []).append((board, row))
    models = (SiteModel(tuple(rows)) for rows in found.values())
    return sorted(models, key=lambda one: one.place)


@dataclass(frozen=True)
class SiteContext:
    """What the pages of all models use: cards, other measurements, how models are drawn.

    `pictures` draws broken images; with None no image is drawn.
    """

    cards: Cards
    known: KnownBeside
    looks: Looks
    pictures: Pictures | None = None


def model_values(one: SiteModel, site: SiteContext) -> dict[str, object]:
    """Return the values for the template of the page."""
    model, card, pictures = one.model, card_of(one.model, site.cards), site.pictures
    drawn = site.looks.mark(model.activation, one.rows[0][1].training.recipe)
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
        "colour": drawn.colour,
        "eps": _eps_parts(one, site.known, drawn),
        "steps": [_steps_part(board, row, site.known, drawn) for board, row in one.rows],
        "grid": pictures.grid(shown) if pictures and shown else None,
        "grid_path": record_path(shown) if shown else "",
        "grid_threat": f"{shown.norm.capitalize()}, eps {shown.eps}" if shown else "",
        "flags": _flags(row for _, row in one.rows),
        "diagnosed": any(row.flags is not None for _, row in one.rows),
        "records": [record_values(record, k) for k, record in enumerate(one.records, 1)],
        "evaluate": f"satbench eval --model {card.name}" if card else "",
    }


def _eps_parts(one: SiteModel, known: KnownBeside, drawn: Drawn) -> list[dict[str, object]]:
    """Return a chart for each set of images and norm; boards at several radii share one."""
    found: dict[tuple[str, str], list[tuple[SiteBoard, Row]]] = {}
    for board, row in one.rows:
        if board.benchmark is not None:
            key = board.benchmark.dataset.digest, board.benchmark.threat.norm
            found.setdefault(key, []).append((board, row))
    return [
        _eps_part(rows, key, number, known, drawn)
        for number, (key, rows) in enumerate(found.items(), 1)
    ]


def _eps_part(
    rows: Sequence[tuple[SiteBoard, Row]],
    key: tuple[str, str],
    number: int,
    known: KnownBeside,
    drawn: Drawn,
) -> dict[str, object]:
    (digest, norm), (board, row) = key, rows[0]
    n = row.clean.n
    points = [
        KnownPoint(float(each.benchmark.threat.eps), row.best_known.count, n)
        for each, row in rows
        if each.benchmark
    ]
    points = [KnownPoint(0.0, row.clean.count, n), *sorted(points, key=lambda point: point.x)]
    series = [Series("best known", points, is_board=True)]
    series += by_eps(known.runs_of(row.model), digest, norm)
    curve = known.curve_of(row.model, digest, norm)
    beside = f" --out leaderboard/{board.definition.name}/curves" if board.definition else ""
    command = f"satbench curve {shlex.quote(row.model.name)} --norm {norm} --n-examples {n}{beside}"
    return {
        "title": board.title,
        "place": board.place,
        "curve": curve is not None,
        "chart": eps_chart(f"eps-chart-{number}", norm, series, curve, drawn),
        "command": command,
    }


def _steps_part(board: SiteBoard, row: Row, known: KnownBeside, drawn: Drawn) -> dict[str, object]:
    benchmark = board.benchmark
    assert benchmark is not None  # noqa: S101 (a row is of a benchmark)
    found = by_steps(
        known.runs_of(row.model), row.records, benchmark.dataset.digest, benchmark.threat
    )
    name = shlex.quote(row.model.name)
    eps, n = show_fraction(benchmark.threat.eps), row.clean.n
    chart = None
    if found is not None:
        shares = row.clean.value, row.best_known.value
        chart = steps_chart(f"steps-chart-{board.name}", found, *shares, drawn)
    return {
        "title": board.title,
        "place": board.place,
        "chart": chart,
        "commands": [
            f"satbench eval {name} --attack pgd-{steps} --norm {benchmark.threat.norm} "
            f"--eps {eps} --n-examples {n}"
            for steps in (10, 200)
        ],
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
        "table": _numbers(row, f"numbers-{number}", board.title),
    }


def _checked(row: Row) -> list[Fact]:
    if row.checked is None:
        return []
    one = row.checked
    text = f"{one.broken} of {one.sampled} survivors were broken by another attack; with 95 % "
    text += f"confidence best known is too high by at most {percent(one.too_high)} points"
    return [Fact("Recheck", text), Fact("by", ", then ".join(one.attacks), code=True)]


def _gap(row: Row) -> list[Fact]:
    gap = row.value("gap")
    if gap is None:
        return []
    return [Fact("Gap", f"{percent(gap)} points: PGD-50 minus best known")]


def _cost(row: Row) -> list[Fact]:
    runs = {"AutoAttack": row.cost.autoattack, "fast": row.cost.fast}
    texts = [
        f"{name} {float(run.passes):,.1f}"
        for name, run in runs.items()
        if run is not None and run.passes is not None
    ]
    text = f"{', '.join(texts)}, for each image that was right without an attack"
    return [Fact("Passes of suites", text)] if texts else []


def _agreement(row: Row) -> list[Fact]:
    if row.agreement is None:
        return []
    one = row.agreement
    text = f"satbench's AutoAttack leaves {one.ours.left}, the package pyautoattack "
    text += f"{one.reference.left}; {one.differing} images differ"
    return [Fact("Reference", text)]


def _numbers(row: Row, name: str, title: str) -> DataTable:
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
    caption = f"Accuracy on {title}, in percent of all images"
    return DataTable(name, caption, columns, rows, "what")


def _flags(rows: Iterable[Row]) -> list[Flag]:
    """Return the flags of all boards, each once."""
    return list(dict.fromkeys(flag for row in rows for flag in row.flags or ()))
