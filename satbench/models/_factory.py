"""Models from a user's code, `package.module:name`: a model, a function, or a factory."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from satbench.core.errors import SatbenchError
from satbench.core.registry import Entry
from satbench.models._loaded import LoadedModel, describe_module

if TYPE_CHECKING:
    from torch import nn


def load_factory(text: str) -> LoadedModel:
    """Load the model that `text` names, or call its factory.  Raises SatbenchError."""
    made = make_module(text, "--model PACKAGE.MODULE:FACTORY")
    made.eval()  # the result is not used, because a user's own train() may return nothing
    info = describe_module(made, text, "factory")
    return LoadedModel(made, replace(info, architecture=text), None)


def load_plugin(entry: Entry) -> LoadedModel:
    """Call the factory that a plug-in registered in the group `satbench.models`.

    Raises SatbenchError if the plug-in is broken or returns no module.
    """
    made = _called(entry.load(), entry.target)
    made.eval()
    info = describe_module(made, entry.name, f"plug-in {entry.plugin}")
    return LoadedModel(made, replace(info, architecture=entry.target), None)


def make_module(text: str, expected: str) -> nn.Module:
    """Return the model named `package.module:name`: a Module, or the result of a factory.

    A function that takes images is itself a model.  `expected` describes the option in errors.
    Raises SatbenchError if it cannot be imported, fails, or returns no module.
    """
    module_name, _, attribute = text.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # like `python -m`, so that a local file is found
    try:
        factory = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SatbenchError(f"expected {expected}, got {text!r}: {error}") from None
    return _called(factory, text)


def _called(factory: object, text: str) -> nn.Module:
    from torch import nn

    from satbench.calling.function import Function
    from satbench.calling.modules import check_module  # needs torch, unlike names

    if isinstance(factory, nn.Module):
        return check_module(factory)
    if _takes_images(factory):
        return check_module(Function(cast(Callable[..., object], factory)))
    if not callable(factory):
        raise SatbenchError(f"expected {text} to be a function that returns a model")
    try:
        made = cast(Callable[[], object], factory)()
    except Exception as error:
        raise SatbenchError(f"{text}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise SatbenchError(
            f"expected {text}() to return a torch.nn.Module, got {type(made).__name__}"
        )
    return check_module(made)


def _takes_images(thing: object) -> bool:
    """Return whether a function needs exactly one argument: then it is a model, not a factory."""
    if isinstance(thing, type) or not callable(thing):
        return False
    try:
        signature = inspect.signature(thing)
        signature.bind(0)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind()
    except TypeError:
        return True
    return False
