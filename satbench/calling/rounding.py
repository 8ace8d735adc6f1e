"""Rounding: how far two answers to one image may differ and count as the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from satbench.calling.eager import uncompiled
from satbench.calling.logits import MASKED_LOGIT

FLOAT32 = torch.finfo(torch.float32).eps

SAME = 1e-4
"""The relative difference up to which two float32 answers to an image count as the same.

AutoAttack uses the same number to detect random answers (Croce & Hein, 2020, arXiv:2003.01690;
`checks.py` of its code).  On a CPU, other batch sizes changed the logits of five shipped networks
and of six torchvision networks by at most 1.3e-6.
"""

_BEST = 5  # the best logits give an image's scale, because most other classes may be masked
_UNITS = 8  # units of rounding that another batch size may change in a coarser dtype


def relative_difference(logits: Tensor, others: Tensor) -> Tensor:
    """Return the relative difference of two answers to the same images.  (B, K) twice -> (B,).

    A logit's difference is divided by the logit's size or that of the image's best logits,
    whichever is larger.
    """
    best = logits.topk(min(_BEST, logits.shape[1]), 1).values
    typical = torch.where(best > MASKED_LOGIT, best, 0).abs().amax(1, keepdim=True)
    size = torch.maximum(logits.abs(), typical).clamp_min(torch.finfo(torch.float32).tiny)
    return ((logits - others).abs() / size).amax(1)


def same_up_to(rounding: float) -> float:
    """Return the relative difference up to which answers count as the same, for this rounding."""
    return SAME if rounding <= FLOAT32 else max(SAME, _UNITS * rounding)


def rounding_of(model: Callable[[Tensor], object], x: Tensor) -> float:
    """Return the relative rounding of the coarsest floating dtype in a forward of `x`.

    It is 1.2e-7 for float32, 9.8e-4 for float16 and 7.8e-3 for bfloat16.  `x` is (B, C, H, W).
    If the forward cannot be watched, the rounding of float32 is returned.
    """
    # A function mode sees nothing inside TorchScript; a dispatch mode does, but takes seconds to
    # import.
    scripted = isinstance(model, nn.Module) and any(
        isinstance(module, torch.jit.ScriptModule) for module in model.modules()
    )
    watch = _OperatorWatch() if scripted else _FunctionWatch()
    try:
        with torch.no_grad(), uncompiled(), watch:
            model(x.clone())
    except Exception:  # a model that does not work under a mode
        return FLOAT32
    return max([FLOAT32, *(torch.finfo(dtype).eps for dtype in watch.dtypes)])


class _FunctionWatch(TorchFunctionMode):
    """Notes the floating dtypes of the tensors that torch functions return."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        made = (one for one in tree_leaves(answer) if isinstance(one, Tensor))
        self.dtypes |= {one.dtype for one in made if one.is_floating_point()}
        return answer


class _OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the floating dtypes of the tensors that torch operators return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        made = (one for one in tree_leaves(answer) if isinstance(one, Tensor))
        self.dtypes |= {one.dtype for one in made if one.is_floating_point()}
        return answer
