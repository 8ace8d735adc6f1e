"""The progress of a run in words: for a line on a pipe, and next to a bar."""

from __future__ import annotations

from satbench.core.progress.course import Course

_LONGEST = 72


def progress_text(course: Course) -> str:
    """Return the progress: `43 %, 1.2 M passes, 12.3 k/s, 412 survive, about 3 min left`."""
    parts = [f"{course.share:.0%}".replace("%", " %")]
    if course.done:
        parts += [f"{count(course.done)} passes", f"{count(round(course.rate))}/s"]
    if course.survivors is not None:
        parts.append(f"{course.survivors:,} survive")
    if course.seconds_left:
        parts.append(left(course))
    return ", ".join(parts)


def left(course: Course) -> str:
    """Return the remaining time, `about 3 min left`; of the stage if no more is known."""
    of = "" if course.known else " of this stage"
    return f"about {duration(course.seconds_left or 0.0)} left{of}"


def short_title(title: str) -> str:
    """Return the title of a stage; without parameters if it has more than 24 letters.

    >>> short_title("pgd(steps=50)"), short_title("fast(version=2,source=pinned)/malt")
    ('pgd(steps=50)', 'fast/malt')
    """
    if len(title) <= 24:
        return title
    attack = attack_of(title)
    if attack != title:
        title = f"{attack.partition('(')[0]}{title[len(attack) :]}"
    return title if len(title) <= _LONGEST else title[: _LONGEST - 1] + "…"


def attack_of(title: str) -> str:
    """Return the attack of a stage's title, which may name a part of the attack.

    >>> attack_of("fast(version=2)/malt/others"), attack_of("pgd(step=2/255)")
    ('fast(version=2)', 'pgd(step=2/255)')
    """
    attack, bracket, _ = title.partition(")/")
    if bracket:
        return f"{attack})"
    return title if "(" in title else title.partition("/")[0]


def count(number: float) -> str:
    """Return a number for people, `9,999`, `12.3 k`, `4.56 M`, `7.89 G`.

    >>> count(9_999), count(12_345), count(4_560_000)
    ('9,999', '12.3 k', '4.56 M')
    """
    if number < 10_000:
        return f"{number:,.0f}"
    if number < 1e6:
        return f"{number / 1e3:.1f} k"
    if number < 1e9:
        return f"{number / 1e6:.2f} M"
    large = next((power for power in (15, 12) if number >= 10**power), 9)
    return f"{number / 10**large:.2f} {'GTP'[(large - 9) // 3]}"


def duration(seconds: float) -> str:
    """Return a time for people, `40 s`, `3 min`, `2 h 05 min`, `3 d 4 h`.

    >>> duration(40), duration(200), duration(7500), duration(273_600)
    ('40 s', '3 min', '2 h 05 min', '3 d 4 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
