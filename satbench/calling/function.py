"""A user's function from images to logits, as a Module."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator

from torch import Tensor, nn


class Function(nn.Module):
    """A user's function as a model.

    The modules that the function uses (it is bound to them, closes over them, or names them as
    globals) become submodules of this one.  So they run in eval mode, and their weights identify
    the model.
    """

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(dict.fromkeys(_modules_of(function)))

    def forward(self, x: Tensor) -> object:
        """(B, C, H, W) -> (B, K), or an object that holds the logits."""
        return self.function(x)

    @property
    def name(self) -> str:
        """The name of the function."""
        return str(getattr(_bare(self.function), "__qualname__", type(self.function).__name__))


def _bare(function: object) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _modules_of(function: object) -> Iterator[nn.Module]:
    if isinstance(function, functools.partial):
        for value in (*function.args, *function.keywords.values(), function.func):
            yield from _modules_of(value)
        return
    if isinstance(function, nn.Module):
        yield function
        return
    held = getattr(function, "__self__", None)
    values = [held, *vars(held).values()] if hasattr(held, "__dict__") else [held]
    plain = inspect.unwrap(getattr(function, "__func__", function))  # type: ignore[arg-type]
    if inspect.isfunction(plain):
        named = inspect.getclosurevars(plain)
        values += [*named.nonlocals.values(), *named.globals.values()]
    elif not inspect.isbuiltin(function) and hasattr(function, "__dict__"):
        values += vars(function).values()
    yield from (value for value in values if isinstance(value, nn.Module))
