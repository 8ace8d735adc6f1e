"""A reader for pickles that calls only functions in a table of harmless ones.

`pickle` builds an object by calling the functions that the file names, so the author of the file
decides what runs.  Here each name is looked up in a table.  The file may mention a name that is not
in the table, but reading stops with an error when that name would be called.  No module is
imported.
"""

from __future__ import annotations

import _compat_pickle
import argparse
import collections
import datetime
import decimal
import fractions
import pickle
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

Maker = Callable[..., object]


class RefusedError(Exception):
    """A pickle calls `name`, which is not in the table."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class AllowedName:
    """A name of the table on the unpickler's stack, which Python cannot call."""

    name: str
    make: Maker


@dataclass(frozen=True)
class Named:
    """A class or function that a file mentions and that is not in the table."""

    name: str


class Inert:
    """An object that keeps its contents and does nothing."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments


class Attributes(dict[object, object]):
    """A mapping that may also have attributes, as configurations do."""


class Unpickler(pickle._Unpickler):
    """Reads one pickle.  Raises RefusedError; a broken pickle may raise any error.

    `table` maps further names, `module.name`, to makers.
    """

    table: Mapping[str, Maker] = {}
    proto: int
    stack: list[Any]
    append: Callable[[object], None]
    memo: dict[int, Any]

    def find_class(self, module: str, name: str) -> object:
        if self.proto < 3:  # Python 2 named the modules differently
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        return self.look_up(f"{module}.{name}")

    def look_up(self, name: str) -> object:
        """Return the maker or the placeholder for `module.name`."""
        if name in _VALUES:
            return _VALUES[name]
        if name == "builtins.getattr":
            return AllowedName(name, self._attribute)
        if name in ("dill._dill._load_type", "dill.dill._load_type"):
            return AllowedName(name, self._type_of_dill)
        maker = self.table.get(name) or _MAKERS.get(name)
        if maker is None and name.startswith(_INERT):
            maker = Inert
        return Named(name) if maker is None else AllowedName(name, maker)

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"it refers to {pid!r}, which is missing")

    def _attribute(self, owner: object, name: object) -> object:
        if not isinstance(owner, AllowedName | Named) or not isinstance(name, str):
            raise RefusedError("builtins.getattr")
        return self.look_up(f"{owner.name}.{name}")

    def _type_of_dill(self, name: object) -> object:
        for module in ("builtins", "collections", "types", "numpy"):
            found = self.look_up(f"{module}.{name}")
            if isinstance(found, AllowedName):
                return found
        return Named(str(name))

    def _make(self, what: object, arguments: tuple[object, ...]) -> object:
        if isinstance(what, AllowedName):
            return what.make(*arguments)
        raise RefusedError(what.name if isinstance(what, Named) else type(what).__name__)

    def _call(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], tuple(arguments))

    def _call_with_names(self) -> None:
        self.stack.pop()  # keyword arguments, which no maker takes
        self._call()

    def _instantiate(self, what: object, arguments: tuple[object, ...]) -> None:
        self.append(self._make(what, tuple(arguments)))

    def _build(self) -> None:
        """Set the state of an object: its attributes, or the contents of an array."""
        state, thing = self.stack.pop(), self.stack[-1]
        if isinstance(thing, _Array):
            self._replace(thing, thing.filled(state))
        elif isinstance(thing, _Kind):
            thing.order_by(state)
        elif isinstance(thing, _WITH_ATTRIBUTES):
            named = state[0] if isinstance(state, tuple) and len(state) == 2 else state
            if isinstance(named, dict):
                vars(thing).update({k: v for k, v in named.items() if isinstance(k, str)})
            if isinstance(thing, Inert):
                thing.arguments = (*thing.arguments, state)
        elif isinstance(thing, Named | AllowedName):
            raise RefusedError(thing.name)

    def _replace(self, old: object, new: object) -> None:
        self.stack[-1] = new
        for place, remembered in self.memo.items():
            if remembered is old:
                self.memo[place] = new

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: handler
        for code, handler in pickle._Unpickler.dispatch.items()
        if code not in (pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0])
    } | {
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.NEWOBJ_EX[0]: _call_with_names,
        pickle.BUILD[0]: _build,
    }


# NumPy arrays, built from their bytes.  NumPy's own code trusts the file's claims about memory.

_PLAIN = re.compile(r"[?biufcSU]\d*")  # dtypes of numbers and text


class _Kind:
    """A dtype as a pickle describes it."""

    def __init__(self, text: object = "", *_: object) -> None:
        self.text, self.order = text, "="  # "=" is this machine's

    def order_by(self, state: object) -> None:
        """Set the byte order from a dtype's state; structured dtypes are left unread."""
        parts = state if isinstance(state, tuple) else ()
        if len(parts) > 5 and parts[2:5] == (None, None, None) and parts[1] in ("<", ">", "|", "="):
            self.order = parts[1]
        else:
            self.text = ""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype, or None if it is not one of numbers or text."""
        text = self.text
        if isinstance(text, bytes):
            text = text.decode("ascii", "replace")
        if not isinstance(text, str) or not _PLAIN.fullmatch(text):
            return None
        found = np.dtype(text)
        return found.newbyteorder(cast(Any, self.order)) if found.itemsize else None


class _Array:
    """An array before its contents are known."""

    def __init__(self, *_: object) -> None: ...

    def filled(self, state: object) -> object:
        """Return the array that a state describes, or an inert object for an unreadable dtype."""
        if not (isinstance(state, tuple) and len(state) == 5):
            return Inert(state)
        _, shape, kind, by_columns, data = state
        return _array_of(data, kind, shape, "F" if by_columns else "C")


def _array_of(data: object, kind: object, shape: object, order: object = "C") -> object:
    dtype = kind.dtype if isinstance(kind, _Kind) else None
    if dtype is None:
        return Inert(data, shape)
    if isinstance(data, str):  # bytes as Python 2 wrote them
        data = data.encode("latin1")
    flat: NDArray[Any] = np.frombuffer(cast(bytes, data), dtype) if data else np.empty(0, dtype)
    sizes = cast(tuple[int, ...], shape)
    return flat.astype(dtype.newbyteorder("=")).reshape(sizes, order="F" if order == "F" else "C")


def _scalar(kind: object, data: object = b"") -> object:
    made = _array_of(data, kind, (1,))
    return made[0] if isinstance(made, np.ndarray) else made


# Everything else that training scripts save next to the weights


def _bytes(*arguments: object) -> bytes:
    if any(isinstance(argument, int) for argument in arguments):
        raise pickle.UnpicklingError("bytes of a given number")  # it could fill the memory
    return bytes(*cast(Any, arguments))


def _encoded(text: str, encoding: str = "utf-8", *_: object) -> bytes:
    if encoding.lower() not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise RefusedError(f"_codecs.encode({encoding!r})")
    return text.encode(encoding)


def _filled(kind: type) -> Maker:
    """Return a maker of containers that takes only contents in the file, not a range of numbers."""

    def make(*contents: object) -> object:
        if any(isinstance(one, range) for one in contents):
            raise pickle.UnpicklingError("a range instead of contents")  # of any length
        return kind(*contents)

    return make


def _fraction(*parts: object) -> object:
    text = "/".join(map(str, parts))  # an exponent would be computed in full
    return fractions.Fraction(text) if re.fullmatch(r"-?\d+(/\d+)?", text) else Inert(*parts)


def _emptied(*_: object) -> dict[object, object]:
    return {}


def _datetime(*parts: object) -> object:
    kept = [part for part in parts if not isinstance(part, Inert | Named)]  # drops a time zone
    return datetime.datetime(*cast(Any, kept))


def _path(*parts: object) -> PurePosixPath:
    return PurePosixPath(*map(str, parts))


def _old_object(kind: object, *_: object) -> object:
    """Make an object of protocols 0 and 1, `copyreg._reconstructor(class, base, state)`."""
    if not isinstance(kind, AllowedName):
        raise RefusedError(kind.name if isinstance(kind, Named) else "copyreg._reconstructor")
    return kind.make()


def _namespace(*_: object) -> argparse.Namespace:
    return argparse.Namespace()


def _attributes(*_: object) -> Attributes:
    return Attributes()


_WITH_ATTRIBUTES = (
    Inert,
    Attributes,
    argparse.Namespace,
    types.SimpleNamespace,
    collections.OrderedDict,
    collections.Counter,
)

_MAPPINGS = (
    "easydict.EasyDict",
    "addict.addict.Dict",
    "munch.Munch",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)
"""Mappings of configuration libraries."""

_NUMPY: dict[str, Maker] = {
    "multiarray._reconstruct": _Array,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _array_of,
}

_VALUES_OF: tuple[type, ...] = (bool, complex, float, int, range, slice, str)
_CONTAINERS: tuple[type, ...] = (dict, frozenset, list, set, tuple)
_COLLECTIONS: tuple[type, ...] = (
    collections.OrderedDict,
    collections.Counter,
    collections.deque,
)
_VALUES: dict[str, object] = {"builtins.Ellipsis": ..., "builtins.NotImplemented": NotImplemented}

_MAKERS: dict[str, Maker] = {
    **{f"builtins.{kind.__name__}": kind for kind in _VALUES_OF},
    **{f"builtins.{kind.__name__}": _filled(kind) for kind in _CONTAINERS},
    **{f"collections.{kind.__name__}": _filled(kind) for kind in _COLLECTIONS},
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.object": Inert,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _old_object,
    "collections.defaultdict": _emptied,  # its default factory is never called
    "argparse.Namespace": _namespace,
    "types.SimpleNamespace": types.SimpleNamespace,
    "datetime.datetime": _datetime,
    **{
        f"datetime.{kind.__name__}": kind
        for kind in (datetime.date, datetime.time, datetime.timedelta, datetime.timezone)
    },
    "decimal.Decimal": decimal.Decimal,
    "fractions.Fraction": _fraction,
    **{
        f"{module}.{name}": _path
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    "numpy.dtype": _Kind,
    **{
        f"numpy.{core}.{name}": maker
        for core in ("core", "_core")
        for name, maker in _NUMPY.items()
    },
    **dict.fromkeys(_MAPPINGS, _attributes),
}

_INERT = (
    "numpy.random.",
    "numpy.ma.",
    "numpy.dtypes.",
    "random.Random",
    "torch._C.Generator",
    "collections.ChainMap",
    "collections.UserDict",
    "collections.UserList",
    "functools.partial",
    "ipaddress.",
    "logging.getLogger",
    "re._compile",
    "uuid.UUID",
    "zoneinfo.ZoneInfo",
    "pytz.",
    "omegaconf.",
    "mmengine.logging.history_buffer.HistoryBuffer",
)
"""Prefixes of names whose objects are kept only as contents: generators, configurations.

None of their code is imported or called.
"""
