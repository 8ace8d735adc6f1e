"""Errors that are written for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_LONG_WORDS = re.compile(r"\S{1000}\S*")


class SatbenchError(ValueError):
    """A mistake in the input of satbench: what was expected, what was given, what to do.

    The command line prints only the message and exits with code 2.  A word of more than 1,000
    letters, which only a broken or a hostile file has, is cut in it.

    >>> import satbench
    >>> try:
    ...     satbench.load_dataset("fashon-mnist")
    ... except satbench.SatbenchError as error:
    ...     print(error)
    unknown dataset 'fashon-mnist': did you mean 'fashion-mnist'?
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_LONG_WORDS.sub(lambda word: f"{word[0][:80]}…", message))


class AssumptionWarning(UserWarning):
    """Something that a number depends on was not given, so it was assumed."""


_MOST_LETTERS = 200  # characters of an unknown name that are shown


_MOST_NAMES = 10  # known names that are shown

_LISTS = {
    "model": "satbench models",
    "attack": "satbench attacks",
    "dataset": "satbench datasets",
    "recipe": "satbench recipes",
    "study": "satbench study --list",
    "activation": "satbench activations",
    "architecture": "satbench architectures",
    "preset": "satbench models presets",
    "command": "satbench --help",
}
"""The command that lists all names of a kind."""


def listed(names: Sequence[str], command: str = "") -> str:
    """Return names for a sentence: at most ten, then how many more, and what lists them all.

    >>> listed(["a", "b"])
    'a, b'
    >>> listed([str(n) for n in range(12)], "satbench models")
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … and 2 more: satbench models'
    """
    more = len(names) - _MOST_NAMES
    shown = ", ".join(names[:_MOST_NAMES]) or "none"
    if more <= 0:
        return shown
    return f"{shown}, … and {more} more" + (f": {command}" if command else "")


class UnknownNameError(SatbenchError):
    """A name that is in no registry."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        name = name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}…"
        any_case = {known_name.lower(): known_name for known_name in names}
        close = difflib.get_close_matches(name.lower(), any_case, n=1, cutoff=0.5)
        close = close or [one for one in any_case if one.endswith(f".{name.lower()}")]
        hint = (
            f"did you mean {any_case[close[0]]!r}?"
            if close
            else f"known: {listed(names, _LISTS.get(kind, ''))}"
        )
        super().__init__(f"unknown {kind} {name!r}: {hint}")
