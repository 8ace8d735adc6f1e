"""The board as LaTeX: tables with booktabs, and numbers in siunitx columns."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.board.board import Benchmark, Board
from satbench.board.marks import PROMISES
from satbench.board.rows import COLUMNS, Column, Group
from satbench.core.text.latex_text import latex

MISSING = "{--}"
"""In braces, so that siunitx treats it as text."""

_HEAD = (
    "% Written by satbench leaderboard export --format latex, from records only.\n"
    "% Needs \\usepackage{booktabs,longtable,siunitx}.\n"
)


def render_latex(board: Board) -> str:
    """Return two tables per benchmark: kinds of models over training seeds, then each model.

    Accuracies are percent with one decimal, as on the board's page.
    """
    return _HEAD + "".join(f"\n{_groups(one)}\n{_models(one)}" for one in board.benchmarks)


def _groups(benchmark: Benchmark) -> str:
    columns = benchmark.columns
    heads = ["Training", "Network", "Activation", "{Seeds}"]
    heads += [f"{{{latex(COLUMNS[column])}}} & {{SD}}" for column in columns]
    lines = [
        " & ".join([*_kind(group), str(group.seeds), *(_mean(group, one) for one in columns)])
        for group in benchmark.groups
    ]
    spec = "lllS[table-format=2.0]" + _S * 2 * len(columns)
    caption = (
        f"{_title(benchmark)}: mean robust accuracy over training seeds and its standard deviation "
        f"(SD), in percent of {benchmark.dataset.n:,} images."
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{caption}}}",
            f"  \\begin{{tabular}}{{{spec}}}",
            *_body(" & ".join(heads), lines, "    "),
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _models(benchmark: Benchmark) -> str:
    columns = benchmark.columns
    heads = ["{Rank}", "Model", "Activation", "Mark"]
    heads += [f"{{{latex(COLUMNS[column])}}}" for column in columns]
    heads += [r"\multicolumn{2}{c}{95\,\% interval}"]
    lines = [
        " & ".join(
            [
                f"{{{str(row.rank).replace('–', '--')}}}",
                latex(row.model.name),
                latex(row.model.activation),
                row.mark,
                *(_number(row.value(column)) for column in columns),
                *(_number(end) for end in row.best_known.interval),
            ]
        )
        for row in benchmark.rows
    ]
    marks = sorted({row.mark for row in benchmark.rows})
    promises = "; ".join(f"{mark}: {latex(PROMISES[mark])}" for mark in marks)
    caption = (
        f"{_title(benchmark)}: each model, in percent of {benchmark.dataset.n:,} images. Rank: the "
        "places that a model may have. Interval: Wilson's, of the best known accuracy. "
        f"{promises[:1].upper()}{promises[1:]}."
    )
    spec = "clll" + _S * (len(columns) + 2)
    return "\n".join(
        [
            f"\\begin{{longtable}}{{{spec}}}",
            f"  \\caption{{{caption}}}\\\\",
            *_body(" & ".join(heads), lines, "  ", long=True),
            r"\end{longtable}",
            "",
        ]
    )


_S = "S[table-format=3.1]"


def _body(head: str, lines: Sequence[str], indent: str, long: bool = False) -> list[str]:
    rules = [r"\toprule", rf"{head} \\", r"\midrule", *([r"\endhead"] if long else [])]
    rows = [*rules, *(rf"{line} \\" for line in lines), r"\bottomrule"]
    return [indent + row for row in rows]


def _title(benchmark: Benchmark) -> str:
    return latex(benchmark.title)


def _kind(group: Group) -> list[str]:
    first = group.first
    recipe = first.training.recipe or "--"
    control = " (control)" * first.training.is_control
    return [latex(recipe + control), latex(first.model.architecture), latex(first.model.activation)]


def _mean(group: Group, column: Column) -> str:
    summary = group.summary(column)
    if summary is None:
        return f"{MISSING} & {MISSING}"
    # Mark a mean over only some of the seeds; siunitx treats braces as text.
    some = summary.seeds != group.seeds
    seeds = rf"{{\textsuperscript{{{summary.seeds} of {group.seeds}}}}}" if some else ""
    return f"{_number(summary.mean)}{seeds} & {_number(summary.sd)}"


def _number(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:z.1f}"
