"""torch's default dtype and device: float32 and CPU for attacks, the caller's for the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Defaults:
    dtype: torch.dtype
    device: torch.device


_PLAIN = _Defaults(torch.float32, torch.device("cpu"))
_callers: ContextVar[_Defaults | None] = ContextVar("_callers", default=None)


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Make float32 and the CPU the defaults within the block, and restore the caller's.

    Attacks (ours, a package's or a plug-in's) create tensors without naming a dtype.
    """
    own = _Defaults(torch.get_default_dtype(), torch.get_default_device())
    if own == _PLAIN:
        yield
        return
    token = _callers.set(own)
    try:
        with _set_defaults(_PLAIN):
            yield
    finally:
        _callers.reset(token)


def are_plain() -> bool:
    """Return whether the caller's defaults are those of torch, so a model call needs no switch."""
    return _callers.get() is None


@contextmanager
def callers_defaults() -> Iterator[None]:
    """Use the caller's defaults for a call of the model, inside `plain_defaults`."""
    own = _callers.get()
    if own is None:
        yield
        return
    with _set_defaults(own):
        yield


@contextmanager
def _set_defaults(defaults: _Defaults) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(defaults.dtype)
    try:
        with torch.device(defaults.device):
            yield
    finally:
        torch.set_default_dtype(before)
