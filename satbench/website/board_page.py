"""The page of a board: the table of its models, and their summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import TypedDict

from satbench.board.board import Benchmark, Board
from satbench.board.definition import BoardDefinition
from satbench.board.exports import render_csv, render_json
from satbench.board.imported.rows import Imported, ImportedRow
from satbench.board.marks import PROMISES
from satbench.board.ready import fill_command
from satbench.board.rows import COLUMNS, Column, Group, Row
from satbench.board.tables import recipe_title
from satbench.core.markdown import MISSING, is_address, percent
from satbench.core.stats.shown import ALPHA
from satbench.core.threat import Threat, show_fraction
from satbench.records.curves import Curve
from satbench.records.transfers import TransferMatrix
from satbench.website.board_charts import (
    chart_key,
    clean_chart,
    comparison_table,
    pgd_chart,
    transfer_table,
)
from satbench.website.data_table import DataTable, Fact, PageCell, PageColumn, spec_cell
from satbench.website.looks import Looks
from satbench.website.places import model_place, model_title

WORDS: dict[str, str] = {
    "Rank": "the possible ranks of a model: the best is 1 + the number of models that are shown to "
    "be better, the worst is the number of models that are not shown to be worse",
    "Mark": "how far somebody else checked the numbers; the number after it is by how many points, "
    "at most, the best known accuracy can be too high",
    "Flags": "the number of reasons to doubt that the numbers are low enough; the page of the "
    "model lists them",
    "Clean": "right without an attack",
    "Transfer": "right after the transfer attacks, in the worst case over their surrogates, if no "
    "attack of another kind ran before them",
    "PGD-50": "right after PGD with 50 steps, if no attack of another kind ran before it",
    "AutoAttack": "right after AutoAttack, by satbench's engine or by the package that defines it",
    "Fast": "right after the fast suite",
    "Best known": "right in every record of the model on these images, the strongest verdict",
    "Certified": "no attack can break these images: a lower bound, with a proof of each image",
    "Gap": "PGD-50 minus best known, in points: what PGD misses",
    "[a, b]": "the 95 % interval over images, Wilson's",
    "control": "trained without an adversary, so every attack must break it",
    MISSING: "not measured, or not known",
}
"""The meaning of the columns and signs of the table of models."""

_NARROW = ("model", "clean", "best_known")
_LATER = ("transfer", "fast")  # number columns that are hidden until somebody chooses them


@dataclass(frozen=True)
class SiteBoard:
    """A board of the site: its measurements, if there are any, and what others published.

    `name` is the name of its files.  `definition` is None for a folder of the user's own records.
    `curves` and `transfers` lie next to the records of the board.
    """

    name: str
    benchmark: Benchmark | None
    definition: BoardDefinition | None = None
    imported: Sequence[Imported] = ()
    curves: Sequence[Curve] = ()
    transfers: Sequence[TransferMatrix] = ()

    @property
    def place(self) -> str:
        """The place of its page in the site."""
        return f"boards/{self.name}.html"

    @property
    def rows(self) -> Sequence[Row]:
        """Its rows; empty if nothing has been measured."""
        return self.benchmark.rows if self.benchmark else ()

    @property
    def title(self) -> str:
        """The title of its page: `fashion-mnist, Linf, eps 0.1`."""
        defined = self.definition
        if defined is not None and ":" in defined.dataset:  # the data set is a folder: a long name
            return defined.name
        if self.benchmark is not None:
            return self.benchmark.title
        return f"{defined.dataset}, {_threat(defined.threat)}" if defined else self.name

    @property
    def images(self) -> str:
        """A description of its images."""
        if self.benchmark is not None:
            data = self.benchmark.dataset
            of = f"a random order of {data.population:,} of " if data.population else ""
            return f"{data.name}: the first {data.n:,} of {of}the {data.split} split"
        one = self.definition
        return f"{one.dataset}: the first {one.n:,} of the {one.split} split" if one else ""


class _Where(TypedDict, total=False):
    """Whether a column of numbers is visible before somebody chooses columns."""

    shown: bool
    narrow: bool


def board_values(board: SiteBoard, looks: Looks) -> dict[str, object]:
    """Return the values for the template of the page; `looks` are those of the site."""
    return {
        "title": board.title,
        "trail": [(board.title, board.place)],
        "summary": board.definition.summary if board.definition else "",
        "about": _about(board),
        "command": fill_command(board.definition) if board.definition else "",
        "words": [Fact(name, text) for name, text in WORDS.items()],
        "imported": [
            {"title": one.title, "source": one.source, "link": one.link * is_address(one.link)}
            | {"table": _imported_table(one, number)}
            for number, one in enumerate(board.imported, 1)
        ],
        "imported_promise": PROMISES["imported"],
        "models": None,
        **(_measured(board.benchmark, board, looks) if board.benchmark else {}),
    }


def board_files(board: SiteBoard) -> dict[str, str]:
    """Return the files to download from the page of a board, by their place in the site."""
    if board.benchmark is None:
        return {}
    whole = Board((board.benchmark,))
    return {
        f"boards/{board.name}.csv": render_csv(whole),
        f"boards/{board.name}.json": render_json(whole),
    }


def _measured(benchmark: Benchmark, board: SiteBoard, looks: Looks) -> dict[str, object]:
    pairs = comb(len(benchmark.rows), 2)
    colours, markers = chart_key(benchmark, looks)
    best = [pair.effects["best_known"] for pair in benchmark.comparisons]
    return {
        "comparisons": comparison_table(benchmark),
        "shown": sum(effect.is_shown for effect in best),
        "alpha": f"{ALPHA:g}",
        "clean_chart": clean_chart(benchmark, looks),
        "pgd_chart": pgd_chart(benchmark, looks),
        "colours": colours,
        "markers": markers,
        "transfers": [
            _transfer(matrix, benchmark, number) for number, matrix in enumerate(board.transfers, 1)
        ],
        "transfer_command": _transfer_command(board),
        "models": _models_table(benchmark, f"boards/{board.name}.rows.js"),
        "groups": _groups_table(benchmark),
        "csv": f"{board.name}.csv",
        "json": f"{board.name}.json",
        "ranking": f"{len(benchmark.rows):,} models. The exact McNemar test of the best known "
        f"verdicts on the same images, p <\u00a0{ALPHA:g} after Holm's correction, "
        f"distinguishes {benchmark.told_apart:,} of {pairs:,} pairs of them.",
    }


def _transfer(matrix: TransferMatrix, benchmark: Benchmark, number: int) -> dict[str, object]:
    shares = [count / matrix.n for target in matrix.targets for count in target.correct] or [0.0]
    return {
        "attack": matrix.attack,
        "low": percent(min(shares)),
        "high": percent(max(shares)),
        "table": transfer_table(matrix, benchmark, number),
    }


def _transfer_command(board: SiteBoard) -> str:
    defined = board.definition
    where = f"leaderboard/{defined.name}/transfers" if defined else "results/transfer"
    threat = board.benchmark.threat if board.benchmark else None
    eps = f" --norm {threat.norm} --eps {show_fraction(threat.eps)}" if threat else ""
    images = f" --n-examples {board.benchmark.dataset.n}" if board.benchmark else ""
    return f"satbench transfer{eps}{images} --out {where}"


def _about(board: SiteBoard) -> list[Fact]:
    benchmark, defined = board.benchmark, board.definition
    facts = [Fact("Images", board.images)]
    if benchmark is not None:
        facts += [
            Fact("SHA-256 of the images", benchmark.dataset.digest, code=True),
            Fact("Threat model", _threat(benchmark.threat)),
            *(
                Fact("Attack", attack, code=True)
                for attack in sorted({attack for row in benchmark.rows for attack in row.attacks})
            ),
        ]
    elif defined is not None:
        facts.append(Fact("Threat model", _threat(defined.threat)))
    if defined is not None:
        facts.append(Fact("Suites", "; ".join(", ".join(suite) for suite in defined.suites)))
    return facts


def _threat(threat: Threat) -> str:
    return f"{threat.norm.capitalize()}, eps {show_fraction(threat.eps)}"


def _models_table(benchmark: Benchmark, export: str) -> DataTable:
    columns = [
        PageColumn("rank", "Rank", WORDS["Rank"], "number", narrow=False),
        PageColumn("model", "Model"),
        PageColumn("mark", "Mark", WORDS["Mark"], chosen=True, narrow=False),
        PageColumn("flags", "Flags", WORDS["Flags"], "number", narrow=False),
        PageColumn("training", "Training", chosen=True, narrow=False),
        PageColumn("architecture", "Architecture", chosen=True, shown=False),
        PageColumn("activation", "Activation", chosen=True, narrow=False),
        PageColumn("seed", "Seed", "the seed of the training", "number", shown=False),
        *(_number_column(column) for column in benchmark.columns),
        PageColumn("passes", "Passes", "forward and backward, an image", "number", shown=False),
        PageColumn("parameters", "Parameters", "", "number", shown=False),
        PageColumn("records", "Records", "", "number", shown=False),
    ]
    names = Counter(row.model.name for row in benchmark.rows)
    rows = [_model_row(row, benchmark, names[row.model.name] > 1) for row in benchmark.rows]
    caption = f"Models on {benchmark.title}"
    return DataTable("models", caption, columns, rows, "model", export)


def _number_column(column: Column) -> PageColumn:
    title = COLUMNS[column]
    where: _Where = {"shown": column not in _LATER, "narrow": column in _NARROW}
    return PageColumn(column, title, WORDS[title], "number", **where)


def _model_row(row: Row, benchmark: Benchmark, is_shared: bool) -> list[PageCell]:
    """Return a row, with the digest of the weights if other models share the name."""
    model, training = row.model, row.training
    too_high = row.checked.too_high if row.checked and row.mark == "verified" else None
    names = ", ".join(flag.name for flag in row.flags or ())
    flags = MISSING if row.flags is None else str(len(row.flags))
    return [
        PageCell(str(row.rank), order=row.rank.best + row.rank.worst / 1e6),
        PageCell(model_title(model), model.weights_digest[:8] * is_shared, href=model_place(model)),
        PageCell(
            row.mark, "" if too_high is None else f"≤ {percent(too_high)}", style=f"mark {row.mark}"
        ),
        PageCell(
            f"† {flags}" if row.flags else flags,
            order=len(row.flags or ()),
            href=f"{model_place(model)}#doubts" if row.flags else "",
            title=names,
            style="flag" * bool(row.flags),
        ),
        PageCell(recipe_title(training)),
        PageCell(model.architecture),
        spec_cell(model.activation),
        PageCell(MISSING, order=-1) if training.seed is None else _count(training.seed),
        *(_accuracy(row, column) for column in benchmark.columns),
        PageCell(f"{row.passes_per_image:,.0f}", order=row.passes_per_image),
        _count(model.parameters),
        _count(len(row.records)),
    ]


def _count(number: int) -> PageCell:
    return PageCell(f"{number:,}", order=number)


def _accuracy(row: Row, column: Column) -> PageCell:
    value, share = row.value(column), row.share(column)
    if value is None:
        return PageCell(order=-9)
    if share is None:
        return PageCell(percent(value), order=value)
    low, high = share.interval
    strong = column == "best_known"
    small = f"[{percent(low)}, {percent(high)}]"
    return PageCell(
        percent(value), small, value, strong=strong, title=f"{share.count} of {share.n}"
    )


def _groups_table(benchmark: Benchmark) -> DataTable:
    columns = [
        PageColumn("training", "Training", chosen=True, narrow=False),
        PageColumn("architecture", "Architecture", chosen=True, narrow=False),
        PageColumn("activation", "Activation", chosen=True),
        PageColumn("seeds", "Seeds", "", "number", narrow=False),
        *(_number_column(column) for column in benchmark.columns),
    ]
    rows = [_group_row(group, benchmark) for group in benchmark.groups]
    return DataTable("kinds-table", "Means over training seeds", columns, rows, "activation")


def _group_row(group: Group, benchmark: Benchmark) -> list[PageCell]:
    model, training = group.first.model, group.first.training
    return [
        PageCell(recipe_title(training)),
        PageCell(model.architecture),
        spec_cell(model.activation),
        _count(group.seeds) if training.is_known else PageCell(order=-1),
        *(_mean(group, column) for column in benchmark.columns),
    ]


def _mean(group: Group, column: Column) -> PageCell:
    summary = group.summary(column)
    if summary is None:
        return PageCell(order=-9)
    small = "" if summary.sd is None else f"± {percent(summary.sd)}"
    if summary.seeds != group.seeds:  # a mean over some seeds must not look like one over all
        small = f"{small} ({summary.seeds} of {group.seeds})".strip()
    return PageCell(percent(summary.mean), small, summary.mean, strong=column == "best_known")


def _imported_table(imported: Imported, number: int) -> DataTable:
    columns = [
        PageColumn("model", "Model"),
        PageColumn("mark", "Mark", narrow=False),
        PageColumn("architecture", "Architecture", chosen=True, narrow=False),
        PageColumn("activation", "Activation", chosen=True),
        PageColumn("where", "Published in", shown=False),
        PageColumn("n", "n", "images", "number", narrow=False),
        PageColumn("eps", "eps", narrow=False),
        PageColumn("clean", "Clean", WORDS["Clean"], "number"),
        PageColumn("attack", "Attack", chosen=True, narrow=False),
        PageColumn("robust", "Robust", "what the attack left", "number"),
        PageColumn("lower", "Later", "what a later evaluation left", "number", shown=False),
    ]
    rows = [_imported_row(row) for row in imported.rows]
    return DataTable(f"imported-{number}", imported.title, columns, rows, "model")


def _imported_row(row: ImportedRow) -> list[PageCell]:
    doubt = "the publication doubts this number" if row.doubted else ""
    return [
        PageCell(row.name + " ‡" * row.doubted, title=doubt),
        PageCell(row.mark, style=f"mark {row.mark}"),
        PageCell(row.architecture or MISSING),
        PageCell(MISSING if row.activation is None else row.activation),
        PageCell(row.where or MISSING),
        PageCell(order=-1) if row.n is None else _count(row.n),
        PageCell(MISSING if row.eps is None else row.eps),
        _published(row.clean),
        PageCell(row.attack),
        _published(row.robust),
        _published(row.lower),
    ]


def _published(digits: str | None) -> PageCell:
    return PageCell(order=-9) if digits is None else PageCell(digits, order=float(digits))
