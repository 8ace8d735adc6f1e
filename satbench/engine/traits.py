"""The traits that an attack declares, read and checked in this one place.

A trait is an attribute of the class: a `ClassVar`, a property if it depends on a parameter, or
(`block`, `uses_gradients`) a parameter itself.  A trait that is not declared has its default, so a
misspelt one would go unnoticed.  Therefore names that are close to a trait's name are refused, and
so are values of another type.  docs/how-to/own-attack.md has the table of traits.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

from satbench.core.errors import SatbenchError
from satbench.core.specs import is_parameter_type, parameter_types
from satbench.core.threat import Length, Norm, Threat, show_fraction

if TYPE_CHECKING:  # names are looked up without torch
    from satbench.engine.contract import Attack

NORMS: tuple[str, ...] = get_args(Norm)

_TRAITS = ("norms", "uses_gradients", "block", "surrogates", "least_classes")
_METHODS = ("parts", "prepare", "selects", "follow", "nearest")
_CLOSE = 0.8  # difflib ratio from which a name counts as misspelt
_MOST_STEP = 2  # in eps: a longer step leaves the ball from any point of it


@dataclass(frozen=True)
class Traits:
    """What the engine must know about an attack before it runs.

    `norms` are those it supports; `uses_gradients` is false for an attack that never uses the
    target's gradient; `block` is the number of images, by index, that it must see together, None if
    it does not matter; `surrogates` are the names of its surrogates; `least_classes` is how many
    classes its loss needs.
    """

    norms: tuple[str, ...] = NORMS
    uses_gradients: bool = True
    block: int | None = None
    surrogates: tuple[str, ...] = ()
    least_classes: int = 2


@runtime_checkable
class Composite(Protocol):
    """An attack that consists of others, each run on the survivors of the one before."""

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named."""
        ...


def traits_of(attack: object, name: str = "") -> Traits:
    """Read the traits of an attack; `name` is its name in errors.

    Raises SatbenchError for a value of another type than the trait's.
    """
    name = name or type(attack).__name__
    default = Traits()
    read = {trait: getattr(attack, trait, getattr(default, trait)) for trait in _TRAITS}
    norms, block, surrogates = read["norms"], read["block"], read["surrogates"]
    if not _are_words(norms) or not norms or not set(norms) <= set(NORMS):
        raise SatbenchError(
            f"{name}: expected the trait norms as a tuple of {', '.join(NORMS)}, such as "
            f"('linf', 'l2'), got {norms!r}"
        )
    if not isinstance(read["uses_gradients"], bool):
        raise SatbenchError(
            f"{name}: expected the trait uses_gradients as True or False, "
            f"got {read['uses_gradients']!r}"
        )
    if block is not None and (not isinstance(block, int) or isinstance(block, bool) or block < 1):
        raise SatbenchError(
            f"{name}: expected the trait block as a whole number of images, 1 or more, or None, "
            f"got {block!r}"
        )
    if not _are_words(surrogates):
        raise SatbenchError(
            f"{name}: expected the trait surrogates as a tuple of names, got {surrogates!r}"
        )
    least = read["least_classes"]
    if not isinstance(least, int) or isinstance(least, bool) or least < 2:
        raise SatbenchError(
            f"{name}: expected the trait least_classes as a whole number, 2 or more, got {least!r}"
        )
    return Traits(tuple(norms), read["uses_gradients"], block, tuple(surrogates), least)


@cache
def check_class(name: str, cls: object) -> None:
    """Check a class that is registered as an attack.

    Raises SatbenchError unless it is a frozen dataclass, its parameters can be written in a spec,
    it can be called as an attack or has parts, and no name is nearly that of a trait.
    """
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise SatbenchError(f"{name}: expected a frozen dataclass behind the name, got {cls!r}")
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise SatbenchError(
            f"{name}: expected a frozen dataclass, got {cls.__name__}, which can be changed: "
            "write @dataclass(frozen=True)"
        )
    _check_names(name, cls)
    _check_parameters(name, cls)
    parts: object = getattr(cls, "parts", None)
    if not (_takes(parts, 1) if parts else _takes(_own_call(cls), 6)):
        wanted = "parts(self)" if parts else "__call__(self, model, x, y, threat, noise)"
        raise SatbenchError(f"{name}: expected the attack to have {wanted}")


def check_attack(name: str, attack: object) -> None:
    """Check the values of an attack's traits, and its parts.

    Raises SatbenchError for a value of another type, and for a composite attack without parts or
    with a part that is not an attack.
    """
    traits_of(attack, name)
    if not isinstance(attack, Composite):
        return
    if "uses_gradients" in dir(attack):
        raise SatbenchError(
            f"{name}: expected uses_gradients to be declared by the parts of a composite attack, "
            "got it on the whole"
        )
    parts: object = attack.parts()
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise SatbenchError(
            f"{name}: expected parts() to return one pair (name, attack) or more, got {parts!r}: "
            "a suite without attacks would call every image robust"
        )
    for part in parts:
        if not (isinstance(part, tuple) and len(part) == 2 and part[0] and _is_word(part[0])):
            raise SatbenchError(
                f"{name}: expected parts() to return pairs (name, attack), got {part!r}"
            )
        _check_part(f"{name}/{part[0]}", part[1])
    names = [part[0] for part in parts]
    if len(set(names)) < len(names):
        raise SatbenchError(f"{name}: expected parts of different names, got {', '.join(names)}")


def check_fit(spec: str, attack: object, threat: Threat) -> None:
    """Check that an attack, and any attack inside it, fits a threat model; `spec` is its text.

    Raises SatbenchError for an unsupported norm, and for a step above 2 eps that is not given in
    units of eps: `step=50` is usually a mistake for `steps=50`.
    """
    name = spec.partition("(")[0]
    norms = traits_of(attack, name).norms
    if threat.norm not in norms:
        raise SatbenchError(
            f"expected {' or '.join(norms)} for {name}, got {threat.norm}; "
            "take another attack, such as autoattack"
        )
    for field in fields(attack) if is_dataclass(attack) else ():
        value = getattr(attack, field.name)
        if field.name.endswith("step") and isinstance(value, Length):
            _check_step(name, field.name, value, threat)
        elif is_dataclass(value) and (callable(value) or isinstance(value, Composite)):
            check_fit(spec, value, threat)  # an attack that selects images for another one


def check_step_text(name: str, arguments: Mapping[str, str], threat: Threat) -> None:
    """Check the step in the text of a built-in attack, before the attack is imported.

    Raises SatbenchError as `check_fit`.  A text that is not a length is refused later.
    """
    try:
        step = Length.parse(arguments.get("step", "eps"))
    except SatbenchError:
        return
    _check_step(name, "step", step, threat)


def _check_step(name: str, parameter: str, step: Length, threat: Threat) -> None:
    if step.relative or step.value <= _MOST_STEP * threat.eps:
        return
    shown, times = show_fraction(step.value), show_fraction(step.value / threat.eps)
    meant = []
    if step.value.denominator == 1:
        meant.append(f"{parameter}s={shown}")
        if step.value / 255 <= _MOST_STEP * threat.eps:
            meant.append(f"{parameter}={shown}/255")
    asked = f"did you mean {' or '.join(meant)}? " if meant else ""
    raise SatbenchError(
        f"{name}: expected a {parameter} of at most {_MOST_STEP} eps under {threat}, got {shown}: "
        f"{asked}Write a longer one in units of eps, {parameter}={times}*eps"
    )


def _check_part(name: str, part: object) -> None:
    if isinstance(part, Composite) or not _takes(part, 5):
        raise SatbenchError(
            f"{name}: expected a part to be an attack, called with (model, x, y, threat, noise), "
            f"got {part!r}"
        )
    _check_names(name, type(part))
    traits_of(part, name)


def _check_names(name: str, cls: type) -> None:
    """Refuse public names that are nearly those of traits or methods of the contract."""
    parameters = {field.name: field for field in _fields(cls)}
    for own, value in _public(cls):
        if own in _TRAITS:
            continue
        if own in _METHODS:
            if not callable(value):
                raise SatbenchError(f"{name}: expected {own} as a method, got {value!r}")
            continue
        nearest = difflib.get_close_matches(own, (*_TRAITS, *_METHODS), 1, _CLOSE)
        if own in parameters:
            if nearest and _would_do(nearest[0], parameters[own], cls):
                raise _unknown(name, own, nearest)
        elif nearest or (is_dataclass(cls) and _is_constant(value) and not own.isupper()):
            raise _unknown(name, own, nearest)


def _is_constant(value: object) -> bool:
    return not (callable(value) or isinstance(value, property | cached_property))


def _unknown(name: str, own: str, nearest: list[str]) -> SatbenchError:
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(_TRAITS)}"
    return SatbenchError(
        f"{name}: unknown trait {own!r}: {hint} (begin other names of the class with _)"
    )


def _would_do(trait: str, field: Field[Any], cls: type) -> bool:
    """Return whether a parameter resembles a trait so much, in name and value, that it is one."""
    if trait not in _TRAITS or hasattr(cls, trait):
        return False
    default = None if field.default is MISSING else field.default
    if trait == "surrogates":
        return isinstance(default, tuple | list) or hasattr(cls, "prepare")
    if trait == "norms":
        return isinstance(default, tuple | list) or default in NORMS
    return isinstance(default, bool if trait == "uses_gradients" else int)


def _check_parameters(name: str, cls: type) -> None:
    types = parameter_types(name, cls)
    for field in _fields(cls):
        if not field.init:
            continue
        if not is_parameter_type(types[field.name]):
            if field.name in _TRAITS:
                raise SatbenchError(
                    f"{name}: expected the trait {field.name} on the class, got it as a parameter: "
                    f"write {field.name}: ClassVar[…] = …"
                )
            raise SatbenchError(
                f"{name}: expected parameters of type int, float, bool, str, Literal[…] or one "
                f"that parses its own text, got {field.name} of type {types[field.name]!r}"
            )
        if field.default is MISSING and field.default_factory is MISSING:
            raise SatbenchError(
                f"{name}: expected a default for every parameter, got none for {field.name}"
            )


def _public(cls: type) -> Iterator[tuple[str, object]]:
    """Yield the public attributes of a class, including inherited ones, with their values."""
    for holder in cls.__mro__:
        if holder is object or holder.__module__ in ("typing", "satbench.engine.contract"):
            continue
        annotated = inspect.get_annotations(holder)
        for own in dict.fromkeys([*vars(holder), *annotated]):
            if not own.startswith("_"):
                value = vars(holder).get(own)
                plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                yield own, plain


def _fields(cls: type) -> tuple[Field[Any], ...]:
    return fields(cls) if is_dataclass(cls) else ()


def _own_call(cls: type) -> object:
    """Return the `__call__` of instances, not that of the metaclass."""
    return next((vars(k)["__call__"] for k in cls.__mro__ if "__call__" in vars(k)), None)


def _takes(call: object, arguments: int) -> bool:
    """Return whether `call` accepts this number of positional arguments."""
    if not callable(call):
        return False
    try:
        inspect.signature(call).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # a callable without a signature
        return True
    return True


def _are_words(value: object) -> bool:
    return isinstance(value, tuple | list) and all(map(_is_word, value))


def _is_word(value: object) -> bool:
    return isinstance(value, str)
