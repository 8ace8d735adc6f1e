"""Read files into frozen dataclasses, checked field by field (msgspec).

Every JSON or TOML file that satbench reads is read here: it is parsed, and its values are checked
against the types of a dataclass.  An error is one sentence that names the file and the field.
Nothing larger than the limits in `satbench.core.limits` is read.
"""

from __future__ import annotations

import json
import math
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from satbench.core.errors import SatbenchError
from satbench.core.limits import (
    LEAST_NUMBER,
    MOST_DEPTH,
    MOST_KEY_PARTS,
    MOST_NUMBER,
    MOST_TEXT_BYTES,
    MOST_TOML_BYTES,
    MOST_VALUES,
)

T = TypeVar("T")

_PART = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_TOML_TOKEN = re.compile(
    rf"(?P<long_key>(?<![\w-])(?:{_PART}){{{MOST_KEY_PARTS}}})"
    r'|"{3}(?:[^\\]|\\[\s\S])*?(?:"{3,5}|\Z)'
    r"|'{3}[\s\S]*?(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|'[^'\n]*'?"
    r"|\#[^\n]*",
    re.ASCII,
)
"""A name of too many parts; or a string or a comment, which cannot contain one."""

Number = int | float
"""A number of a file that is written back as it was read: 0 does not become 0.0."""


def read_text(path: Path, what: str, most: int = MOST_TEXT_BYTES) -> str:
    """Read a UTF-8 text file of at most `most` bytes.

    Raises SatbenchError if it is missing, larger, not text, or not a plain file.
    """
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size > most:
            raise SatbenchError(
                f"the {what} {path} has {found.st_size:,} bytes: expected at most {most:,}"
            )
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise SatbenchError(f"the {what} {path} is not a plain file")
        return path.read_text(encoding="utf-8")
    except SatbenchError:
        raise
    except FileNotFoundError:
        article = "an" if what[0] in "aeiou" else "a"
        raise SatbenchError(f"expected {article} {what} at {path}, which is missing") from None
    except UnicodeDecodeError:
        raise SatbenchError(f"the {what} {path} is not text in UTF-8") from None
    except (OSError, ValueError) as error:  # a folder, or a name that the disk does not allow
        said = getattr(error, "strerror", None) or str(error)
        raise SatbenchError(f"the {what} {str(path)!r} cannot be read: {said}") from None


def parse_json(text: str, what: str, where: str) -> object:
    """Read JSON text strictly: no NaN, no infinity, no name twice in an object.

    Raises SatbenchError naming `where`, the field and the problem.
    """
    check_count(text, what, where)
    try:
        values: object = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except RecursionError:
        raise SatbenchError(
            f"the {what} {where} is not JSON that can be read: it is nested too deep"
        ) from None
    except ValueError as error:  # JSONDecodeError, our own below, an integer of too many digits
        raise SatbenchError(f"the {what} {where} is not JSON: {error}") from None
    check_plain(values, what, where)
    return values


def check_count(text: str, what: str, where: str) -> None:
    """Raise SatbenchError for JSON text of more than `MOST_VALUES` values; nothing is parsed."""
    if (most := sum(map(text.count, ",[{"))) > MOST_VALUES:
        raise SatbenchError(
            f"the {what} {where} has {most:,} values or so: expected at most {MOST_VALUES:,}"
        )


def parse_object(text: str, what: str, where: str) -> dict[str, Any]:
    """Read a JSON object; as `parse_json`."""
    values = parse_json(text, what, where)
    if not isinstance(values, dict):
        raise SatbenchError(f"the {what} {where} is not a JSON object")
    return values


def parse_schema(
    text: str, what: str, where: str, schemas: tuple[int, ...], kind: str = ""
) -> dict[str, Any]:
    """Read a JSON object that states which of the `schemas` it has, and its kind, if it has one.

    Raises SatbenchError as `parse_json`, and for another kind or schema.
    """
    values = parse_object(text, what, where)
    if kind and values.get("kind") != kind:
        raise SatbenchError(f"expected a {what} in {where}, got JSON of another kind")
    found = values.get("schema")
    if type(found) is not int or found not in schemas:
        wanted = " or ".join(map(str, schemas))
        raise SatbenchError(
            f"expected a {what} of schema {wanted} in {where}, got {_short(found)}; update satbench"
        )
    return values


def read_toml_values(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file as plain values.  Raises SatbenchError naming file and field."""
    return parse_toml(read_text(path, what, MOST_TOML_BYTES), what, str(path))


def parse_toml(text: str, what: str, where: str) -> dict[str, Any]:
    """Read TOML text as plain values.  Raises SatbenchError naming `where` and the field."""
    if any(token.lastgroup for token in _TOML_TOKEN.finditer(text)):
        raise SatbenchError(
            f"the {what} {where} has a name of more than {MOST_KEY_PARTS} parts with dots between "
            "them; it is not read"
        )
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise SatbenchError(f"the {what} {where} is not TOML: it is nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, an integer of too many digits
        raise SatbenchError(f"the {what} {where} is not TOML: {error}") from None
    check_plain(values, what, where)
    return values


def read_toml(path: Path, what: str, form: type[T]) -> T:
    """Read a TOML file into a dataclass.  Raises SatbenchError naming file and field."""
    return convert(read_toml_values(path, what), form, what, str(path))


def check_plain(values: object, what: str, where: str) -> None:
    """Raise SatbenchError unless values are plain: JSON values of limited depth and size.

    Numbers are finite, whole ones have at most 64 bits, and texts have no NUL and no half of a
    character (a lone surrogate), which cannot be written to a file.
    """
    if fault := _strange(values, 0):
        place, said = fault
        raise SatbenchError(f"the {what} {where} is wrong: {place.lstrip('.') or 'it'}: {said}")


def convert(values: object, form: type[T], what: str, where: str) -> T:
    """Return plain values as a dataclass of the type `form`, checked strictly.

    No value is converted to another type; a field that `form` lacks is refused.  Raises
    SatbenchError naming `where` and the field.
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


def _strange(value: object, depth: int) -> tuple[str, str] | None:
    """Return the place of the first value that is not plain, and its problem."""
    if isinstance(value, list | tuple | dict):
        return (
            _strange_within(value, depth) if depth < MOST_DEPTH else ("", "it is nested too deep")
        )
    said = ""
    if isinstance(value, str):
        said = _text_fault(value)
    elif isinstance(value, int):
        if not LEAST_NUMBER <= value <= MOST_NUMBER:
            said = "expected a whole number of at most 64 bits"
    elif isinstance(value, float):
        said = "" if math.isfinite(value) else "expected a number that is finite"
    elif value is not None:
        said = f"expected text, numbers, lists and objects, got {type(value).__name__}"
    return ("", said) if said else None


def _strange_within(
    values: list[object] | tuple[object, ...] | dict[str, object], depth: int
) -> tuple[str, str] | None:
    if not isinstance(values, dict):
        if _are_numbers(values):
            return None
        for number, one in enumerate(values):
            if found := _strange(one, depth + 1):
                return f"[{number}]{found[0]}", found[1]
        return None
    for key, one in values.items():
        if said := _text_fault(key):
            return f".{_short(key)}", said
        if found := _strange(one, depth + 1):
            return f".{key[:80]}{found[0]}", found[1]
    return None


def _are_numbers(values: Sequence[object]) -> bool:
    """Return whether all are whole numbers within the limits, such as the verdicts of a record."""
    numbers = [one for one in values if type(one) is int]
    return (
        len(numbers) == len(values)
        and min(numbers, default=0) >= LEAST_NUMBER
        and max(numbers, default=0) <= MOST_NUMBER
    )


def _text_fault(text: str) -> str:
    if "\0" in text:
        return "expected a text without the character NUL"
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "expected a text of whole characters, got half of one (a surrogate)"
    return ""


def _short(value: object) -> str:
    """Show a value from a file in at most 40 letters."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _unknown(values: object, known: object, place: str) -> str:
    """Return the place of a field that was not used, empty if there is none."""
    if isinstance(values, Mapping) and isinstance(known, Mapping):
        pairs = ((f".{key[:80]}", key in known, v, known.get(key)) for key, v in values.items())
    elif isinstance(values, list) and isinstance(known, list):
        if not {*map(type, values)} & {dict, list}:
            return ""
        both = enumerate(zip(values, known, strict=False))
        pairs = ((f"[{number}]", True, *two) for number, two in both)
    else:
        return ""
    for here, is_known, value, taken in pairs:
        if not is_known:
            return f"{place}{here}".lstrip(".")
        if isinstance(value, dict | list) and (found := _unknown(value, taken, place + here)):
            return found
    return ""


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {_short(name)} is given twice")
            seen.add(name)
    return found
