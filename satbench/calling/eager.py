"""Compiled models, run as they are written.

Attacks take two gradients of one forward, which compiled code does not allow; their batches shrink,
which would compile it again and again; and what watches a forward cannot look into it.
"""

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
