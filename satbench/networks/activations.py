"""The activations: each has a formula, its parameters and its source.

An entry is a frozen dataclass; a call makes one module, so that every site of a network has its own
instance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from satbench.core.errors import SatbenchError


@dataclass(frozen=True)
class ReLU:
    """max(0, x)."""

    def __call__(self) -> nn.Module:
        return nn.ReLU()


@dataclass(frozen=True)
class SiLU:
    """x σ(x), also called Swish (Ramachandran et al., 2017, arXiv:1710.05941)."""

    def __call__(self) -> nn.Module:
        return nn.SiLU()


@dataclass(frozen=True)
class GELU:
    """x Φ(x) (Hendrycks & Gimpel, 2016, arXiv:1606.08415).

    The SAT paper prints x Φ(x); its code computes the tanh form, which is the default here.
    """

    approximate: Literal["tanh", "none"] = "tanh"

    def __call__(self) -> nn.Module:
        return nn.GELU(approximate=self.approximate)


@dataclass(frozen=True)
class ParametricSoftplus:
    """(1/α) log(1 + exp(αx)), α = 10 (Xie et al., 2020, arXiv:2006.14536, section 3.2)."""

    alpha: float = 10.0

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise SatbenchError(f"parametric-softplus: expected alpha above 0, got {self.alpha:g}")

    def __call__(self) -> nn.Module:
        # Above αx = 20 the value is x to float32 precision; torch then returns x itself.
        return nn.Softplus(beta=self.alpha, threshold=20)


@dataclass(frozen=True)
class Softplus:
    """log(1 + exp(x)); slope σ(x) (Xie et al., 2020, arXiv:2006.14536, section 4.1)."""

    def __call__(self) -> nn.Module:
        return nn.Softplus()


@dataclass(frozen=True)
class ELU:
    """x, and α (exp(x) - 1) below 0; slope 1, and α exp(x).

    Clevert et al., 2015, arXiv:1511.07289.  Its slope jumps by 1 - α at 0: it is smooth only for α
    = 1, the α of Xie et al., 2020, arXiv:2006.14536, section 4.1; section 4.3 varies it.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _expect_positive("elu", "alpha", self.alpha)

    def __call__(self) -> nn.Module:
        return nn.ELU(self.alpha)


@dataclass(frozen=True)
class CELU:
    """x, and α (exp(x/α) - 1) below 0; slope 1, and exp(x/α) (Barron, 2017, arXiv:1704.07483).

    Smooth at 0 for every α, and ELU at α = 1 (Xie et al., 2020, arXiv:2006.14536, section 4.3).
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _expect_positive("celu", "alpha", self.alpha)

    def __call__(self) -> nn.Module:
        return nn.CELU(self.alpha)


@dataclass(frozen=True)
class SmoothReLU:
    """x - log(1 + αx)/α, and 0 below 0; slope αx/(1 + αx), and 0.

    Xie et al., 2020, arXiv:2006.14536, section 4.2.  As in the paper's code, α is b², and b is
    trained, one number per site, starting at 20 (α = 400).  With `trainable=false` α is fixed.
    """

    alpha: float = 400.0
    trainable: bool = True

    def __post_init__(self) -> None:
        _expect_positive("smooth-relu", "alpha", self.alpha)

    def __call__(self) -> nn.Module:
        return SmoothReLUModule(self.alpha, self.trainable)


@dataclass(frozen=True)
class Mish:
    """x tanh(s), s = log(1 + exp(x)); slope tanh(s) + x σ(x) (1 - tanh²(s)).

    Misra, 2019, arXiv:1908.08681.  It is in the SAT paper's code, but not in its tables.
    """

    def __call__(self) -> nn.Module:
        return nn.Mish()


@dataclass(frozen=True)
class LeakyReLU:
    """x, and `slope` · x below 0; slope 1, and `slope` (Maas et al., 2013).

    Not smooth, but of low curvature: the control of Singla et al., 2021, arXiv:2102.07861.  The
    default of 0.2 is that of their code.
    """

    slope: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.slope < 1:
            raise SatbenchError(f"leaky-relu: expected a slope in [0, 1), got {self.slope:g}")

    def __call__(self) -> nn.Module:
        return nn.LeakyReLU(self.slope)


@dataclass(frozen=True)
class PSSiLU:
    """x (σ(|a|x) - |b|) / (1 - |b|); slope (σ + |a|x σ(1 - σ) - |b|) / (1 - |b|), σ = σ(|a|x).

    Dai et al., 2021, arXiv:2110.05626: a and b are trained, starting at 1 and 10⁻⁸, and all sites
    of a network share them, so a network has two more parameters.  An instance is therefore for one
    network; `build_activation` makes a new one each time.
    """

    _shared: list[nn.Parameter] = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(self) -> nn.Module:
        if not self._shared:
            self._shared.extend(nn.Parameter(torch.full((1,), value)) for value in (1.0, 1e-8))
        return PSSiLUModule(*self._shared)


class SmoothReLUModule(nn.Module):
    """SmoothReLU with α = b²; `b` (1,) is a parameter, or a buffer if fixed."""

    b: Tensor

    def __init__(self, alpha: float, trainable: bool) -> None:
        super().__init__()
        b = torch.full((1,), math.sqrt(alpha))
        if trainable:
            self.b = nn.Parameter(b)
        else:
            self.register_buffer("b", b)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element, in the shape and type of `x`."""
        return smooth_relu(x, self.b)

    def extra_repr(self) -> str:
        """Show α."""
        return "" if self.b.is_meta else f"alpha={self.b.item() ** 2:g}"


class PSSiLUModule(nn.Module):
    """PSSiLU with parameters `a` and `b` of the shape (1,), which other sites may share."""

    def __init__(self, a: nn.Parameter, b: nn.Parameter) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element, in the shape and type of `x`."""
        return pssilu(x, self.a, self.b)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not keep_vars:  # safetensors refuses entries that share memory
            for name in ("a", "b"):
                destination[prefix + name] = destination[prefix + name].clone()


def activation_function(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make calls of `function(x, *parameters)` visible to torch function modes, like F.relu.

    The mark `is_activation` says that it is an activation.  For example, the attacks' softplus
    backward replaces its gradient.
    """

    @functools.wraps(function)
    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        if has_torch_function((x, *parameters)):
            seen: Tensor = handle_torch_function(call, (x, *parameters), x, *parameters)
            return seen
        return function(x, *parameters)

    vars(call)["is_activation"] = True
    return call


@activation_function
def smooth_relu(x: Tensor, b: Tensor) -> Tensor:
    """Return x - log(1 + b²x)/b² for x > 0, else 0, in the type of `x`.

    Half precision is computed in float32.
    """
    # TorchScript cannot store a Python function.
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return _SmoothReLU.forward(x, b)
    value: Tensor = _SmoothReLU.apply(x, b)
    return value


@activation_function
def pssilu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return x (σ(|a|x) - |b|) / (1 - |b|), in the type of `x`.

    Half precision is computed in float32.
    """
    kind = _computed_in(x)
    wide, a, b = x.to(kind), a.to(kind).abs(), b.to(kind).abs()
    return (wide * (torch.sigmoid(a * wide) - b) / (1 - b)).to(x.dtype)


class _SmoothReLU(torch.autograd.Function):
    """SmoothReLU with its slope as αx/(1 + αx), where autograd would compute 1 - 1/(1 + αx)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, b: Tensor) -> Tensor:
        alpha = _alpha(b, x)
        positive = x.to(alpha.dtype).clamp_min(0)
        return (positive - torch.log1p(alpha * positive) / alpha).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, b_tangent: Tensor | None) -> Tensor:
        x, b = ctx.saved_tensors
        alpha = _alpha(b, x)
        scaled = alpha * x.to(alpha.dtype).clamp_min(0)
        slope = scaled / (1 + scaled)
        moved = torch.zeros_like(scaled)
        if x_tangent is not None:
            moved = moved + slope * x_tangent
        if b_tangent is not None:
            moved = moved + 2 * b * b_tangent * (torch.log1p(scaled) - slope) / alpha.square()
        return moved.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, b = ctx.saved_tensors
        alpha = _alpha(b, x)
        wide = grad.to(alpha.dtype)
        scaled = alpha * x.to(alpha.dtype).clamp_min(0)
        slope = scaled / (1 + scaled)
        grad_x = (wide * slope).to(x.dtype) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None
        # df/dα = log(1 + αx)/α² - x/(α(1 + αx)), and dα/db = 2b
        grad_alpha = (wide * (torch.log1p(scaled) - slope)).sum() / alpha.square()
        return grad_x, (2 * b * grad_alpha).to(b.dtype)


def _alpha(b: Tensor, x: Tensor) -> Tensor:
    """Return b², but not 0: the formula divides by it, although its limit there is 0."""
    return b.to(_computed_in(x)).square().clamp_min(1e-6)


def _computed_in(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _expect_positive(name: str, parameter: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise SatbenchError(f"{name}: expected {parameter} above 0 and finite, got {value:g}")
