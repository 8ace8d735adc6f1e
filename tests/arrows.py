"""The shape arrows of docstrings, compared with the arguments and results of functions.

A docstring has an arrow such as `(B, C, H, W) in [0, 1], (B,) labels -> (B,) bool`.  Within
`watched()`, each call of such a function of satbench is compared with its arrow: a letter means the
same number everywhere in one call, and type and range are checked if they are named.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch

_SENTENCE_ENDS = re.compile(r"[.;:](?=\s|$)")
_GROUP = re.compile(
    r"(?<![\w)\]])\((?P<dims>[^()]*)\)"
    r"(?P<twice> twice)?(?P<range> in \[0, 1[\])])?"
    r"(?:[\w ]* (?P<dtype>bool|int64|float32|float64)\b)?"
)
_SYMBOL, _NUMBER = re.compile(r"[A-Za-z]\w*'?"), re.compile(r"\d+")
_KINDS = (torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class Shape:
    """One group of an arrow: `(B, 3, H / 2, …)`, with its type and range."""

    dims: tuple[str, ...]
    dtype: str = ""
    within: bool = False

    def __str__(self) -> str:
        return f"({', '.join(self.dims)}){' ' + self.dtype if self.dtype else ''}"


@dataclass(frozen=True)
class Arrow:
    """The shapes of a docstring for arguments and results."""

    given: tuple[Shape, ...]
    returned: tuple[Shape, ...]


def read_arrow(text: str | None) -> Arrow | None:
    """Read the first arrow to a shape in a docstring; None if there is none."""
    words = re.sub(r"\s+", " ", text or "").replace("...", "…")
    found = re.search(r"-> (?=\()", words)
    if not found:
        return None
    given = _SENTENCE_ENDS.split(words[: found.start()])[-1]
    returned = _SENTENCE_ENDS.split(words[found.end() :])[0]
    return Arrow(tuple(_shapes(given)), tuple(_shapes(returned)))


def _shapes(text: str) -> list[Shape]:
    shapes = []
    for found in _GROUP.finditer(text):
        dims = tuple(dim.strip() for dim in found["dims"].split(",") if dim.strip())
        one = Shape(dims, found["dtype"] or "", bool(found["range"]))
        shapes += [one] * (2 if found["twice"] else 1)
    return shapes


@dataclass
class Watch:
    """The result: how often each function was compared, and the calls that did not fit."""

    compared: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def watched(package: str = "satbench") -> Iterator[Watch]:
    """Compare every call of a function that has an arrow, in this thread, with its arrow."""
    watch, open_calls = Watch(), dict[FrameType, tuple[Arrow, dict[str, int]]]()

    def look(frame: FrameType, event: str, value: Any) -> None:
        if event == "call":
            arrow = _arrow_of(frame.f_code)
            if arrow and frame.f_globals.get("__name__", "").startswith(package):
                known: dict[str, int] = {}
                _compare(watch, frame, arrow.given, _tensors_of(_arguments(frame)), known)
                open_calls[frame] = (arrow, known)
        elif event == "return" and frame in open_calls:
            arrow, known = open_calls.pop(frame)
            if value is not None:  # as where it raises
                values = _tensors_of(value if isinstance(value, tuple) else [value])
                _compare(watch, frame, arrow.returned, values, known)
                watch.compared[_name(frame)] += 1

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield watch
    finally:
        sys.setprofile(before)


@cache
def _arrow_of(code: CodeType) -> Arrow | None:
    first = code.co_consts[0] if code.co_consts else None
    return read_arrow(first) if isinstance(first, str) else None


def _arguments(frame: FrameType) -> list[object]:
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [frame.f_locals[name] for name in names if name in frame.f_locals]


def _tensors_of(values: Sequence[object]) -> list[Any]:
    """Return the tensors, and the shapes that are given as tuples of numbers."""
    return [
        value
        for value in values
        if isinstance(value, _KINDS)
        or (isinstance(value, tuple) and value and all(type(one) is int for one in value))
    ]


def _compare(
    watch: Watch,
    frame: FrameType,
    shapes: Sequence[Shape],
    values: list[Any],
    known: dict[str, int],
) -> None:
    for shape, value in zip(shapes, values, strict=False):
        if not _fits(shape, value, known):
            got = f"{tuple(getattr(value, 'shape', value))} {getattr(value, 'dtype', '')}"
            watch.wrong.append(f"{_name(frame)}: expected {shape} with {known}, got {got}")


def _fits(shape: Shape, value: Any, known: dict[str, int]) -> bool:
    sizes, dims = list(getattr(value, "shape", value)), list(shape.dims)
    if "…" in dims:
        place = dims.index("…")
        behind = len(dims) - place - 1
        if len(sizes) < len(dims) - 1:
            return False
        dims.remove("…")
        sizes = sizes[:place] + (sizes[-behind:] if behind else [])
    if len(sizes) != len(dims):
        return False
    for dim, size in zip(dims, sizes, strict=True):
        if _NUMBER.fullmatch(dim) and int(dim) != size:
            return False
        if _SYMBOL.fullmatch(dim) and known.setdefault(dim, size) != size:
            return False
    if shape.dtype and str(getattr(value, "dtype", shape.dtype)).split(".")[-1] != shape.dtype:
        return False
    if not shape.within or not isinstance(value, _KINDS) or 0 in value.shape:
        return True
    held = value.detach() if isinstance(value, torch.Tensor) else value
    return bool(held.min() >= 0) and bool(held.max() <= 1)


def _name(frame: FrameType) -> str:
    module = frame.f_globals["__name__"].removeprefix("satbench.")
    return f"{module}:{frame.f_code.co_qualname}"
