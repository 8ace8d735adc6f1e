"""The errors a person is meant to read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LONG_WORDS = re.compile(r"\S{1000}\S*")


class SatbenchError(ValueError):
    """A mistake in what satbench was given: what was expected, what came, what to do.

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
    """Something that a number depends on was not given, and had to be assumed."""


_MOST_LETTERS = 200  # of an unknown name that is shown


class UnknownNameError(SatbenchError):
    """A name that no registry knows."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        name = name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}…"
        any_case = {known_name.lower(): known_name for known_name in names}
        close = difflib.get_close_matches(name.lower(), any_case, n=1, cutoff=0.5)
        hint = (
            f"did you mean {any_case[close[0]]!r}?"
            if close
            else f"known: {', '.join(names) or 'none'}"
        )
        super().__init__(f"unknown {kind} {name!r}: {hint}")
