"""Specs: the canonical text of a parameterised object, `pgd(steps=20,step=eps/4,restarts=1)`.

The object is a frozen dataclass; its fields are the parameters.  The canonical text lists every
field in the order of declaration, so objects are equal exactly if their texts are equal.  A field
that was added later is `later(default)`: at its default the text leaves it out, so that older texts
are still canonical.
"""

from __future__ import annotations

import re
from dataclasses import Field, field, fields, is_dataclass
from fractions import Fraction
from functools import cache
from typing import (
    Any,
    Literal,
    Protocol,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.limits import MOST_SPEC_FLOAT, MOST_SPEC_LETTERS, MOST_SPEC_NUMBER
from satbench.core.threat import show_fraction

T = TypeVar("T")


@runtime_checkable
class Textual(Protocol):
    """A type of parameter that reads its own text; `str` is the inverse."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text.  Raises SatbenchError."""
        ...


def later(default: Any) -> Any:
    """Return a dataclass field that the canonical text leaves out at its default."""
    return field(default=default, metadata={"later": True})


_SPEC = re.compile(r"(?P<name>[a-zA-Z][\w.-]*)\s*(?:\((?P<arguments>.*)\))?", re.DOTALL)
_DIGIT = re.compile(r"[1-9]")


def check_spec_text(text: str) -> str:
    """Return the text of a spec without spaces around.  Raises SatbenchError if it is too long."""
    if len(text) > MOST_SPEC_LETTERS:
        raise SatbenchError(
            f"expected NAME or NAME(parameter=value,…) of at most {MOST_SPEC_LETTERS:,} letters, "
            f"got {len(text):,}: {text[:20]!r}…"
        )
    return text.strip()


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """Split `name(a=1,b=eps/4)` into the name and its arguments as text.

    >>> split_spec("pgd(steps=40, step=eps/10)")
    ('pgd', {'steps': '40', 'step': 'eps/10'})

    Raises SatbenchError where the text has another form, is too long or repeats a parameter.
    """
    form = _SPEC.fullmatch(check_spec_text(text))
    if not form:
        raise SatbenchError(f"expected NAME or NAME(parameter=value,…), got {text[:200]!r}")
    arguments: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in (form["arguments"] or "").split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise SatbenchError(f"expected parameter=value in {text!r}, got {part!r}")
        if key in arguments:
            raise SatbenchError(f"parameter {key!r} is given twice in {text!r}")
        arguments[key] = value
    return form["name"], arguments


def build(cls: type[T], name: str, arguments: dict[str, str]) -> T:
    """Build the dataclass `cls` from textual `arguments`; missing ones take their defaults.

    Raises SatbenchError for an unknown parameter (with the nearest known one) or a bad value, and
    if `cls` is no dataclass, as can happen with a plug-in.
    """
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise SatbenchError(f"{name}: expected a frozen dataclass behind the name, got {cls!r}")
    hints = parameter_types(name, cls)
    known = {field.name: field for field in _parameters(cls)}
    values: dict[str, Any] = {}
    for key, text in arguments.items():
        if key not in known:
            raise UnknownNameError(f"parameter of {name}", key, known)
        values[key] = _read(hints[key], text, f"{name}({key}=…)")
    return cls(**values)


def parameter_types(name: str, cls: type) -> dict[str, object]:
    """Return the type of each annotated name of a dataclass that is registered as `name`.

    Raises SatbenchError if an annotation cannot be read.
    """
    try:
        return _annotations_of(cls)
    except Exception as error:  # an annotation of a plug-in may raise anything
        raise SatbenchError(
            f"{name}: expected annotations that can be read at run time, got "
            f"{type(error).__name__}: {error}"
        ) from None


@cache  # reading them takes a millisecond, and a study's plan asks thousands of times
def _annotations_of(cls: type) -> dict[str, object]:
    return get_type_hints(cls)


def is_parameter_type(kind: object) -> bool:
    """Say whether the text of a spec can contain values of a type."""
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return kind in (bool, int, float, str) or (isinstance(kind, type) and issubclass(kind, Textual))


def spec_of(name: str, thing: object) -> str:
    """Return the canonical text of a frozen dataclass registered under `name`."""
    shown = (
        f"{f.name}={_show(getattr(thing, f.name))}"
        for f in _parameters(type(thing))
        if not (f.metadata.get("later") and getattr(thing, f.name) == f.default)
    )
    inside = ",".join(shown)
    return f"{name}({inside})" if inside else name


def show_float(value: float) -> str:
    """Return the shortest text that is read back as exactly this number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _parameters(cls: type) -> tuple[Field[Any], ...]:
    return tuple(field for field in fields(cls) if field.init)


def _read(kind: Any, text: str, where: str) -> object:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if text not in choices:
            raise SatbenchError(f"{where}: expected one of {', '.join(choices)}, got {text!r}")
        return text
    if isinstance(kind, type) and issubclass(kind, Textual):
        return kind.parse(text)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise SatbenchError(f"{where}: expected true or false, got {text!r}")
        return text.lower() == "true"
    if kind is str:
        return text
    return _number(kind, text, where)


def _number(kind: type[int] | type[float], text: str, where: str) -> int | float:
    """Read a finite number within the limits."""
    try:
        value = kind(text)
    except ValueError:
        raise SatbenchError(f"{where}: expected {kind.__name__}, got {text[:200]!r}") from None
    most = MOST_SPEC_NUMBER if kind is int else MOST_SPEC_FLOAT
    vanished = value == 0 and _DIGIT.search(text.lower().partition("e")[0])
    if not -most <= value <= most or vanished:
        end = f"{most:,}" if kind is int else f"{most:g}"
        raise SatbenchError(f"{where}: expected a number up to {end}, got {text[:40]!r}")
    return value


def _show(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return show_float(value)
    if isinstance(value, Fraction):
        return show_fraction(value)
    return str(value)
