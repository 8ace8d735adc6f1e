"""What a study found, in sentences that follow from the intervals alone."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.leaderboard.markdown import cell, signed
from satbench.leaderboard.study_sheet import Sheet
from satbench.leaderboard.study_statistics import Effect, Finding, Verdict, findings_of, gap_of

EVERY = 1000
"""A limit of a list that leaves out nothing."""

_ORDER: tuple[Verdict, ...] = (
    "more robust",
    "less robust",
    "not shown to differ",
    "too few seeds",
)


def finding(sheet: Sheet, limit: int = EVERY) -> str:
    """Return the answer of a study: who differs, by how much, and who is not shown to.

    Of more than `limit` contrasts with the same answer only the extremes are named.
    """
    if not sheet.pairs:
        return gaps(sheet)
    found = findings_of(sheet)
    groups = {kind: [one for one in found if one.verdict == kind] for kind in _ORDER}
    if len(groups["too few seeds"]) == len(found):
        return "Nothing can be said yet: no contrast has two seeds that are evaluated."
    parts = [
        _part(kind, ones, len(found), _baseline(sheet), limit)
        for kind, ones in groups.items()
        if ones
    ]
    if groups["less robust"]:
        parts.append("where an arm is less robust, the effect is reversed at this scale")
    elif not groups["more robust"]:
        parts.append("an effect is absent, or too small for these seeds and images to show")
    corrected = f", answers corrected for {len(found)} contrasts" if len(found) > 1 else ""
    lead = f"Judged by *{cell(sheet.verdict)}* (points, 95 % intervals{corrected})"
    return f"{lead}, {'; '.join(parts)}."


def changes(sheet: Sheet) -> str:
    """Return how the conclusions would be others by the paper's evaluation, and what it hides."""
    if sheet.paper_verdict == sheet.verdict:
        return "The paper's evaluation is the one that findings rest on here."
    paper, verdict = f"*{cell(sheet.paper_verdict)}*", f"*{cell(sheet.verdict)}*"
    found = findings_of(sheet)
    compared = [one for one in found if one.robust and one.paper and one.verdict != _ORDER[-1]]
    others = [_change(sheet, one) for one in compared if one.changes]
    sentences = [gaps(sheet)]
    if others:
        sentences.append(
            f"By {paper} alone, as the paper measured, the conclusion would be another in "
            f"{len(others)} of the {len(compared)} contrasts: {'; '.join(others)}."
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


def _baseline(sheet: Sheet) -> str:
    """Return the baseline that all contrasts share, or nothing."""
    baselines = {pair.baseline for pair in sheet.pairs}
    return cell(baselines.pop()) if len(baselines) == 1 else ""


def _part(kind: Verdict, ones: Sequence[Finding], of: int, baseline: str, limit: int) -> str:
    names = _named(ones, baseline, limit)
    everyone = {1: "the one arm", 2: "both arms"}.get(of, f"all {of} arms")
    who = everyone if len(ones) == of else f"{len(ones)} of {of} arms"
    many = len(ones) > 1
    if kind == "too few seeds":
        verb = f"{'have' if many else 'has'} too few seeds"
    elif kind == "not shown to differ":
        verb = (
            f"{'are' if many else 'is'} not shown to differ{f' from {baseline}' * bool(baseline)}"
        )
    else:
        than = baseline or ("their baselines" if many else "its baseline")
        verb = f"{'are' if many else 'is'} shown to be {kind} than {than}"
    return f"{who} {verb}: {names}"


def _named(ones: Sequence[Finding], baseline: str, limit: int) -> str:
    ordered = sorted(ones, key=lambda one: -one.robust.mean if one.robust else 0.0)
    texts = [
        f"{_name(one, baseline)} {effect_text(one.robust)}".removesuffix(" –") for one in ordered
    ]
    return listed(texts) if len(texts) <= limit else f"from {texts[-1]} to {texts[0]}"


def _name(one: Finding, baseline: str) -> str:
    arm = cell(one.pair.arm)
    return arm if baseline else f"{arm} (against {cell(one.pair.baseline)})"


def _change(sheet: Sheet, one: Finding) -> str:
    paper = one.paper.verdict if one.paper else ""
    return (
        f"{_name(one, _baseline(sheet))} {paper} ({effect_text(one.paper)}), "
        f"where the verdict is {one.verdict} ({effect_text(one.robust)})"
    )
