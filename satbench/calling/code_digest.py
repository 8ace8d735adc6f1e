"""The digest of a user's code, which identifies a function or an object in a record.

It does not depend on comments, file names or line numbers.  It depends on the version of Python.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...))
_DEPTH = 20


def code_digest(thing: object) -> str:
    """Return the SHA-256 of a function's or an object's code and of its values.

    The code includes its functions, the methods of its class, and what they refer to in the same
    top-level package or script.  Of other packages only the names enter; of arrays, the contents.

    >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 1)
    True
    >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 2)
    False
    """
    digest = hashlib.sha256(f"{sys.version_info.major}.{sys.version_info.minor}".encode())
    for part in _Reader(_home(thing)).read(thing, _DEPTH):
        digest.update(part.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


class _Reader:
    """Turns Python objects into text, each function and class once."""

    def __init__(self, home: str) -> None:
        self._home, self._seen = home, dict[int, object]()

    def read(self, thing: object, depth: int) -> Iterator[str]:
        """Yield the text that identifies an object."""
        if isinstance(thing, _PLAIN):
            yield f"{type(thing).__name__} {thing!r}"
            return
        if depth <= 0 or id(thing) in self._seen:
            yield f"again {type(thing).__qualname__}"
            return
        self._seen[id(thing)] = thing  # a reference, so that no other object gets its id
        yield from self._read(thing, depth - 1)

    def _read(self, thing: Any, depth: int) -> Iterator[str]:
        if isinstance(thing, CodeType):
            yield f"code {thing.co_code.hex()} {thing.co_names} {thing.co_varnames}"
            for constant in thing.co_consts:
                yield from self.read(constant, depth)
        elif isinstance(thing, FunctionType | type) and _home(thing) != self._home:
            yield f"named {thing.__module__}.{thing.__qualname__}"
        elif isinstance(thing, FunctionType):
            yield from self._function(thing, depth)
        elif isinstance(thing, MethodType):
            yield from self._all((thing.__func__, thing.__self__), depth)
        elif isinstance(thing, functools.partial):
            yield from self._all((thing.func, thing.args, thing.keywords), depth)
        elif isinstance(thing, ModuleType):
            yield f"module {thing.__name__}"
        elif isinstance(thing, type):
            yield from self._class(thing, depth)
        elif isinstance(thing, dict):
            for key, value in thing.items():
                yield from self._all((key, value), depth)
        elif isinstance(thing, list | tuple):
            yield from self._all(thing, depth)
        elif isinstance(thing, set | frozenset):
            yield from sorted(" ".join(self.read(one, depth)) for one in thing)
        else:
            yield from self._object(thing, depth)

    def _function(self, thing: FunctionType, depth: int) -> Iterator[str]:
        yield from self.read(thing.__code__, depth)
        yield from self._all((thing.__defaults__, thing.__kwdefaults__), depth)
        named = inspect.getclosurevars(thing)
        for name, value in sorted({**named.globals, **named.nonlocals}.items()):
            yield name
            yield from self.read(value, depth)

    def _class(self, thing: type, depth: int) -> Iterator[str]:
        for holder in thing.__mro__:
            if _home(holder) != self._home:
                yield f"named {holder.__module__}.{holder.__qualname__}"
                continue
            for name, value in sorted(vars(holder).items()):
                plain = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                plain = plain.fget if isinstance(plain, property) else plain
                if isinstance(plain, (FunctionType, *_PLAIN)) and name not in _OF_THE_FILE:
                    yield name
                    yield from self.read(plain, depth)

    def _object(self, thing: Any, depth: int) -> Iterator[str]:
        yield from self.read(type(thing), depth)
        if hasattr(thing, "detach") and hasattr(thing, "numpy"):  # a tensor
            thing = thing.detach().cpu().numpy()
        if isinstance(thing, np.ndarray):
            yield f"array {thing.dtype} {thing.shape} {hashlib.sha256(thing.tobytes()).hexdigest()}"
        elif is_dataclass(thing):
            for one in fields(thing):
                yield one.name
                yield from self.read(getattr(thing, one.name), depth)
        elif hasattr(thing, "state_dict") and hasattr(thing, "named_modules"):  # a torch.nn.Module
            yield from self.read(dict(thing.state_dict()), depth)
        elif hasattr(thing, "__dict__"):
            yield from self.read(dict(sorted(vars(thing).items())), depth)
        elif _home(type(thing)) == "builtins" or hasattr(type(thing), "__str__"):
            yield type(thing).__qualname__

    def _all(self, things: Any, depth: int) -> Iterator[str]:
        for one in things:
            yield from self.read(one, depth)


_OF_THE_FILE = ("__module__", "__doc__", "__firstlineno__", "__static_attributes__")


def _home(thing: object) -> str:
    """Return the top-level package or script that an object was defined in."""
    plain = thing.func if isinstance(thing, functools.partial) else thing
    plain = plain.__func__ if isinstance(plain, MethodType) else plain
    named = plain if isinstance(plain, FunctionType | type) else type(plain)
    return str(named.__module__).partition(".")[0]
