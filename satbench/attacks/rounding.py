"""How coarsely a model computes: what of a difference between two answers is mere rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FLOAT32 = torch.finfo(torch.float32).eps


def rounding_of(model: Callable[[Tensor], object], x: Tensor) -> float:
    """Return the relative rounding of the coarsest floating dtype that a forward goes through.

    It is 1.2e-7 for float32, 9.8e-4 for float16 and 7.8e-3 for bfloat16, wherever the model casts;
    float32's where the forward of `x`, (B, C, H, W), cannot be watched.
    """
    watch = _Watch()
    try:
        with torch.no_grad(), watch:
            model(x.clone())
    except Exception:  # a compiled model, a user's own mode: whatever does not bear being watched
        return FLOAT32
    return max([FLOAT32, *(torch.finfo(dtype).eps for dtype in watch.dtypes)])


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the floating dtypes of what operators return."""

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
