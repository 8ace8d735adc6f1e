"""The FLOPs of a pass, counted by torch's own formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from satbench.calling.borrow import save_generators
from satbench.engine.passes import CountingModel, Passes


@dataclass(frozen=True)
class PassFlops:
    """The FLOPs of a forward and of an input-gradient backward of one image.

    A multiplication with an addition counts as two; only products and convolutions count.
    """

    forward: int
    backward: int

    def of(self, forwards: float, backwards: float) -> float:
        """Return the FLOPs of so many passes."""
        return self.forward * forwards + self.backward * backwards


def pass_flops(model: nn.Module, x: Tensor) -> PassFlops | None:
    """Count the FLOPs of passes of the image `x`, (1, C, H, W); None where they cannot be counted.

    `model` is in eval mode, with frozen parameters; the generators come back as they were.  It
    costs a forward and a backward.

    >>> import torch
    >>> pass_flops(torch.nn.Flatten().eval(), torch.zeros(1, 1, 2, 2)) is None
    True
    """
    restore = save_generators()
    try:
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            with _Counted() as forward:
                logits = CountingModel(model, Passes())(leaf)
            with _Counted() as backward:
                torch.autograd.grad(logits.sum(), leaf)
    except Exception:  # an error of a user's code, or of an unknown operator
        return None
    finally:
        restore()
    return PassFlops(forward.flops, backward.flops) if forward.flops else None


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of the operators in the block, by torch's own formulas.

    torch's `FlopCounterMode` imports torch's compiler, which takes a second of CPU time, and tracks
    modules too.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps the method below in code that imports the compiler

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result
