"""torch's default dtype and device: plain for our code, the caller's own for the caller's model."""

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
    """Make float32 and the CPU the defaults for a while; the caller's come back as they were.

    Attacks, ours, a package's or a plug-in's, draw and build tensors without saying of which dtype.
    """
    own = _Defaults(torch.get_default_dtype(), torch.get_default_device())
    if own == _PLAIN:
        yield
        return
    token = _callers.set(own)
    try:
        with _in_force(_PLAIN):
            yield
    finally:
        _callers.reset(token)


def are_plain() -> bool:
    """Say whether the caller's defaults are those of torch, so that none need to be put back."""
    return _callers.get() is None


@contextmanager
def callers_defaults() -> Iterator[None]:
    """Put the caller's defaults in force within `plain_defaults`: for a call of the model."""
    own = _callers.get()
    if own is None:
        yield
        return
    with _in_force(own):
        yield


@contextmanager
def _in_force(defaults: _Defaults) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(defaults.dtype)
    try:
        with torch.device(defaults.device):
            yield
    finally:
        torch.set_default_dtype(before)
