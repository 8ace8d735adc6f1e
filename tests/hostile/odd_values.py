"""Odd values for the fields of files, and files with one field changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

MARK = "@odd@"

ODD = (
    *("null", "true", "0", "-1", "1.5", '""', '"x"', "[]", "{}", "[null]", '{"a": 1}'),
    *("NaN", "-Infinity", "1e400", "1e308", "1e-320", "9" * 30, "9" * 6000, str(2**63)),
    *('"\\ud800"', '"\\u0000"', '"\\u202e"', '"1e999999999"', '"../x"', '"' + "x" * 30_000 + '"'),
    *("[" * 100_000 + "]" * 100_000, "[" * 70 + "]" * 70, '{"a": 1, "a": 2}'),
)
"""JSON texts to stand in the place of a value."""


def places(values: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each field; of a list, only the path of its first member."""
    if path:
        yield path
    if isinstance(values, dict):
        for key, value in values.items():
            yield from places(value, (*path, key))
    elif isinstance(values, list) and values:
        yield from places(values[0], (*path, 0))


def changed(values: object, path: tuple[str | int, ...], odd: str) -> str:
    """Return the values as JSON, with the text `odd` at the place `path`."""
    made: Any = copy.deepcopy(values)
    there = made
    for step in path[:-1]:
        there = there[step]
    there[path[-1]] = MARK
    return json.dumps(made).replace(json.dumps(MARK), odd)


def every_change(values: object) -> list[str]:
    """Return the values with each field changed to each odd value, and with each removed."""
    texts = [changed(values, path, odd) for path in places(values) for odd in ODD]
    for path in places(values):
        made: Any = copy.deepcopy(values)
        there = made
        for step in path[:-1]:
            there = there[step]
        del there[path[-1]]
        texts.append(json.dumps(made))
    return texts
