"""The board as markdown: the tables are made here, the text is in templates."""

from __future__ import annotations

from math import comb

from satbench.board.board import Benchmark, Board
from satbench.board.file_names import CSV_FILE, JSON_FILE
from satbench.board.marks import PROMISES
from satbench.board.rows import COLUMNS, Column, Group, Row, TrainingInfo
from satbench.core.markdown import (
    MISSING,
    cell,
    code,
    long_list,
    long_table,
    percent,
    signed,
    table,
    title_of,
)
from satbench.core.stats.shown import ALPHA, Effect
from satbench.core.templates import fill
from satbench.records.flags import Flag
from satbench.records.record import DatasetInfo

CONTROL = " (control)"
SUMMARY_ROWS = 5

_COMPARED: tuple[Column, ...] = ("pgd50", "autoattack", "best_known")

_CUMULATIVE = (
    "AutoAttack and fast ran on the survivors of the attacks before them in their record, if any, "
    "so their columns are cumulative."
)


def render_markdown(
    board: Board,
    cost: str = "COST.md",
    agreement: str = "AGREEMENT.md",
    flags: str | None = None,
) -> str:
    """Return LEADERBOARD.md: for each benchmark groups, the comparison with ReLU, and models.

    `cost`, `agreement` and `flags` are the links to these pages; that on flags is satbench's own.
    """
    values = {
        "benchmarks": [_benchmark(one) for one in board.benchmarks],
        "cost": cost,
        "agreement": agreement,
        "flags": flags,
        "alpha": f"{ALPHA:g}",
        "cumulative": _CUMULATIVE,
        "promises": PROMISES,
    }
    return fill("leaderboard.md", values, {"cell": cell}).rstrip() + "\n"


def render_summary(board: Board, page: str, rows: int = SUMMARY_ROWS) -> str:
    """Return the first `rows` of the largest benchmark, for a README; `page` links to the rest.

    A row is a kind of model: training, architecture and activation.
    """
    largest = max(board.benchmarks, key=lambda one: len(one.rows), default=None)
    values = {
        "benchmark": largest
        and {
            "title": cell(largest.title),
            "n": f"{largest.dataset.n:,}",
            "groups": _first_groups(largest, rows),
            "shown": min(rows, len(largest.groups)),
            "kinds": len(largest.groups),
        },
        "page": page,
    }
    return fill("leaderboard-summary.md", values)


def recipe_title(training: TrainingInfo) -> str:
    """Return the recipe's name for people, with a mark for a control."""
    return (training.recipe or MISSING) + CONTROL * training.is_control


def _benchmark(benchmark: Benchmark) -> dict[str, object]:
    dataset = benchmark.dataset
    attacks = sorted({attack for row in benchmark.rows for attack in row.attacks})
    return {
        "title": cell(benchmark.title),
        "images": _images(dataset),
        "classes": dataset.classes,
        "digest": dataset.digest[:12],
        "attacks": long_list([code(attack) for attack in attacks], CSV_FILE),
        "groups": _groups(benchmark),
        "comparisons": _comparisons(benchmark) if benchmark.comparisons else "",
        "differences_shown": sum(
            effect.is_shown
            for pair in benchmark.comparisons
            for column in _COMPARED
            if (effect := pair.effects.get(column))
        ),
        "told_apart": f"{benchmark.told_apart:,}",
        "pairs": f"{comb(len(benchmark.rows), 2):,}",
        "count": len(benchmark.rows),
        "n": f"{dataset.n:,}",
        "models": _models(benchmark),
        "verified": sum(row.mark == "verified" for row in benchmark.rows),
        "less_attacked": not all(row.autoattack for row in benchmark.rows),
        "strongest": sum(
            any(attack.startswith("strongest(") for attack in row.attacks) for row in benchmark.rows
        ),
        "flags": _flags(benchmark),
        "flagged": sum(bool(row.flags) for row in benchmark.rows),
    }


def _images(dataset: DatasetInfo) -> str:
    split = f"{cell(dataset.split)} split"
    if dataset.population:
        order = f"a random order of {dataset.population:,} images"
        return f"The first {dataset.n:,} of {order} of the {split}"
    return f"The first {dataset.n:,} images of the {split}"


def _groups(benchmark: Benchmark) -> str:
    head = ["Training", "Architecture", "Activation", "Seeds", *_titles(benchmark)]
    lines = [
        [
            *_kind(group),
            str(group.seeds) if group.first.training.is_known else MISSING,
            *(_mean(group, column) for column in benchmark.columns),
        ]
        for group in benchmark.groups
    ]
    return long_table(head, lines, 3, JSON_FILE)


def _first_groups(benchmark: Benchmark, rows: int) -> str:
    columns: tuple[Column, ...] = ("clean", "pgd50", "best_known", "gap")
    head = ["Training", "Network", *(COLUMNS[column] for column in columns)]
    lines = []
    for group in benchmark.groups[:rows]:
        training, architecture, activation = _kind(group)
        numbers = [_mean(group, column, spread=column == "best_known") for column in columns]
        lines.append([training, f"{architecture}, {activation}", *numbers])
    return table(head, lines, words=2)


def _mean(group: Group, column: Column, spread: bool = True) -> str:
    summary = group.summary(column)
    if summary is None:
        return MISSING
    text = percent(summary.mean)
    if spread and summary.sd is not None:
        text += f" ± {percent(summary.sd)}"
    if column == "best_known":
        text = f"**{text}**"
    # Mark a mean over only some of the seeds.
    return text if summary.seeds == group.seeds else f"{text} ({summary.seeds} of {group.seeds})"


def _comparisons(benchmark: Benchmark) -> str:
    head = ["Training", "Architecture", "Activation", *(COLUMNS[column] for column in _COMPARED)]
    lines = [
        [*_kind(pair.group), *(_difference(pair.effects.get(column)) for column in _COMPARED)]
        for pair in benchmark.comparisons
    ]
    return long_table(head, lines, 3, JSON_FILE)


def _difference(effect: Effect | None) -> str:
    if effect is None:
        return MISSING
    mean = signed(effect.mean)
    if effect.interval is None:
        return f"{mean} (1 seed: no interval)"
    low, high = (signed(end) for end in effect.interval)
    numbers = f"[{low}, {high}] ({effect.seeds} seeds, p = {effect.counted:.2g})"
    return f"**{mean}** {numbers}" if effect.is_shown else f"{mean} {numbers}"


def _models(benchmark: Benchmark) -> str:
    head = [
        "Rank",
        "Model",
        "Mark",
        "Training",
        "Architecture",
        "Activation",
        "Seed",
        *_titles(benchmark),
    ]
    lines = [
        [
            str(row.rank),
            title_of(row.model.name, row.model.weights_digest) + flag_mark(row),
            mark_text(row),
            *_kind(Group((row,))),
            MISSING if row.training.seed is None else str(row.training.seed),
            *(_accuracy(row, column) for column in benchmark.columns),
        ]
        for row in benchmark.rows
    ]
    return long_table(head, lines, 6, CSV_FILE)


def mark_text(row: Row) -> str:
    """Return a row's mark for people, with the points by which the number can be too high."""
    if row.mark != "verified" or row.checked is None:
        return row.mark
    return f"{row.mark} (≤ {percent(row.checked.too_high)})"


def _accuracy(row: Row, column: Column) -> str:
    value, share = row.value(column), row.share(column)
    if value is None:
        return MISSING
    if share is None:
        return percent(value)
    low, high = share.interval
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def _titles(benchmark: Benchmark) -> list[str]:
    return [COLUMNS[column] for column in benchmark.columns]


def _kind(group: Group) -> tuple[str, str, str]:
    model = group.first.model
    training = recipe_title(group.first.training)
    return cell(training), cell(model.architecture), cell(model.activation)


def flag_mark(row: Row) -> str:
    """Return the mark of a row with its number of flags, such as ` †2`; empty without flags."""
    return f" †{len(row.flags)}" if row.flags else ""


def _flags(benchmark: Benchmark) -> list[dict[str, object]]:
    """Return each kind of flag, its number of models, and its text."""
    raised: dict[str, list[Flag]] = {}
    for row in benchmark.rows:
        for flag in row.flags or ():
            raised.setdefault(flag.name, []).append(flag)
    return [
        {"name": name, "count": len(found), "cause": found[0].cause, "run": found[0].run}
        for name, found in sorted(raised.items())
    ]
