"""Conversion of settings from the text of `--set KEY=VALUE` or from TOML to their types."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_origin

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.recipes.config import settings

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list of whole numbers such as 50,75",
}


def parse_overrides(texts: Iterable[str]) -> dict[str, object]:
    """Read `KEY=VALUE` texts: `epochs=30`, `nesterov=false`, `milestones=50,75`.

    Raises SatbenchError for another form, an unknown key (with the nearest known one), a value of
    another type, and a key given twice.
    """
    found: dict[str, object] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise SatbenchError(f"expected --set KEY=VALUE such as epochs=30, got {text!r}")
        if key in found:
            raise SatbenchError(f"--set {key} is given twice")
        found[key] = _from_text(key, value)
    return found


def show_override(key: str, value: object) -> str:
    """Return the text that `parse_overrides` reads as this value."""
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, tuple):
        return f"{key}={','.join(map(str, value))}"
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"


def typed(key: str, value: object) -> object:
    """Return a TOML or Python value in the type of the setting `key`.

    Raises SatbenchError for an unknown setting or a value of another type.
    """
    kind = _kind(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list | tuple):
        if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
            return tuple(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise SatbenchError(f"expected {key} to be {_WORDS[kind]}, got {repr(value)[:80]}")


def _from_text(key: str, text: str) -> object:
    readers: dict[type, Callable[[str], object]] = {
        int: int,
        float: float,
        bool: lambda text: {"true": True, "false": False}[text.lower()],
        str: str,
        tuple: lambda text: tuple(int(part) for part in text.strip("[]").split(",") if part),
    }
    kind = _kind(key)
    try:
        value = readers[kind](text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(text)
        return value
    except (KeyError, ValueError):
        raise SatbenchError(f"expected {key} to be {_WORDS[kind]}, got {text[:80]!r}") from None


def _kind(key: str) -> type[Any]:
    kinds = settings()
    if key not in kinds:
        raise UnknownNameError("setting", key, kinds)
    origin = get_origin(kinds[key])
    kind: type[Any] = str if origin is Literal else origin or kinds[key]
    return kind
