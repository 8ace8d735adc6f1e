"""Compiled models (torch.compile) run without their compiler.

There are three reasons.  Attacks take two gradients of one forward, which compiled code does not
allow.  Their batches shrink, and each new size would compile the model again.  Code that watches a
forward, such as a hook, cannot see inside compiled code.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch


def uncompiled() -> AbstractContextManager[object]:
    """Return a context in which compiled models run uncompiled."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and the import takes seconds
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
