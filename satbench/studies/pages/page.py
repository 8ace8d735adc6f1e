"""The page of a study as markdown, the index of all studies, and the summary for the README.

The same runs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from satbench.core.markdown import between, cell, percent, table
from satbench.core.templates import fill
from satbench.studies.effects import Collapse, collapse_of, collapsed
from satbench.studies.pages import tables
from satbench.studies.pages.answers import answer_of
from satbench.studies.pages.audits import audit_table, audited_once, totals
from satbench.studies.pages.convergence import missed_by_effort
from satbench.studies.sheet import Sheet, measures_of, pictures_of, telling_measures_of

BEGIN = "<!-- studies:begin -->"
END = "<!-- studies:end -->"

_FILTERS: dict[str, Callable[..., str]] = {
    "cell": cell,
    "percent": percent,
    "effect": tables.effect_text,
}
_PLACES = {
    "robustness": ("scatter", "attacks", "lines"),
    "effects": ("effects",),
    "measures": ("measures",),
    "shapes": ("shapes",),
}


def render_page(sheet: Sheet) -> str:
    """Return the page of a study.  Raises SatbenchError for runs that do not fit together."""
    values, differences = tables.measure_tables(sheet)
    telling = telling_measures_of(sheet)
    audited = totals(audited_once([sheet]))
    paper, collapse = sheet.study.paper, collapse_of(sheet)
    runs = tables.runs_table(sheet)
    return fill(
        "study.md",
        {
            "study": sheet.study,
            "answer": answer_of(sheet),
            "pictures": {place: _pictures(sheet, kinds) for place, kinds in _PLACES.items()},
            "set_up": tables.set_up_table(sheet),
            "choices": tables.choices_table(sheet),
            "evaluations": tables.evaluations_table(sheet),
            "robustness": tables.robustness_table(sheet),
            "collapses": [
                (row.name, run.seed, reason)
                for row in sheet.rows
                for run, reason in collapsed(sheet, row)
            ],
            "collapse": collapse and {**asdict(collapse), "table": _collapse_table(collapse)},
            "convergence": _convergence(sheet),
            "audit": audited and {**asdict(audited), "table": audit_table(sheet)},
            "effects": tables.effects_table(sheet),
            "elsewhere": tables.elsewhere_table(sheet),
            "pooled": tables.pooled_pairs(sheet),
            "power": tables.power_of(sheet),
            "meanings": [
                (name, sheet.measures[name], name not in telling) for name in measures_of(sheet)
            ],
            "measures": {"means": values, "differences": differences}
            if measures_of(sheet)
            else None,
            "paper": table(paper.headings, paper.rows, len(paper.headings)) if paper else "",
            "caveats": sheet.caveats,
            "runs": runs,
            "run_count": sum(len(row.runs) for row in sheet.rows),
            "commands": sheet.commands,
        },
        _FILTERS,
    )


def render_index(sheets: Sequence[Sheet]) -> str:
    """Return the page that lists the studies, for the folder of their pages."""
    return fill("studies.md", {"summary": render_summary(sheets, ".")})


def render_summary(sheets: Sequence[Sheet], folder: str = "docs/studies") -> str:
    """Return the table of the README: each study and its answer, with links into `folder`.

    The audits of all of them follow, if there are any.
    """
    studies = [
        {"name": one.study.name, "section": one.study.section, "answer": answer_of(one)}
        for one in sheets
    ]
    prefix = "" if folder == "." else f"{folder}/"
    values = {"studies": studies, "prefix": prefix, "audit": totals(audited_once(sheets))}
    return fill("study-summary.md", values, _FILTERS)


def with_summary(text: str, summary: str, name: str) -> str:
    """Return a README with the summary between its markers.

    Raises SatbenchError, naming the file `name`, unless each marker occurs once and in order.
    """
    return between(text, BEGIN, END, summary, name, "the table of the studies")


def _collapse_table(collapse: Collapse) -> str:
    lines = [(cell(name), str(runs), str(fell)) for name, fell, runs in collapse.by_arm]
    return table(("arm", "runs", "collapsed"), lines, 1)


def _convergence(sheet: Sheet) -> dict[str, str] | None:
    found = missed_by_effort(sheet)
    if not found:
        return None
    lines = [(cell(one.column), cell(one.arm), percent(one.missed)) for one in found]
    return {"last": found[0].last, "table": table(("attack", "arm", "misses"), lines, 2)}


def _pictures(sheet: Sheet, kinds: Sequence[str]) -> list[str]:
    return [
        f"![{picture.caption}]({sheet.study.name}{picture.suffix}.svg)"
        for kind, picture in pictures_of(sheet).items()
        if kind.split()[0] in kinds
    ]
