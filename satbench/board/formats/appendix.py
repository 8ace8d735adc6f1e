"""The board as markdown for the appendix of a paper: the set-up, then each model."""

from __future__ import annotations

from satbench.board.board import Benchmark, Board
from satbench.board.marks import PROMISES
from satbench.board.rows import COLUMNS, Column, Row
from satbench.core.markdown import MISSING, cell, code, percent, table
from satbench.core.templates import fill
from satbench.core.threat import show_fraction


def render_appendix(board: Board) -> str:
    """Return the set-up of each benchmark, and a table of all models."""
    values = {"benchmarks": [_benchmark(one) for one in board.benchmarks]}
    return fill("appendix.md", values).rstrip() + "\n"


def _benchmark(benchmark: Benchmark) -> dict[str, object]:
    dataset = benchmark.dataset
    marks = {row.mark for row in benchmark.rows}
    return {
        "title": cell(benchmark.title),
        "n": f"{dataset.n:,}",
        "split": cell(dataset.split),
        "dataset": cell(dataset.name),
        "classes": dataset.classes,
        "digest": dataset.digest,
        "norm": benchmark.threat.norm.capitalize(),
        "eps": show_fraction(benchmark.threat.eps),
        "attacks": [
            code(attack)
            for attack in sorted({attack for row in benchmark.rows for attack in row.attacks})
        ],
        "promises": [(mark, promise) for mark, promise in PROMISES.items() if mark in marks],
        "models": _models(benchmark),
    }


def _models(benchmark: Benchmark) -> str:
    words = ["Rank", "Model", "Training", "Architecture", "Activation", "Weights", "Mark"]
    head = [*words, *(COLUMNS[column] for column in benchmark.columns)]
    lines = [
        [
            str(row.rank),
            cell(row.model.name),
            cell(row.training.recipe or MISSING),
            cell(row.model.architecture),
            cell(row.model.activation),
            code(row.model.weights_digest[:12]),
            row.mark,
            *(_number(row, column) for column in benchmark.columns),
        ]
        for row in benchmark.rows
    ]
    return table(head, lines, words=len(words))


def _number(row: Row, column: Column) -> str:
    value, share = row.value(column), row.share(column)
    if value is None:
        return MISSING
    if share is None:
        return percent(value)
    low, high = share.interval
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"
