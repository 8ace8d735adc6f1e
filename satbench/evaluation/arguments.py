"""Checks of the arguments of the Python interface, before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import SupportsFloat, cast

import numpy as np
import torch
from torch import Tensor, nn

from satbench.calling.function import Function
from satbench.calling.modules import check_module
from satbench.core.errors import SatbenchError
from satbench.engine.traits import Composite
from satbench.evaluation.own_code import attack_text
from satbench.records.record import Record

AttackGiven = str | Callable[..., object] | Composite
"""An attack: its spec, a function, or an object that can be called or has parts."""


@dataclass(frozen=True)
class Argument:
    """What an argument must be: in words, and as a test of the value.

    `advice` maps common mistakes to what to write instead.
    """

    wanted: str
    accepts: Callable[[object], bool]
    advice: Mapping[object, str] | None = None


def images_at_once(batch_size: int | str, auto: int) -> int:
    """Return the batch size, or `auto` for `"auto"`.  Raises SatbenchError for less than 1."""
    size = auto if batch_size == "auto" else int(batch_size)
    if batch_size != "auto" and size < 1:
        raise SatbenchError(f"expected a batch size of 1 or more, got {batch_size}")
    return size


def check_arguments(**given: object) -> None:
    """Raise SatbenchError for the first argument, by name, that has a wrong type.

    Only types are checked here.  Whether a number is in range or a name is known is checked where
    it is used, also before anything runs.
    """
    for name, value in given.items():
        argument = _ARGUMENTS[name]
        if not argument.accepts(value):
            todo = f"; write {found}" if (found := _advice(argument, value)) else ""
            shown = "model" if name == "network" else name
            raise SatbenchError(f"expected {shown} as {argument.wanted}, got {_shown(value)}{todo}")


def attack_list(attacks: AttackGiven | Sequence[AttackGiven]) -> tuple[str, ...]:
    """Return attacks as texts; a single one needs no list.  Raises SatbenchError for an empty list.

    A function or an object is represented by the text of `own_code.attack_text`.
    """
    given = attacks if isinstance(attacks, list | tuple) else (attacks,)
    listed = tuple(attack_text(one) for one in given)
    if not listed:
        raise SatbenchError("expected at least one attack, such as attacks=['pgd-50']")
    return listed


def plain_number(eps: str | SupportsFloat) -> str | SupportsFloat:
    """Return a tensor or an array of one number as a NumPy number of its precision."""
    if isinstance(eps, np.ndarray):
        return cast(SupportsFloat, eps.reshape(())[()])
    if isinstance(eps, Tensor):
        eps = eps.detach().cpu()
        return (eps.float() if eps.dtype == torch.bfloat16 else eps).numpy().reshape(())[()]
    return eps


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_whole_or_auto(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, str) and value == "auto")


def _is_real(value: object) -> bool:
    return isinstance(value, Real | Decimal | np.number) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_path(value: object) -> bool:
    return isinstance(value, os.PathLike) or _is_text(value)


def _is_radius(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_meta and value.dtype != torch.bool
    if isinstance(value, np.ndarray):
        return value.size == 1 and bool(np.issubdtype(value.dtype, np.number))
    return _is_real(value) or isinstance(value, str)


def _is_attacks(value: object) -> bool:
    return _is_attack(value) or (
        isinstance(value, list | tuple) and all(_is_attack(one) for one in value)
    )


def _is_attack(value: object) -> bool:
    return isinstance(value, str | Composite) or callable(value)


def _is_layers(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(layer, str) and isinstance(target, str | nn.Module)
        for layer, target in value.items()
    )


def _or_none(accepts: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or accepts(value)


def _is_model(value: object) -> bool:
    return callable(value) or _is_text(value)


def _is_network(value: object) -> bool:
    return isinstance(value, nn.Module) or _is_text(value)


def _is_record(value: object) -> bool:
    return isinstance(value, Record) or _is_path(value)


def _is_device(value: object) -> bool:
    return isinstance(value, torch.device) or _is_text(value)


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


_WHOLE = "a whole number"
_ARGUMENTS = {
    "attacks": Argument("a name such as 'pgd-50', an attack, or a list of them", _is_attacks),
    "attack": Argument("a name such as 'pgd-50', or an attack", _is_attack),
    "checkpointing": Argument("True or False", _is(bool)),
    "progress": Argument("True or False", _is(bool)),
    "norm": Argument(
        "'linf', 'l2' or 'l1'",
        _or_none(_is(str)),
        {1: "norm='l1'", 2: "norm='l2'", math.inf: "norm='linf'"},
    ),
    "eps": Argument("a number or a text such as '8/255'", _or_none(_is_radius)),
    "method": Argument("a name such as 'crown'", _is_text),
    "seconds": Argument("a number of seconds, or None", _or_none(_is_real)),
    "n_examples": Argument(_WHOLE, _or_none(_is_whole)),
    "seed": Argument(_WHOLE, _is_whole),
    "batch_size": Argument(f"{_WHOLE}, or 'auto'", _is_whole_or_auto),
    "timeout": Argument("a number of seconds, or None", _or_none(_is_real)),
    "device": Argument(
        "'auto', 'cpu', 'cuda' or 'cuda:1'",
        _is_device,
        {number: f"device='cuda:{number}'" for number in range(64)},
    ),
    "out": Argument("a folder, or None to keep nothing", _or_none(_is_path)),
    "name": Argument("a text", _or_none(_is_text)),
    "bpda": Argument(
        "a dict from layers' names to modules, 'identity' or 'package.module:factory'",
        _or_none(_is_layers),
    ),
    "until": Argument(
        "a share such as 0.02 or '2%'", _or_none(lambda value: _is_real(value) or _is_text(value))
    ),
    "fresh": Argument("True or False", _is(bool)),
    "allow_training_data": Argument("True or False", _is(bool)),
    "diagnose": Argument("True or False", _is(bool)),
    "threads": Argument(_WHOLE, _or_none(_is_whole)),
    "workers": Argument(_WHOLE, _or_none(_is_whole)),
    "by": Argument("a text", _is(str)),
    "images": Argument("the path of a file", _or_none(_is_path)),
    "model": Argument("a torch.nn.Module, a function or a name", _or_none(_is_model)),
    "network": Argument("a torch.nn.Module or a name", _is_network),
    "record": Argument("a Record or the path of its file", _is_record),
    "trust": Argument("a list of names", _is(list, tuple)),
    "model_name": Argument("the name of a model, such as 'fmnist-sat-tiny-silu-s0'", _is_text),
    "n_classes": Argument(_WHOLE, _or_none(_is_whole)),
    "dataset": Argument("the name of a data set, such as 'fashion-mnist'", _is_text),
    "records": Argument("a list of records or of paths", _is(list, tuple)),
}


def _advice(argument: Argument, value: object) -> str | None:
    known = argument.advice or {}
    return known.get(value) if _is_real(value) else None


def _shown(value: object) -> str:
    if value is None or isinstance(value, str | bool | int | float):
        return repr(value)[:60]
    if isinstance(value, list | tuple) and value:
        strange = next((one for one in value if not isinstance(one, str)), value[0])
        return f"a {type(value).__name__} with {_shown(strange)}"
    return f"a {type(value).__name__}"


def checked_model(model: object) -> nn.Module:
    """Return a model that was passed as an object: the Module itself, or a function as a Module.

    Raises SatbenchError for anything else, and for a Module whose weights cannot be read.
    """
    if callable(model) and not isinstance(model, nn.Module | torch.export.ExportedProgram | type):
        return check_module(Function(model))
    return check_module(model)
