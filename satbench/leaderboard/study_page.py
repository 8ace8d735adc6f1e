"""The page of a study as markdown, the index of all of them, and the summary for the README.

Same runs, same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from satbench.leaderboard.markdown import MISSING, between, cell, percent, table
from satbench.leaderboard.study_audit import audited_once, render_audit, told
from satbench.leaderboard.study_effects import render_effects, render_elsewhere
from satbench.leaderboard.study_findings import changes, effect_text, finding, summary
from satbench.leaderboard.study_measures import render_measures
from satbench.leaderboard.study_record import StudyRun
from satbench.leaderboard.study_sheet import (
    Row,
    Sheet,
    outcomes_of,
    pictures_of,
    verdicts_of,
)
from satbench.leaderboard.study_statistics import (
    Spread,
    accuracies,
    clean_accuracies,
    collapsed,
    gap_of,
    spread,
)

BEGIN = "<!-- studies:begin -->"
END = "<!-- studies:end -->"

_GENERATED = "This page is generated from the committed runs alone; do not edit it."


def render_page(sheet: Sheet) -> str:
    """Return the page of a study.  Raises SatbenchError for runs that do not fit together."""
    sections = [
        f"# {sheet.title}",
        f"**Question.** {sheet.question}",
        f"**Finding.** {_under_way(sheet)}{finding(sheet)}",
        changes(sheet),
        _set_up(sheet),
        _robustness(sheet),
        _audit(sheet),
        _effects(sheet),
        _measures(sheet),
        _paper(sheet),
        _caveats(sheet),
        _runs(sheet),
        _commands(sheet),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def render_index(sheets: Sequence[Sheet]) -> str:
    """Return the page that lists the studies, for the folder that their pages lie in."""
    head = (
        "# Studies\n\nEach section of Smooth Adversarial Training (Xie et al., 2020, "
        "arXiv:2006.14536) as an experiment that one command repeats: `satbench study NAME`.\n"
        "Robust accuracy is an upper bound: what the strongest verdict here left.  "
        f"{_GENERATED}"
    )
    return f"{head}\n\n{render_summary(sheets, '.')}"


def render_summary(sheets: Sequence[Sheet], folder: str = "docs/studies") -> str:
    """Return the table of the README: each study and what it found, with links into `folder`.

    Below it stands what the audits of all of them saw, if there are any.
    """
    prefix = "" if folder == "." else f"{folder}/"
    lines = [
        (
            f"[{cell(sheet.name)}]({prefix}{sheet.name}.md)",
            cell(sheet.section),
            f"{_under_way(sheet)}{summary(sheet)}",
        )
        for sheet in sheets
    ]
    rows = table(("study", "of the paper", "what satbench found"), lines, 3) + "\n"
    runs = audited_once(sheets)
    return f"{rows}\nAudits of all studies together.  {told(runs)}\n" if runs else rows


def with_summary(text: str, summary: str, name: str) -> str:
    """Return a README with the summary between its markers.

    Raises SatbenchError, naming the file `name`, unless each marker stands once and in order.
    """
    return between(text, BEGIN, END, summary, name, "the table of the studies")


def _under_way(sheet: Sheet) -> str:
    planned = sum(row.seeds for row in sheet.rows)
    there = sum(len(accuracies(sheet, row, sheet.verdict)) for row in sheet.rows)
    return f"Under way, with {there} of {planned} runs evaluated.  " if there < planned else ""


def _set_up(sheet: Sheet) -> str:
    columns = []
    for column in sheet.columns:
        parts = " and ".join(cell(name) for name in column.worst_of)
        suite = ", ".join(f"`{spec}`" for spec in column.suite)
        if column.worst_of:
            suite = f"an image survives if it does under {parts}"
        marks = [
            word
            for name, word in ((sheet.verdict, "verdict"), (sheet.paper_verdict, "as the paper"))
            if name == column.name
        ]
        columns.append((cell(column.name), suite, cell(column.threat), ", ".join(marks)))
    facts = [(cell(name), text) for name, text in sheet.facts]
    facts.append(("images", f"the first {sheet.n:,} of {_datasets(sheet)}, the same for all runs"))
    return "\n\n".join(
        (
            "## Set-up",
            sheet.setup,
            *_pictures(sheet, ("shapes",)),
            table(("", ""), [("of the paper", cell(sheet.section)), *facts], 2),
            "Evaluations:",
            table(("column", "attacks", "threat model", "stands for"), columns, 4),
        )
    )


def _datasets(sheet: Sheet) -> str:
    return ", ".join(dict.fromkeys(cell(row.dataset) for row in sheet.rows))


def _robustness(sheet: Sheet) -> str:
    names = [column.name for column in sheet.columns]
    head = ("arm", "settings", "seeds", "parameters", "clean", *map(cell, names), "gap", "passes")
    lines = []
    for row in sheet.rows:
        clean = spread(clean_accuracies(sheet, row).values())
        robust = [spread(accuracies(sheet, row, name).values()) for name in names]
        gap = gap_of(sheet, row)
        lines.append(
            (
                cell(row.name),
                cell(row.settings),
                f"{len(accuracies(sheet, row, sheet.verdict))} of {row.seeds}",
                _parameters(row),
                *map(_spread_text, (clean, *robust)),
                effect_text(gap),
                _passes(sheet, row),
            )
        )
    notes = [
        "Percent of all images, mean ± standard deviation over seeds (n − 1).  **Gap**: "
        f"{cell(sheet.paper_verdict)} minus {cell(sheet.verdict)} in points, what the paper's "
        "evaluation does not see, with its 95 % interval over seeds and images.  **Passes**: "
        f"forwards and backwards an image that {cell(sheet.verdict)} took.",
        *_collapses(sheet),
    ]
    pictures = _pictures(sheet, ("scatter", "attacks", "lines"))
    return "\n\n".join(("## Robustness", table(head, lines, 2), *notes, *pictures))


def _collapses(sheet: Sheet) -> list[str]:
    lines = [
        f"- {cell(row.name)}, seed {run.seed}: {cell(reason)}."
        for row in sheet.rows
        for run, reason in collapsed(sheet, row)
    ]
    if not lines:
        return []
    return ["Runs that went wrong in training; they count like all others:", "\n".join(lines)]


def _audit(sheet: Sheet) -> str:
    tables = render_audit(sheet)
    return f"## Audit\n\n{tables}" if tables else ""


def _effects(sheet: Sheet) -> str:
    tables = render_effects(sheet)
    if not tables:
        return ""
    elsewhere = render_elsewhere(sheet)
    return "\n\n".join(
        (
            "## Effects",
            tables,
            *_pictures(sheet, ("effects",)),
            *[_folded("The same differences in the other columns", elsewhere)] * bool(elsewhere),
        )
    )


def _measures(sheet: Sheet) -> str:
    tables = render_measures(sheet)
    return "\n\n".join(("## Gradient measures", tables, *_pictures(sheet, ("measures",)))) * bool(
        tables
    )


def _paper(sheet: Sheet) -> str:
    if sheet.paper is None:
        return ""
    intro = (
        "For comparison only: another data set, another net, another scale.  Levels cannot be "
        "compared with ours; at most the signs and the order can."
    )
    head, rows = sheet.paper.headings, sheet.paper.rows
    return "\n\n".join(
        ("## What the paper says", intro, table(head, rows, len(head)), sheet.paper.note)
    )


def _caveats(sheet: Sheet) -> str:
    lines = "\n".join(f"- {text}" for text in sheet.caveats)
    return f"## What could be wrong\n\n{lines}" if lines else ""


def _runs(sheet: Sheet) -> str:
    head = ("arm", "seed", "clean", "robust", "weights", "run", "made with")
    lines = [
        (
            cell(row.name),
            str(run.seed),
            _clean_text(sheet, row, run),
            _robust_text(sheet, row, run),
            f"`{run.weights_digest[:12]}`",
            f"`{run.key[:12] or cell(run.model)}`",
            f"`{run.command}`",
        )
        for row in sheet.rows
        for run in row.runs
    ]
    if not lines:
        return ""
    body = table(head, lines, len(head))
    return f"## Runs\n\n{_folded(f'{len(lines)} runs: seeds, weights, commands', body)}"


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _commands(sheet: Sheet) -> str:
    commands = "\n".join(sheet.commands)
    return (
        f"## The commands that made this page\n\n```sh\n{commands}\n```\n\n{_GENERATED}  "
        f"`satbench study {sheet.name} --check` proves that it is what they say."
    )


def _pictures(sheet: Sheet, kinds: Sequence[str]) -> list[str]:
    return [
        f"![{picture.caption}]({sheet.name}{picture.suffix}.svg)"
        for kind, picture in pictures_of(sheet).items()
        if kind.split()[0] in kinds
    ]


def _parameters(row: Row) -> str:
    counts = list(dict.fromkeys(f"{run.parameters:,}" for run in row.runs))
    return ", ".join(counts) or MISSING


def _passes(sheet: Sheet, row: Row) -> str:
    found = [outcomes_of(sheet, row, run, sheet.verdict) for run in row.runs]
    spent = [
        sum(part.forwards + part.backwards for part in parts) / sheet.n for parts in found if parts
    ]
    return f"{fmean(spent):,.0f}" if spent else MISSING


def _spread_text(one: Spread | None) -> str:
    if one is None:
        return MISSING
    return percent(one.mean) + ("" if one.deviation is None else f" ± {percent(one.deviation)}")


def _clean_text(sheet: Sheet, row: Row, run: StudyRun) -> str:
    share = clean_accuracies(sheet, _only(row, run)).get(run.seed)
    return MISSING if share is None else percent(share)


def _robust_text(sheet: Sheet, row: Row, run: StudyRun) -> str:
    if verdicts_of(sheet, row, run, sheet.verdict) is None:
        return MISSING
    return percent(accuracies(sheet, _only(row, run), sheet.verdict)[run.seed])


def _only(row: Row, run: StudyRun) -> Row:
    return Row(row.name, row.settings, (run,), row.seeds, row.dataset)
