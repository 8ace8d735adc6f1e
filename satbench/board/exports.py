"""The board as CSV and JSON, for programs, with all digits."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction

from satbench.board.board import Benchmark, Board
from satbench.board.published import SCHEMA
from satbench.board.ranking import Comparison
from satbench.board.rows import COLUMNS, Column, Group, Row, Share
from satbench.core.text.csv_text import csv_text
from satbench.core.text.json_text import json_text
from satbench.core.threat import show_fraction

_Numbers = dict[str, object]


def render_csv(board: Board) -> str:
    """Return one line per model: shares in [0, 1] and counts; empty if not measured."""
    lines = [
        {**_benchmark_numbers(benchmark), **_model_numbers(row)}
        for benchmark in board.benchmarks
        for row in benchmark.rows
    ]
    return csv_text(lines)


def csv_lines(benchmark: Benchmark) -> list[str]:
    """Return the lines of a benchmark's CSV without line ends, first the header."""
    return render_csv(Board((benchmark,))).splitlines()


def model_objects(benchmark: Benchmark) -> list[dict[str, object]]:
    """Return a benchmark's models as the objects of the JSON."""
    return [_model_numbers(row) for row in benchmark.rows]


def render_json(board: Board) -> str:
    """Return the numbers of the CSV, of the groups and of the comparison with ReLU."""
    return json_text({"schema": SCHEMA, "benchmarks": benchmark_objects(board)})


def benchmark_objects(board: Board) -> list[dict[str, object]]:
    """Return the objects of a board's benchmarks in the form of the JSON."""
    return [
        {
            **_benchmark_numbers(benchmark),
            "models": [_model_numbers(row) for row in benchmark.rows],
            "flags": [
                {"model": row.model.name, **asdict(flag)}
                for row in benchmark.rows
                for flag in row.flags or ()
            ],
            "groups": [_group_numbers(group) for group in benchmark.groups],
            "against_relu": [_comparison_numbers(pair) for pair in benchmark.comparisons],
        }
        for benchmark in board.benchmarks
    ]


def _benchmark_numbers(benchmark: Benchmark) -> _Numbers:
    dataset = benchmark.dataset
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "n": dataset.n,
        "dataset_digest": dataset.digest,
        "norm": benchmark.threat.norm,
        "eps": show_fraction(benchmark.threat.eps),
    }


def _model_numbers(row: Row) -> _Numbers:
    model = row.model
    numbers: _Numbers = {
        "rank": row.rank.best,
        "rank_worst": row.rank.worst,
        "model": model.name,
        "mark": row.mark,
        "too_high": None if row.checked is None else row.checked.too_high,
        **_kind_numbers(row),
        "training_seed": row.training.seed,
        "parameters": model.parameters,
        "weights_digest": model.weights_digest,
        "records": len(row.records),
        "attacks": " ".join(row.attacks),
        "passes_per_image": row.passes_per_image,
    }
    for column in COLUMNS:
        if column != "gap":
            numbers |= _share_numbers(column, row.share(column))
    return {**numbers, "gap": row.value("gap"), **_beside_numbers(row)}


def _beside_numbers(row: Row) -> _Numbers:
    """Return a model's flags, and the numbers of COST.md and AGREEMENT.md with all digits.

    Passes are per image that was right when clean.
    """
    cost, agreement = row.cost, row.agreement
    runs = {"autoattack": cost.autoattack, "fast": cost.fast, "reference": cost.reference}
    numbers: dict[str, Fraction | None] = {
        **{f"{name}_passes": run.passes if run else None for name, run in runs.items()},
        "passes_ratio": cost.ratio,
        "reference_passes_ratio": cost.reference_ratio,
        "fast_minus_autoattack": cost.difference,
    }
    return {
        "flags": None if row.flags is None else " ".join(flag.name for flag in row.flags),
        **{name: None if value is None else float(value) for name, value in numbers.items()},
        "agreement_seed": agreement and agreement.ours.seed,
        "agreement_autoattack_count": agreement and agreement.ours.left,
        "agreement_reference_count": agreement and agreement.reference.left,
        "agreement_differing": agreement and agreement.differing,
        "reference_seeds": agreement and len(agreement.spread),
        "reference_min_count": agreement and min(run.left for run in agreement.spread),
        "reference_max_count": agreement and max(run.left for run in agreement.spread),
    }


def _kind_numbers(row: Row) -> _Numbers:
    training = row.training
    return {
        "architecture": row.model.architecture,
        "activation": row.model.activation,
        "recipe": training.recipe,
        "control": training.is_control,
        "training_threat": training.threat,
        "training_attack": training.attack,
    }


def _share_numbers(column: Column, share: Share | None) -> _Numbers:
    low, high = (None, None) if share is None else map(_stable, share.interval)
    return {
        f"{column}_count": None if share is None else share.count,
        column: None if share is None else share.value,
        f"{column}_low": low,
        f"{column}_high": high,
    }


def _group_numbers(group: Group) -> _Numbers:
    numbers: _Numbers = {
        **_kind_numbers(group.first),
        "seeds": group.seeds,
        "models": [row.model.name for row in group.rows],
    }
    for column in COLUMNS:
        summary = group.summary(column)
        numbers[column] = summary and {
            "mean": _stable(summary.mean),
            "sd": None if summary.sd is None else _stable(summary.sd),
            "seeds": summary.seeds,
        }
    return numbers


def _comparison_numbers(pair: Comparison) -> _Numbers:
    numbers = _kind_numbers(pair.group.first)
    for column in COLUMNS:
        effect = pair.effects.get(column)
        low, high = (effect and effect.interval) or (None, None)
        p = effect.counted if effect else None
        numbers[column] = effect and {
            "difference": _stable(effect.mean),
            "low": None if low is None else _stable(low),
            "high": None if high is None else _stable(high),
            "p": None if p is None else _stable(p),
            "seeds": effect.seeds,
            "is_shown": effect.is_shown,
        }
    return numbers


def _stable(value: float) -> float:
    # The last bits of a quantile depend on scipy's version; the board must not.
    return round(value, 12)
