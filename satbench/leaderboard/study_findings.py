"""What a study found, in sentences that follow from the intervals alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from satbench.leaderboard.markdown import cell, percent, signed
from satbench.leaderboard.study_convergence import convergence
from satbench.leaderboard.study_sheet import Sheet
from satbench.leaderboard.study_statistics import (
    Effect,
    Finding,
    Verdict,
    accuracies,
    findings_of,
    gap_of,
    primary_of,
)

LISTED = 4
"""How many contrasts of the same answer are named one by one; the table has them all."""

_ORDER: tuple[Verdict, ...] = (
    "more robust",
    "less robust",
    "not shown to differ",
    "too few seeds",
)


_SHOWN = _ORDER[:2]


def finding(sheet: Sheet) -> str:
    """Return the answer of a study: first the primary one, then who differs and by how much."""
    sentences = list(filter(None, (_lead(sheet),)))
    if not sheet.questions and sheet.about != "gaps":
        sentences.append(gaps(sheet))
    if sheet.questions:
        nothing = "Nothing can be said yet: no contrast has two seeds that are evaluated."
        answers = [_primary(sheet), _single(sheet)]
        sentences += answers if _begun(sheet) else [nothing] * (not sentences)
    return "  ".join(filter(None, sentences))


def summary(sheet: Sheet) -> str:
    """Return the answer in short: the primary one, and of how many contrasts something is shown."""
    if sheet.primary is None or not _begun(sheet):
        return finding(sheet)
    return "  ".join(filter(None, (_lead(sheet, short=True), _primary(sheet), _counts(sheet))))


def _lead(sheet: Sheet, short: bool = False) -> str:
    """Return what a study that is about more than effects says first."""
    if sheet.about == "gaps":
        return undiscovered(sheet, short)
    return convergence(sheet) if sheet.about == "convergence" else ""


def changes(sheet: Sheet) -> str:
    """Return how the conclusions would be others by the paper's evaluation, and what it hides."""
    if sheet.paper_verdict == sheet.verdict:
        return "The paper's evaluation is the one that findings rest on here."
    paper, verdict = f"*{cell(sheet.paper_verdict)}*", f"*{cell(sheet.verdict)}*"
    found = findings_of(sheet)
    compared = [one for one in found if one.robust and one.paper and one.verdict != _ORDER[-1]]
    others = [_change(sheet, one) for one in compared if one.changes]
    sentences = [] if sheet.about == "gaps" else [gaps(sheet)]
    if others:
        names = [_name(one, _baseline(sheet)) for one in compared if one.changes]
        what = "; ".join(others) if len(others) <= LISTED else listed(names)
        sentences.append(
            f"By {paper} alone, as the paper measured, the conclusion would be another in "
            f"{len(others)} of the {len(compared)} contrasts: {what}."
        )
    elif compared:
        sentences.append(
            f"By {paper} alone, as the paper measured, the conclusion would be the same as by "
            f"{verdict} in every contrast."
        )
    return "  ".join(sentences)


def gaps(sheet: Sheet) -> str:
    """Return by how much the paper's evaluation reads higher than the verdict, the extremes."""
    found = [(row.name, gap) for row in sheet.rows if (gap := gap_of(sheet, row))]
    paper, verdict = f"*{cell(sheet.paper_verdict)}*", f"*{cell(sheet.verdict)}*"
    if not found:
        return f"Nothing can be said yet: no run has both {paper} and {verdict}."
    found.sort(key=lambda one: one[1].mean)
    (low, least), (high, most) = found[0], found[-1]
    said = f"{paper} reads higher than {verdict} by {effect_text(most)} points for {cell(high)}"
    return f"{said}, and by {effect_text(least)} for {cell(low)}." if len(found) > 1 else f"{said}."


def undiscovered(sheet: Sheet, short: bool = False) -> str:
    """Return what the paper's evaluation leaves undiscovered: of ordinary nets, of masked ones."""
    paper, verdict = f"*{cell(sheet.paper_verdict)}*", f"*{cell(sheet.verdict)}*"
    gapped = [
        (row.name, gap)
        for row in sheet.rows
        if row.name not in sheet.masked and (gap := gap_of(sheet, row))
    ]
    levels = [(name, both) for name in sheet.masked if (both := _levels(sheet, name))]
    if short and len(gapped) > 1:
        gapped = sorted(gapped, key=lambda one: one[1].mean)[:: len(gapped) - 1]
    if short:
        levels = sorted(levels, key=lambda one: one[1][1] - one[1][0])[:1]
    missed = [f"{effect_text(gap)} ({cell(name)})" for name, gap in gapped]
    read = [
        f"{percent(high)} against {percent(low)} % ({cell(name)})" for name, (high, low) in levels
    ]
    where = ", in ordinary nets" if sheet.masked else ""
    sentences = []
    if missed:
        points = " to ".join(missed) if short else listed(missed)
        sentences.append(f"What {paper} misses of what {verdict} finds{where}: {points} points.")
    if read:
        most = "up to " * short
        sentences.append(
            f"Where the gradient is masked, {paper} and {verdict} read {most}{listed(read)}."
        )
    return "  ".join(sentences) or gaps(sheet)


def effect_text(effect: Effect | None, missing: str = "–") -> str:
    """Return an effect and its interval in points: `+4.2 [+1.0, +7.4]`."""
    if effect is None:
        return missing
    if effect.interval is None:
        return signed(effect.mean)
    low, high = map(signed, effect.interval)
    return f"{signed(effect.mean)} [{low}, {high}]"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in words: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _levels(sheet: Sheet, name: str) -> tuple[float, float] | None:
    """Return an arm's robust accuracy by the paper's evaluation and by the verdict."""
    row = sheet.row(name)
    paper, verdict = (accuracies(sheet, row, one) for one in (sheet.paper_verdict, sheet.verdict))
    seeds = paper.keys() & verdict.keys()
    if not seeds:
        return None
    return fmean(paper[seed] for seed in seeds), fmean(verdict[seed] for seed in seeds)


def _begun(sheet: Sheet) -> bool:
    """Return whether any contrast, the primary one among them, has two seeds."""
    found = (*findings_of(sheet), *filter(None, (primary_of(sheet),)))
    return any(one.verdict != "too few seeds" for one in found)


def _primary(sheet: Sheet) -> str:
    one = primary_of(sheet)
    if one is None or sheet.primary is None:
        return ""
    name = cell(one.pair.arm)
    lead = f"{name[:1].upper()}{name[1:]} against {cell(one.pair.baseline)}:"
    if one.robust is None:
        whole = "both arms are" if len(sheet.primary.pairs) == 1 else "all of them are"
        return f"{lead} nothing can be said yet, there is no seed for which {whole} evaluated."
    seeds = f"{one.robust.seeds} seed{'s' * (one.robust.seeds > 1)}"
    by = f"points (95 % interval) by *{cell(sheet.verdict)}*, {seeds}"
    said = f"{lead} {effect_text(one.robust)} {by}: **{_answer(one.verdict)}**"
    if one.verdict == "less robust":
        said += " (the effect is reversed at this scale)"
    elif one.verdict == "not shown to differ":
        what = "an effect" if len(sheet.primary.pairs) == 1 else "a common effect"
        said += f" ({what} is absent, or too small for these seeds and images to show)"
    if one.paper and sheet.paper_verdict != sheet.verdict:
        answer = _answer(one.paper.verdict) if one.changes else "likewise"
        said += f"; by *{cell(sheet.paper_verdict)}* alone {effect_text(one.paper)}, {answer}"
    return f"{said}."


def _answer(verdict: Verdict) -> str:
    return f"shown to be {verdict}" if verdict in _SHOWN else verdict


def _counts(sheet: Sheet) -> str:
    """Return in how many of the contrasts something is shown; nothing for fewer than two."""
    found = findings_of(sheet)
    if len(found) < 2:
        return ""
    counts = {kind: sum(one.verdict == kind for one in found) for kind in _SHOWN}
    if not any(counts.values()):
        return f"In none of {len(found)} single contrasts is the arm shown to differ."
    shown = listed([f"{kind} in {count}" for kind, count in counts.items() if count])
    return f"Of {len(found)} single contrasts, the arm is shown to be {shown}."


def _single(sheet: Sheet) -> str:
    """Return the answers of the contrasts, grouped by what is shown."""
    found = findings_of(sheet)
    groups = {kind: [one for one in found if one.verdict == kind] for kind in _ORDER}
    parts = [_part(kind, ones, len(found), _baseline(sheet)) for kind, ones in groups.items()]
    if not found:
        return ""
    if sheet.primary:
        lead = f"One by one{', corrected for their number' * (len(found) > 1)}"
    else:
        if groups["less robust"]:
            parts.append("where an arm is less robust, the effect is reversed at this scale")
        elif not groups["more robust"]:
            parts.append("an effect is absent, or too small for these seeds and images to show")
        corrected = f", answers corrected for {len(found)} contrasts" if len(found) > 1 else ""
        lead = f"Judged by *{cell(sheet.verdict)}* (points, 95 % intervals{corrected})"
    return f"{lead}, {'; '.join(filter(None, parts))}."


def _baseline(sheet: Sheet) -> str:
    """Return the baseline that all contrasts share, or nothing."""
    baselines = {pair.baseline for pair in sheet.pairs}
    return cell(baselines.pop()) if len(baselines) == 1 else ""


def _part(kind: Verdict, ones: Sequence[Finding], of: int, baseline: str) -> str:
    if not ones:
        return ""
    noun, than = ("arm", baseline) if baseline else ("contrast", "its baseline")
    everyone = {1: f"the one {noun}", 2: f"both {noun}s"}.get(of, f"all {of} {noun}s")
    who = everyone if len(ones) == of else f"{len(ones)} of {of} {noun}s"
    be = "are" if len(ones) > 1 else "is"
    if not baseline:
        who, be = f"in {who} the arm", "is"
    verbs = {
        "too few seeds": f"{who} {'have' if be == 'are' else 'has'} too few seeds",
        "not shown to differ": f"{who} {be} not shown to differ from {than}",
    }
    if len(ones) == of > 1:
        none = f"neither {noun}" if of == 2 else f"none of the {of} {noun}s"
        nobody = f"{none} is" if baseline else f"in {none} is the arm"
        verbs["not shown to differ"] = f"{nobody} shown to differ from {than}"
    said = verbs.get(kind, f"{who} {be} shown to be {kind} than {than}")
    names = _named(kind, ones, baseline)
    return f"{said}: {names}" if names else said


def _named(kind: Verdict, ones: Sequence[Finding], baseline: str) -> str:
    """Return who they are: of many those that are shown in short, of others the extremes."""
    ordered = sorted(ones, key=lambda one: -one.robust.mean if one.robust else 0.0)
    if len(ordered) <= LISTED:
        return listed([_named_effect(one, baseline) for one in ordered])
    if kind == "too few seeds":
        return ""
    if kind in _SHOWN:
        means = [(_name(one, baseline), one.robust) for one in ordered]
        return listed([f"{name} {signed(effect.mean)}" for name, effect in means if effect])
    most, least = (_named_effect(one, baseline) for one in (ordered[0], ordered[-1]))
    return f"from {least} to {most}"


def _named_effect(one: Finding, baseline: str) -> str:
    return f"{_name(one, baseline)} {effect_text(one.robust)}".removesuffix(" –")


def _name(one: Finding, baseline: str) -> str:
    arm = cell(one.pair.arm)
    return arm if baseline else f"{arm} (against {cell(one.pair.baseline)})"


def _change(sheet: Sheet, one: Finding) -> str:
    paper = one.paper.verdict if one.paper else ""
    return (
        f"{_name(one, _baseline(sheet))} {paper} ({effect_text(one.paper)}), "
        f"where the verdict is {one.verdict} ({effect_text(one.robust)})"
    )
