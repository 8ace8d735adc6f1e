"""Read what is on disk into frozen dataclasses, checked field by field (msgspec).

Every file that satbench reads, its own or a stranger's, comes in through here: JSON and TOML are
parsed, values are checked against the types of a dataclass, and whatever is wrong is one sentence
that names the file and the field.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from satbench.core.errors import SatbenchError

T = TypeVar("T")


def read_text(path: Path, what: str) -> str:
    """Read a text file, UTF-8.  Raises SatbenchError for one that is missing or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        article = "an" if what[0] in "aeiou" else "a"
        raise SatbenchError(f"expected {article} {what} at {path}, which is missing") from None
    except (UnicodeDecodeError, ValueError):
        raise SatbenchError(f"the {what} {path} is not text in UTF-8") from None
    except OSError as error:
        raise SatbenchError(f"cannot read the {what} {path}: {error.strerror}") from None


def parse_json(text: str, what: str, where: str) -> object:
    """Read JSON text strictly: no NaN, no name twice in an object, no deep nesting.

    Raises SatbenchError naming `where` and what is wrong.
    """
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except RecursionError:
        raise SatbenchError(
            f"the {what} {where} is not JSON that can be read: it is nested too deep"
        ) from None
    except ValueError as error:  # JSONDecodeError, our own below, an integer of too many digits
        raise SatbenchError(f"the {what} {where} is not JSON: {error}") from None


def read_toml(path: Path, what: str, form: type[T]) -> T:
    """Read a TOML file into a dataclass.  Raises SatbenchError naming file and field."""
    text = read_text(path, what)
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise SatbenchError(f"the {what} {path} is not TOML: {error}") from None
    return convert(values, form, what, str(path))


def convert(values: object, form: type[T], what: str, where: str) -> T:
    """Return plain values as a dataclass of the type `form`, checked strictly.

    Nothing is turned into another type; a field that `form` lacks is refused.  Raises SatbenchError
    naming `where` and the field.
    """
    try:
        made = msgspec.convert(values, form, strict=True)
    except msgspec.ValidationError as error:
        raise SatbenchError(f"the {what} {where} is wrong: {_told(error)}") from None
    if unknown := _unknown(values, msgspec.to_builtins(made), ""):
        raise SatbenchError(f"the {what} {where} has a field that is not known, {unknown}")
    return made


def _told(error: msgspec.ValidationError) -> str:
    """Return msgspec's message with the field first: `n: expected int, got str`."""
    said, _, place = str(error).partition(" - at `$")
    said = said.replace("`", "").replace("Object missing required field", "missing field")
    said = said[:1].lower() + said[1:]
    place = place.rstrip("`").lstrip(".")
    return f"{place}: {said}" if place else said


def _unknown(values: object, known: object, place: str) -> str:
    """Return the place of a field that was not taken over, empty if there is none."""
    if isinstance(values, Mapping) and isinstance(known, Mapping):
        pairs = [
            (f"{place}.{key}".lstrip("."), key in known, v, known.get(key))
            for key, v in values.items()
        ]
    elif isinstance(values, list) and isinstance(known, list):
        both = enumerate(zip(values, known, strict=False))
        pairs = [(f"{place}[{number}]", True, *two) for number, two in both]
    else:
        return ""
    for here, is_known, value, taken in pairs:
        if found := here if not is_known else _unknown(value, taken, here):
            return found
    return ""


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} is given twice")
    return found
