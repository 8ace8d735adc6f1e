"""The text of a data set that is at a path: `KIND:PATH@WORD,KEY=VALUE,…`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from satbench.core.errors import SatbenchError, UnknownNameError

_ITEM = r"[A-Za-z_]+=[^,]*"
_OPTIONS = re.compile(rf"(?:\w+|{_ITEM})(?:,{_ITEM})*", re.DOTALL)


SIDES = range(8, 513)
"""The sides in pixels that images can be resized to by NAME@SIDE."""


@dataclass(frozen=True)
class PathOptions:
    """A path with its options: a `word` that may come first, and values by key."""

    path: str
    word: str
    values: dict[str, str]

    @classmethod
    def parse(cls, text: str, words: Iterable[str] = ()) -> PathOptions:
        """Read `PATH@WORD,KEY=VALUE,…`; a path may contain an @.

        `words` are those that may come first, in upper or lower case; a number may too.  Raises
        SatbenchError for a key that is given twice or without a value, and for another word after
        an existing path.
        """
        path, options = _parts(text)
        if not options:
            return cls(text, "", {})
        first, *others = options.split(",")
        word = "" if "=" in first else first
        if word and not word.isdecimal() and word.lower() not in {one.lower() for one in words}:
            if words and (others or os.path.exists(path)):
                raise UnknownNameError("option", word, words)
            return cls(text, "", {})  # such as /home/me@work, which does not exist
        values: dict[str, str] = {}
        for item in others if word else [first, *others]:
            key, _, value = item.partition("=")
            if not value:
                raise SatbenchError(f"expected {key}=VALUE in {text!r}, got {item!r}")
            if key in values:
                raise SatbenchError(f"{key} is given twice in {text!r}")
            values[key] = value
        return cls(path, word, values)

    @property
    def side(self) -> int | None:
        """The side in pixels that `word` gives; None if it is no number. Raises SatbenchError."""
        if not self.word.isdecimal():
            return None
        if len(self.word) > 9 or int(self.word) not in SIDES:
            raise SatbenchError(
                f"expected a side from {SIDES[0]} to {SIDES[-1]} pixels, got {self.word[:40]}"
            )
        return int(self.word)

    def saying(self, more: Mapping[str, str]) -> PathOptions:
        """Return the same with more values.  Raises SatbenchError for a key given twice."""
        for key in more.keys() & self.values.keys():
            raise SatbenchError(f"{key} is given twice: by its own option and in {str(self)!r}")
        return replace(self, values={**self.values, **more})

    def check_keys(self, known: Iterable[str]) -> None:
        """Raise UnknownNameError, with the nearest, for a key that is not among `known`."""
        for key in self.values:
            if key not in (names := tuple(known)):
                raise UnknownNameError("option", key, names)

    def __str__(self) -> str:
        """Return the text; `parse` is its inverse."""
        items = [*([self.word] if self.word else []), *(f"{k}={v}" for k, v in self.values.items())]
        return f"{self.path}@{','.join(items)}" if items else self.path


def _parts(text: str) -> tuple[str, str]:
    """Split off the options: after the first @ whose path exists, else after the first @."""
    if os.path.exists(text):
        return text, ""
    ends = [place for place, letter in enumerate(text) if letter == "@"]
    ends = [end for end in ends if _OPTIONS.fullmatch(text, end + 1)]
    there = [end for end in ends if text[:end] and os.path.exists(text[:end])]
    end = next(iter(there or ends), len(text))
    return text[:end], text[end + 1 :]
