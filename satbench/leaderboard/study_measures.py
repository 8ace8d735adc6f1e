"""The gradient measures of a study as tables: means over seeds, and differences by seed."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.leaderboard.markdown import MISSING, cell, table
from satbench.leaderboard.study_record import StudyRun
from satbench.leaderboard.study_sheet import Sheet, measures_of, telling_measures_of
from satbench.leaderboard.study_statistics import Spread, measure_difference, spread


def render_measures(sheet: Sheet) -> str:
    """Return the tables of the measures and of their differences; nothing where none was made."""
    made, names = measures_of(sheet), telling_measures_of(sheet)
    meanings = "\n".join(
        f"- **{cell(name)}**: {sheet.measures[name]}"
        + ("" if name in names else "; 0 in every net, and so left out below")
        for name in made
    )
    if not names:
        return meanings
    values = [
        (cell(row.name), *(_number_spread(_measured(row.runs, name)) for name in names))
        for row in sheet.rows
    ]
    sections = [
        meanings,
        "Mean ± standard deviation over seeds:",
        table(("arm", *map(cell, names)), values, 1),
    ]
    if sheet.pairs:
        sections += [
            "Arm minus baseline, paired by seed, with 95 % intervals over seeds (Student's t):",
            table(("arm", "baseline", *map(cell, names)), _measure_lines(sheet, names), 2),
        ]
    return "\n\n".join(filter(None, sections))


def _measure_lines(sheet: Sheet, names: Sequence[str]) -> list[tuple[str, ...]]:
    lines = []
    for pair in sheet.pairs:
        cells = []
        for name in names:
            effect = measure_difference(sheet, pair, name)
            text = MISSING if effect is None else _number(effect.mean, sign=True)
            if effect and effect.interval:
                low, high = (_number(end, sign=True) for end in effect.interval)
                text += f" [{low}, {high}]"
            cells.append(text)
        lines.append((cell(pair.arm), cell(pair.baseline), *cells))
    return lines


def _number_spread(one: Spread | None) -> str:
    if one is None:
        return MISSING
    return _number(one.mean) + ("" if one.deviation is None else f" ± {_number(one.deviation)}")


def _measured(runs: Sequence[StudyRun], name: str) -> Spread | None:
    return spread(run.measures[name] for run in runs if name in run.measures)


def _number(value: float, sign: bool = False) -> str:
    """Return a number with three digits that count: `0.0412`, `12.3`, `1.20e+04`."""
    text = f"{value:+#.3g}" if sign else f"{value:#.3g}"
    return text.removesuffix(".").replace("-", "−")
