"""The tables of a study's page, as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from satbench.core.markdown import MISSING, cell, code, percent, signed, table
from satbench.core.stats.shown import Effect, least_t
from satbench.studies.design import Pair, Pool
from satbench.studies.effects import (
    Finding,
    Spread,
    accuracies,
    clean_accuracies,
    effects_of,
    findings_of,
    gap_of,
    measure_difference,
    pooled_effect,
    primary_of,
    spread,
)
from satbench.studies.run_file import StudyRun
from satbench.studies.sheet import (
    ArmRuns,
    Sheet,
    outcomes_of,
    telling_measures_of,
    verdicts_of,
)


def set_up_table(sheet: Sheet) -> str:
    """Return the facts of the set-up."""
    images = ", ".join(dict.fromkeys(cell(row.dataset) for row in sheet.rows))
    facts = [(cell(name), text) for name, text in sheet.facts]
    facts.append(("images", f"the first {sheet.n:,} of {images}, the same for all runs"))
    return table(("", ""), [("of the paper", cell(sheet.study.section)), *facts], 2)


def choices_table(sheet: Sheet) -> str:
    """Return the held-out accuracies of a sweep, with the chosen value in bold; else nothing."""
    if not sheet.choices:
        return ""
    lines = []
    for choice in sheet.choices:
        scores = zip(sheet.swept, choice.scores, strict=True)
        shown = (f"**{percent(s)}**" if v == choice.setting else percent(s) for v, s in scores)
        lines.append((cell(choice.arm), f"`{choice.setting}`", *shown))
    return table(("arm", "chosen", *map(cell, sheet.swept)), lines, 2)


def evaluations_table(sheet: Sheet) -> str:
    """Return the evaluations: attacks, threat model, and the use of each."""
    lines = []
    roles = ((sheet.study.verdict, "verdict"), (sheet.study.paper_verdict, "as the paper"))
    for column in sheet.columns:
        parts = " and ".join(cell(name) for name in column.worst_of)
        suite = ", ".join(code(spec) for spec in column.suite)
        if column.worst_of:
            suite = f"an image survives if it survives {parts}"
        marks = [word for name, word in roles if name == column.name]
        lines.append((cell(column.name), suite, cell(column.threat), ", ".join(marks)))
    return table(("column", "attacks", "threat model", "role"), lines, 4)


def robustness_table(sheet: Sheet) -> str:
    """Return clean and robust accuracy of each arm, with the gap and the passes."""
    names = [column.name for column in sheet.columns]
    head = ("arm", "settings", "seeds", "parameters", "clean", *map(cell, names), "gap", "passes")
    lines = []
    for row in sheet.rows:
        clean = spread(clean_accuracies(sheet, row).values())
        robust = [spread(accuracies(sheet, row, name).values()) for name in names]
        seeds = len(accuracies(sheet, row, sheet.study.verdict))
        lines.append(
            (
                cell(row.name),
                cell(row.settings),
                f"{seeds} of {row.seeds}",
                ", ".join(dict.fromkeys(f"{run.parameters:,}" for run in row.runs)) or MISSING,
                *map(_spread_text, (clean, *robust)),
                effect_text(gap_of(sheet, row)),
                _passes(sheet, row),
            )
        )
    return table(head, lines, 2)


def effects_table(sheet: Sheet) -> str:
    """Return the effect of each question, the primary one first; empty without a question."""
    if not sheet.study.questions:
        return ""
    verdict, paper = cell(sheet.study.verdict), cell(sheet.study.paper_verdict)
    head = (
        *("arm", "baseline", "answer", "seeds", f"by {verdict}", "p", "seeds only"),
        *(f"by {paper}", "p", "its answer", "clean"),
    )
    found = (*filter(None, (primary_of(sheet),)), *findings_of(sheet))
    return table(head, map(_effect_line, found), 3)


def elsewhere_table(sheet: Sheet) -> str:
    """Return the effects in the other columns; empty if there are none."""
    shown = (sheet.study.verdict, sheet.study.paper_verdict)
    names = [column.name for column in sheet.columns if column.name not in shown]
    if not (names and sheet.study.questions):
        return ""
    effects = [effects_of(sheet, name) for name in names]
    if sheet.study.primary:
        pooled = [pooled_effect(sheet, sheet.study.primary, name) for name in names]
        effects = [[one, *others] for one, others in zip(pooled, effects, strict=True)]
    lines = [
        (_arm(one), cell(one.baseline), *map(effect_text, found))
        for one, found in zip(sheet.study.questions, zip(*effects, strict=True), strict=True)
    ]
    return table(("arm", "baseline", *map(cell, names)), lines, 2)


def pooled_pairs(sheet: Sheet) -> list[str]:
    """Return the pairs of the primary question, with the baseline if there are several."""
    pool = sheet.study.primary
    if pool is None:
        return []
    shared = {pair.baseline for pair in pool.pairs} == {pool.baseline}
    return [
        cell(pair.arm) if shared else f"{cell(pair.arm)} − {cell(pair.baseline)}"
        for pair in pool.pairs
    ]


def power_of(sheet: Sheet) -> list[str]:
    """Return how many standard errors an effect must have to be shown, by kind of question."""
    primary, found = primary_of(sheet), findings_of(sheet)
    needed = []
    if primary and primary.robust and primary.robust.interval:
        seeds = primary.robust.seeds
        needed.append(f"{least_t(seeds, 1):.1f} for the primary effect ({seeds} seeds)")
    tested = [one.robust.seeds for one in found if one.robust and one.robust.interval]
    if tested:
        seeds, number = max(tested), len(found)
        which = f"the clearest of {number} single effects" if number > 1 else "a single effect"
        needed.append(f"{least_t(seeds, number):.1f} for {which} ({seeds} seeds)")
    return needed


def measure_tables(sheet: Sheet) -> tuple[str, str]:
    """Return the gradient measures of each arm, and their differences; empty without any."""
    names = telling_measures_of(sheet)
    if not names:
        return "", ""
    lines = [
        (cell(row.name), *(_number_spread(_measured(row.runs, name)) for name in names))
        for row in sheet.rows
    ]
    values = table(("arm", *map(cell, names)), lines, 1)
    if not sheet.study.contrasts:
        return values, ""
    differences = [
        (cell(pair.arm), cell(pair.baseline), *(_difference(sheet, pair, name) for name in names))
        for pair in sheet.study.contrasts
    ]
    return values, table(("arm", "baseline", *map(cell, names)), differences, 2)


def runs_table(sheet: Sheet) -> str:
    """Return each run: accuracies, weights, command."""
    head = ("arm", "seed", "clean", "robust", "weights", "run", "made with")
    lines = [
        (
            cell(row.name),
            str(run.seed),
            _share(clean_accuracies(sheet, _only(row, run)).get(run.seed)),
            _robust_text(sheet, row, run),
            f"`{run.weights_digest[:12]}`",
            f"`{run.key[:12] or cell(run.model)}`",
            code(run.command),
        )
        for row in sheet.rows
        for run in row.runs
    ]
    return table(head, lines, len(head)) if lines else ""


def effect_text(effect: Effect | None) -> str:
    """Return an effect and its interval in points: `+4.2 [+1.0, +7.4]`."""
    if effect is None:
        return MISSING
    if effect.interval is None:
        return signed(effect.mean)
    low, high = map(signed, effect.interval)
    return f"{signed(effect.mean)} [{low}, {high}]"


def _effect_line(one: Finding) -> tuple[str, ...]:
    robust, paper = one.robust, one.paper
    by_seed = robust.by_seed if robust else None
    answer = f"**{one.verdict}**" if one.verdict in ("more robust", "less robust") else one.verdict
    return (
        _arm(one.pair),
        cell(one.pair.baseline),
        answer,
        str(robust.seeds if robust else 0),
        effect_text(robust),
        _p_text(robust),
        f"[{', '.join(map(signed, by_seed))}]" if by_seed else MISSING,
        effect_text(paper),
        _p_text(paper),
        paper.verdict if paper else MISSING,
        effect_text(one.clean),
    )


def _arm(one: Pair | Pool) -> str:
    return f"**primary: {cell(one.arm)}**" if isinstance(one, Pool) else cell(one.arm)


def _p_text(effect: Effect | None) -> str:
    p = effect.counted if effect else None
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _passes(sheet: Sheet, row: ArmRuns) -> str:
    found = [outcomes_of(sheet, row, run, sheet.study.verdict) for run in row.runs]
    spent = [
        sum(part.forwards + part.backwards for part in parts) / sheet.n for parts in found if parts
    ]
    return f"{fmean(spent):,.0f}" if spent else MISSING


def _spread_text(one: Spread | None) -> str:
    if one is None:
        return MISSING
    return percent(one.mean) + ("" if one.deviation is None else f" ± {percent(one.deviation)}")


def _share(share: float | None) -> str:
    return MISSING if share is None else percent(share)


def _robust_text(sheet: Sheet, row: ArmRuns, run: StudyRun) -> str:
    if verdicts_of(sheet, row, run, sheet.study.verdict) is None:
        return MISSING
    return percent(accuracies(sheet, _only(row, run), sheet.study.verdict)[run.seed])


def _only(row: ArmRuns, run: StudyRun) -> ArmRuns:
    return ArmRuns(row.name, row.settings, (run,), row.seeds, row.dataset)


def _difference(sheet: Sheet, pair: Pair, name: str) -> str:
    effect = measure_difference(sheet, pair, name)
    if effect is None:
        return MISSING
    if effect.interval is None:
        return _number(effect.mean, sign=True)
    low, high = (_number(end, sign=True) for end in effect.interval)
    return f"{_number(effect.mean, sign=True)} [{low}, {high}]"


def _number_spread(one: Spread | None) -> str:
    if one is None:
        return MISSING
    return _number(one.mean) + ("" if one.deviation is None else f" ± {_number(one.deviation)}")


def _measured(runs: Sequence[StudyRun], name: str) -> Spread | None:
    return spread(run.measures[name] for run in runs if name in run.measures)


def _number(value: float, sign: bool = False) -> str:
    """Return a number with three significant digits: `0.0412`, `12.3`, `1.20e+04`."""
    text = f"{value:+#.3g}" if sign else f"{value:#.3g}"
    return text.removesuffix(".").replace("-", "−")
