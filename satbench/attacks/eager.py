"""Compiled models, run as they are written, for what cannot look into compiled code."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch


def uncompiled() -> AbstractContextManager[object]:
    """Return a context in which what torch.compile made runs without its compiler."""
    if "torch._dynamo" not in sys.modules:  # importing it takes seconds, and nothing is compiled
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
