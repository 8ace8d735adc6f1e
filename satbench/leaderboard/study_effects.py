"""The effects of a study as tables: the primary question, and the single contrasts."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.leaderboard.markdown import MISSING, cell, signed, table
from satbench.leaderboard.study_findings import effect_text, listed
from satbench.leaderboard.study_sheet import Pair, Pool, Sheet
from satbench.leaderboard.study_statistics import (
    Finding,
    effects_of,
    findings_of,
    least_t,
    pooled_effect,
    primary_of,
)

_EFFECTS = """\
Arm minus baseline in points, paired by seed, with 95 % intervals over seeds and images: the
variance is clustered both ways (Cameron, Gelbach & Miller, 2011), Student's t with seeds − 1
degrees of freedom.  These intervals are cautious: simulated, they hold the truth in 97 to 100 %.
**p** is corrected for the number of contrasts (Holm); the answer says `more` or `less robust` only
where the interval leaves out 0 and p < 0.05.  The column *seeds alone* takes the test images for
all there are."""

_PRIMARY = """\
The first line is the primary question: one, fixed in the code of the study, tested alone at 5 %,
p not corrected.  The single contrasts are a second family, corrected among themselves; each of
the two errs in up to 5 % of studies."""


def render_effects(sheet: Sheet) -> str:
    """Return the table of effects with what it means, the primary question first.

    Nothing for a study that has no question.
    """
    if not sheet.questions:
        return ""
    head = (
        "arm",
        "baseline",
        "answer",
        "seeds",
        f"by {cell(sheet.verdict)}",
        "p",
        "seeds alone",
        f"by {cell(sheet.paper_verdict)}",
        "p",
        "its answer",
        "clean",
    )
    found, primary = findings_of(sheet), primary_of(sheet)
    lines = [_effect_line(one) for one in (*filter(None, (primary,)), *found)]
    notes = (_EFFECTS, _pooled(sheet), _power(primary, found), table(head, lines, 3))
    return "\n\n".join(filter(None, notes))


def render_elsewhere(sheet: Sheet) -> str:
    """Return the table of the effects in the other columns; nothing where there are none."""
    shown = (sheet.verdict, sheet.paper_verdict)
    names = [column.name for column in sheet.columns if column.name not in shown]
    if not (names and sheet.questions):
        return ""
    effects = [effects_of(sheet, name) for name in names]
    if sheet.primary:
        pooled = [pooled_effect(sheet, sheet.primary, name) for name in names]
        effects = [[one, *others] for one, others in zip(pooled, effects, strict=True)]
    lines = [
        (_arm(one), cell(one.baseline), *map(effect_text, found))
        for one, found in zip(sheet.questions, zip(*effects, strict=True), strict=True)
    ]
    return table(("arm", "baseline", *map(cell, names)), lines, 2)


def _pooled(sheet: Sheet) -> str:
    """Return what the primary question is, and that it is one."""
    if sheet.primary is None:
        return ""
    shared = {pair.baseline for pair in sheet.primary.pairs} == {sheet.primary.baseline}
    pairs = [
        cell(pair.arm) if shared else f"{cell(pair.arm)} − {cell(pair.baseline)}"
        for pair in sheet.primary.pairs
    ]
    if len(pairs) == 1:
        return f"{_PRIMARY}  It is the contrast of {pairs[0]}."
    return (
        f"{_PRIMARY}  It is the mean difference of {len(pairs)} pairs, image by image, over the "
        f"seeds that all of them have: {listed(pairs)}."
    )


def _arm(one: Pair | Pool) -> str:
    return f"**primary: {cell(one.arm)}**" if isinstance(one, Pool) else cell(one.arm)


def _power(primary: Finding | None, found: Sequence[Finding]) -> str:
    """Return how clear an effect must be; nothing where none has two seeds."""
    tested = [one.robust.seeds for one in found if one.robust and one.robust.interval]
    needed = []
    if primary and primary.robust and primary.robust.interval:
        seeds = primary.robust.seeds
        needed.append(f"{least_t(seeds, 1):.1f} for the primary effect ({seeds} seeds)")
    if tested:
        seeds, number = max(tested), len(tested)
        which = f"the clearest of {number} single effects" if number > 1 else "a single effect"
        needed.append(f"{least_t(seeds, number):.1f} for {which} ({seeds} seeds)")
    if not needed:
        return ""
    return (
        f"How many standard errors it takes to be shown: {', '.join(needed)}.  "
        "*Not shown to differ* is not *shown to be equal*: the interval says what is possible."
    )


def _effect_line(one: Finding) -> tuple[str, ...]:
    robust, paper = one.robust, one.paper
    alone = MISSING
    if robust and robust.by_seed:
        alone = f"[{', '.join(map(signed, robust.by_seed))}]"
    answer = f"**{one.verdict}**" if one.verdict in ("more robust", "less robust") else one.verdict
    return (
        _arm(one.pair),
        cell(one.pair.baseline),
        answer,
        str(robust.seeds if robust else 0),
        effect_text(robust, MISSING),
        _p_text(robust.counted if robust else None),
        alone,
        effect_text(paper, MISSING),
        _p_text(paper.counted if paper else None),
        paper.verdict if paper else MISSING,
        effect_text(one.clean, MISSING),
    )


def _p_text(p: float | None) -> str:
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
