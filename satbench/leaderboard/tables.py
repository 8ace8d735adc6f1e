"""The board as text: markdown for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from fractions import Fraction

from satbench.core.threat import show_fraction
from satbench.leaderboard.board import Benchmark, Board
from satbench.leaderboard.markdown import MISSING as MISSING
from satbench.leaderboard.markdown import cell, signed, table, title_of
from satbench.leaderboard.markdown import percent as percent
from satbench.leaderboard.ranking import ALPHA, Comparison, Difference
from satbench.leaderboard.record import DatasetInfo
from satbench.leaderboard.rows import COLUMNS, Column, Group, Row, Share, Training

SCHEMA = 2
"""The schema of the JSON."""

CONTROL = " (control)"

_HEAD = """\
# Leaderboard

How many test images do these classifiers still get right while an adversary moves the pixels
within a radius eps?  All numbers are percent of all images of the benchmark, an image that is
wrong without an attack counting as broken.  **Robust accuracy is an upper bound**: it counts the
images that nobody has broken yet, and a stronger attack can only lower it.

This page is generated from records alone; do not edit it.  `satbench leaderboard build` makes it
again, and `leaderboard.csv` and `leaderboard.json` with the same numbers in full.

- **Clean**: right when nobody attacks.
- **Transfer**: still right after the images that transfer attacks made on other models: the worst
  case over their sources, where no attack of another kind ran before it.
- **PGD-50**: still right after PGD of 50 steps, where no attack of another kind ran before it.
- **AutoAttack**: still right after AutoAttack, by our engine or by the package that defines it.
- **Fast**: still right after the fast suite; [COST.md](@cost@) sets its passes beside
  AutoAttack's, and [AGREEMENT.md](@agreement@) our AutoAttack beside the package's.
- **Best known**: right in every record of the model on these images; the strongest verdict.
- **Gap**: PGD-50 minus the lower of AutoAttack and fast, in points: what PGD alone hides.
- **±**: standard deviation over training seeds (n − 1); **[a, b]**: 95 % interval,
  Wilson's over images for a model's accuracy, Student's over training seeds for a difference.
- **†**: a record of the model raises a flag, a sign that its numbers are too high; below the
  models stands which, and what to run.
- **control**: trained without an adversary, so every attack must break it.
- **–**: not measured, or not known.
"""

_CUMULATIVE = (
    "AutoAttack and fast ran on the survivors of the attacks before them in their record, if any, "
    "so their columns are cumulative."
)

_RANK = (
    "Rank: 1 + the number of models with a better best known accuracy by the exact McNemar test "
    f"on the same images, p < {ALPHA:g} after Holm's correction over all pairs of this table; "
    "equal ranks are not told apart."
)

_LESS_ATTACKED = (
    "A model without an AutoAttack number was attacked less: its best known accuracy, and with it "
    "its rank, may flatter it."
)

_AGAINST_RELU = (
    "Accuracy of the activation minus that of ReLU, trained alike, in points: mean over the "
    "training seeds that both have, paired by seed; no difference is shown where the interval "
    "covers 0."
)


def render_markdown(board: Board, cost: str = "COST.md", agreement: str = "AGREEMENT.md") -> str:
    """Return LEADERBOARD.md: for each benchmark groups, the comparison with ReLU, and models.

    `cost` and `agreement` are the links to these pages.
    """
    sections = (_section(benchmark) for benchmark in board.benchmarks)
    head = _HEAD.replace("@cost@", cost).replace("@agreement@", agreement)
    return "\n".join((head, *sections))


def render_summary(board: Board, page: str) -> str:
    """Return the tables of groups alone, as the README shows them; `page` links to the rest."""
    parts = (
        f"**{cell(benchmark.title)}**, n = {benchmark.dataset.n:,}\n\n{_groups(benchmark)}\n"
        for benchmark in board.benchmarks
    )
    foot = (
        f"Percent; mean ± standard deviation over training seeds. {_CUMULATIVE} "
        f"Each seed's row, with intervals and ranks: [{page}]({page}).\n"
    )
    return "\n".join((*parts, foot))


def render_csv(board: Board) -> str:
    """Return one line a model: shares in [0, 1] and counts; empty where nothing was measured."""
    lines = [
        {**_benchmark_numbers(benchmark), **_model_numbers(row)}
        for benchmark in board.benchmarks
        for row in benchmark.rows
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def render_json(board: Board) -> str:
    """Return the numbers of the CSV, and those of groups and of the comparison with ReLU."""
    benchmarks = [
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
    value = {"schema": SCHEMA, "benchmarks": benchmarks}
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def recipe_title(training: Training) -> str:
    """Return the recipe's name for people; a control is marked as such."""
    return (training.recipe or MISSING) + CONTROL * training.is_control


def _section(benchmark: Benchmark) -> str:
    dataset = benchmark.dataset
    attacks = sorted({attack for row in benchmark.rows for attack in row.attacks})
    parts = [
        f"## {cell(benchmark.title)}",
        f"{_images(dataset)}, {dataset.classes} "
        f"classes (digest `{dataset.digest[:12]}`).  Attacks: "
        + ", ".join(f"`{attack}`" for attack in attacks)
        + ".",
        _groups(benchmark),
        _CUMULATIVE,
    ]
    if benchmark.comparisons:
        parts += ["### Against ReLU", _comparisons(benchmark), _AGAINST_RELU]
    parts += [
        f"<details>\n<summary>Each model, seed by seed ({len(benchmark.rows)}, "
        f"n = {dataset.n:,} images each)</summary>",
        _models(benchmark),
        _RANK,
        *([] if all(row.autoattack for row in benchmark.rows) else [_LESS_ATTACKED]),
        *_flags(benchmark),
        "</details>",
    ]
    return "\n\n".join(parts) + "\n"


def _images(dataset: DatasetInfo) -> str:
    split = f"{cell(dataset.split)} split"
    if dataset.population:
        order = f"a random order of {dataset.population:,} images"
        return f"The first {dataset.n:,} of {order} of the {split}"
    return f"The first {dataset.n:,} images of the {split}"


def _flags(benchmark: Benchmark) -> list[str]:
    lines = [
        f"- {title_of(row.model.name, row.model.weights_digest)}: **{cell(flag.name)}**, "
        f"{flag.images:,} of {flag.of:,} images: {cell(flag.cause)}; {cell(flag.run)}."
        for row in benchmark.rows
        for flag in row.flags or ()
    ]
    return ["† Flags: signs that robustness is overstated.", "\n".join(lines)] if lines else []


def _groups(benchmark: Benchmark) -> str:
    head = ["Training", "Architecture", "Activation", "Seeds", *COLUMNS.values()]
    lines = [
        [
            *_kind(group),
            str(group.seeds) if group.first.training.is_known else MISSING,
            *(_mean(group, column) for column in COLUMNS),
        ]
        for group in benchmark.groups
    ]
    return table(head, lines, words=3)


def _mean(group: Group, column: Column) -> str:
    summary = group.summary(column)
    if summary is None:
        return MISSING
    text = percent(summary.mean)
    if summary.sd is not None:
        text += f" ± {percent(summary.sd)}"
    if column == "best_known":
        text = f"**{text}**"
    # A mean over some of the seeds must not pass for one over all.
    return text if summary.seeds == group.seeds else f"{text} ({summary.seeds} of {group.seeds})"


def _comparisons(benchmark: Benchmark) -> str:
    columns: tuple[Column, ...] = ("pgd50", "autoattack", "best_known")
    head = ["Training", "Architecture", "Activation", *(COLUMNS[column] for column in columns)]
    lines = [
        [*_kind(pair.group), *(_difference(pair.difference(column)) for column in columns)]
        for pair in benchmark.comparisons
    ]
    return table(head, lines, words=3)


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return MISSING
    mean = signed(difference.mean)
    if difference.interval is None:
        return f"{mean} (1 seed: no interval)"
    low, high = (signed(end) for end in difference.interval)
    seeds = f"{difference.seeds} seeds"
    if difference.is_shown:
        return f"**{mean}** [{low}, {high}] ({seeds})"
    return f"{mean} [{low}, {high}] ({seeds}: no difference shown)"


def _models(benchmark: Benchmark) -> str:
    head = ["Rank", "Model", "Training", "Architecture", "Activation", "Seed", *COLUMNS.values()]
    lines = [
        [
            str(row.rank),
            title_of(row.model.name, row.model.weights_digest) + " †" * bool(row.flags),
            *_kind(Group((row,))),
            MISSING if row.training.seed is None else str(row.training.seed),
            *(_accuracy(row, column) for column in COLUMNS),
        ]
        for row in benchmark.rows
    ]
    return table(head, lines, words=5)


def _accuracy(row: Row, column: Column) -> str:
    value, share = row.value(column), row.share(column)
    if value is None:
        return MISSING
    if share is None:
        return percent(value)
    low, high = share.interval
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def _kind(group: Group) -> tuple[str, str, str]:
    model = group.first.model
    training = recipe_title(group.first.training)
    return cell(training), cell(model.architecture), cell(model.activation)


_Numbers = dict[str, object]


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
        "rank": row.rank,
        "model": model.name,
        **_kind_numbers(row),
        "training_seed": row.training.seed,
        "parameters": model.parameters,
        "weights_digest": model.weights_digest,
        "records": row.records,
        "attacks": " ".join(row.attacks),
        "passes_per_image": row.passes_per_image,
    }
    for column in COLUMNS:
        if column != "gap":
            numbers |= _share_numbers(column, row.share(column))
    return {**numbers, "gap": row.value("gap"), **_beside_numbers(row)}


def _beside_numbers(row: Row) -> _Numbers:
    """Return a model's flags, and the numbers of COST.md and AGREEMENT.md in full.

    Passes are for each image that was right when clean.
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
        difference = pair.difference(column)
        low, high = (difference and difference.interval) or (None, None)
        numbers[column] = difference and {
            "difference": _stable(difference.mean),
            "low": None if low is None else _stable(low),
            "high": None if high is None else _stable(high),
            "seeds": difference.seeds,
            "is_shown": difference.is_shown,
        }
    return numbers


def _stable(value: float) -> float:
    # The last bits of a quantile belong to scipy's version; the board must not.
    return round(value, 12)
