"""A replaced backward for activations: the operator of the SAT paper, used by an attacker.

Xie et al., 2020 (arXiv:2006.14536, section 3.2) train with ReLU forward and the gradient of
parametric softplus backward.  Here the attacker does so.  The forward pass stays the model's own,
while every activation returns the gradient of softplus, σ(αx), which neither vanishes nor changes
sign.  If a model's own gradients mislead, these often do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_SPEC_FLOAT
from satbench.core.specs import show_float

# The activations whose backward is replaced, as torch's modules and users' code call them.  Any
# other function that dispatches to modes can declare itself with the attribute `is_activation`.
_ACTIVATIONS: frozenset[Callable[..., Any]] = frozenset(
    {
        F.relu,
        F.relu_,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
        F.relu6,
        F.leaky_relu,
        F.leaky_relu_,
        F.rrelu,
        F.silu,
        F.gelu,
        F.mish,
        F.elu,
        F.elu_,
        F.celu,
        F.celu_,
        F.selu,
        F.selu_,
        F.softplus,
        F.hardswish,
    }
)

_SOFTPLUS = re.compile(r"^softplus\((?P<alpha>[^)]+)\)$")


@dataclass(frozen=True)
class Backward:
    """Which gradient an attack uses: the model's own, or that of `softplus(alpha)` at activations.

    `alpha` is None for the model's own.  It is written `true` or `softplus(10)`.
    """

    alpha: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `true` or `softplus(10)`.  Raises SatbenchError for anything else."""
        compact = text.replace(" ", "")
        if compact == "true":
            return cls()
        form = _SOFTPLUS.match(compact)
        try:
            alpha = float(form["alpha"]) if form else 0.0
        except ValueError:
            alpha = 0.0
        if not 0 < alpha <= MOST_SPEC_FLOAT:
            raise SatbenchError(
                f"expected backward=true or backward=softplus(10), got {text[:40]!r}"
            )
        return cls(alpha)

    def __str__(self) -> str:
        return "true" if self.alpha is None else f"softplus({show_float(self.alpha)})"

    def applied(self) -> AbstractContextManager[object]:
        """Return a context in which forward passes of any model have this backward."""
        return nullcontext() if self.alpha is None else _SmoothBackward(self.alpha)


_applied: list[float] = []
"""The alphas of the open contexts, the innermost last."""


class OpenContexts:
    """The contexts that are open now, for a forward that is recomputed later.

    It can be entered several times, for example when a gradient is computed twice.
    """

    def __init__(self) -> None:
        self._alphas = tuple(_applied)
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        entered = ExitStack()
        for alpha in self._alphas:
            entered.enter_context(_SmoothBackward(alpha))
        self._entered.append(entered)

    def __exit__(self, *error: object) -> None:
        self._entered.pop().close()


class _SmoothBackward(TorchFunctionMode):
    """Replaces calls of activations: the same values, and the gradient of softplus."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self._alpha = alpha

    def __enter__(self) -> Self:
        _applied.append(self._alpha)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _applied.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not (_is_activation(func, args, kwargs) and torch.is_grad_enabled()):
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        if not x.requires_grad:
            return func(*args, **kwargs)
        with torch.no_grad():
            # On a copy: an in-place activation would overwrite a tensor that the model still needs.
            value = func(x.detach().clone(), *args[1:], **kwargs)
        return _SoftplusGradient.apply(x, value, self._alpha)


def _is_activation(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func in (F.hardtanh, F.hardtanh_):  # nn.ReLU6 calls these with a minimum of 0
        return bool((args[1] if len(args) > 1 else kwargs.get("min_val", -1)) == 0)
    return func in _ACTIVATIONS or getattr(func, "is_activation", False)


class _SoftplusGradient(torch.autograd.Function):
    """The given value forward, σ(αx) backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return grad * torch.sigmoid(ctx.alpha * x), None, None
