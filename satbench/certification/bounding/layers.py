"""The linear operation or activation of each known layer."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.certification.bounding.operations import (
    Affine,
    Convolution,
    Matrix,
    Mean,
    Pooling,
    Rearrangement,
    Scaling,
    batch_norm,
)
from satbench.certification.bounding.shapes import ActivationShape, shape_of
from satbench.core.errors import SatbenchError
from satbench.engine.fast_copy import is_bare
from satbench.networks.cifar_resnet import OptionA
from satbench.networks.normalize import Normalize
from satbench.networks.same_padding import SamePad


class UnknownLayerError(SatbenchError):
    """A network has a layer without known bounds."""

    def __init__(self, name: str, title: str) -> None:
        super().__init__(
            "expected a network of convolutions, linear layers, batch-norms, sums, average "
            f"pooling, paddings and known activations, got {title} at {name}: no bounds of it are "
            "known here"
        )


Layer = Affine | ActivationShape | Literal["same"]
"""`same` is a layer that changes nothing in eval mode."""

_SUMS = {operator.add: 1, operator.iadd: 1, torch.add: 1, "add": 1, "add_": 1}
_DIFFERENCES = {operator.sub: -1, operator.isub: -1, torch.sub: -1, "sub": -1}


def sum_of(target: object) -> tuple[int, int] | None:
    """Return the signs of two operands if `target` adds or subtracts the second."""
    sign = _SUMS.get(target) or _DIFFERENCES.get(target)
    return (1, sign) if sign else None


def layer_of(
    target: object, args: tuple[Any, ...], kwargs: dict[str, Any], moving: int, value: Tensor
) -> Layer | None:
    """Return the operation of a module or function on the one argument that depends on the image.

    That argument is `args[moving]`, (1, …), and `value` is the result; None for an unknown
    operation.
    """
    x: Tensor = args[moving]
    if isinstance(target, nn.Module):
        # A hook may change the output, and a layer may not be in the mode that was set.
        plain = is_bare(target) and not target.training and len(args) == 1 and not kwargs
        return _module(target, x, value) if plain else None
    if moving == 0 and target in _SELECTIONS:
        if target is F.pad and not _pads_zeros(args, kwargs):
            return None
        return _selection(target, args, kwargs, x, value)
    if moving == 0 and target in _ACTIVATIONS:
        kwargs = {name: one for name, one in kwargs.items() if name != "inplace"}
        return shape_of(_ACTIVATIONS[target](*args[1:], **kwargs))
    if moving == 0 and target in (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean"):
        return _pool(target, args, kwargs, x, value)
    if target is F.linear and moving == 0 and not kwargs:
        return _matrix(x, args[1], args[2] if len(args) > 2 else None)
    return _with_constant(target, args, kwargs, moving)


def _module(module: Any, x: Tensor, value: Tensor) -> Layer | None:
    kind = type(module)
    if kind is nn.Conv2d:
        return _convolution(module, x, value)
    if kind is nn.Linear:
        return Matrix(module) if x.dim() == 2 else None
    if kind is nn.BatchNorm2d:
        if module.running_mean is None or module.running_var is None:
            return None
        return batch_norm(module, module.running_mean, module.running_var)
    if kind is Normalize:
        shift = -module.mean / module.std
        return Scaling(1 / module.std, shift, shift.abs())
    if kind in (nn.Identity, nn.Dropout, nn.Dropout2d) or _drops_paths(kind):
        return "same"
    if kind is nn.Sequential and not len(module):
        return "same"
    if kind in (nn.Flatten, SamePad, OptionA):
        return _selection(module, (x,), {}, x, value)
    if kind is nn.AdaptiveAvgPool2d:
        return _windows(x, value)
    if kind is nn.AvgPool2d:
        return _windows(x, value) if _tiles(module) else None
    return shape_of(module)


def _drops_paths(kind: type) -> bool:
    # Importing torchvision takes a second.  A network that uses it has imported it.
    ops = sys.modules.get("torchvision.ops")
    return ops is not None and kind is ops.StochasticDepth


def _matrix(x: Tensor, weight: Tensor, bias: Tensor | None) -> Matrix | None:
    if x.dim() != 2 or weight.dim() != 2:
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None).requires_grad_(False)
    layer.weight.data = weight.detach()
    if bias is not None:
        layer.bias.data = bias.detach()
    return Matrix(layer)


def _convolution(module: nn.Conv2d, x: Tensor, value: Tensor) -> Convolution | None:
    if module.padding_mode != "zeros":
        return None
    padding = module.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if padding == "same" and any(one % 2 for one in reach):
            return None  # the far sides get more padding
        padding = tuple(one // 2 for one in reach) if padding == "same" else (0, 0)
    sizes = (int(padding[0]), int(padding[1]))
    return Convolution(module, sizes, tuple(x.shape[1:]), tuple(value.shape[1:]))


def _tiles(module: nn.AvgPool2d) -> bool:
    def pair(size: Any) -> tuple[int, int]:
        return (size, size) if isinstance(size, int) else tuple(size)

    plain = pair(module.padding) == (0, 0) and not module.divisor_override
    return plain and pair(module.stride or module.kernel_size) == pair(module.kernel_size)


def _windows(x: Tensor, value: Tensor) -> Affine | None:
    """Return the pooling from (1, C, H, W) to (1, C, H', W') if its windows tile the image."""
    if x.dim() != 4 or value.dim() != 4:
        return None
    inputs = tuple(x.shape[1:])
    if value.shape[2:] == (1, 1):
        return Mean(inputs, tuple(value.shape[1:]))
    sides = list(zip(x.shape[2:], value.shape[2:], strict=True))
    if any(n % m for n, m in sides):
        return None
    return Pooling((sides[0][0] // sides[0][1], sides[1][0] // sides[1][1]), inputs)


def _pool(
    target: object, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor, value: Tensor
) -> Affine | None:
    if target is F.adaptive_avg_pool2d:
        return _windows(x, value)
    if target is F.avg_pool2d:
        module = nn.AvgPool2d(*args[1:], **kwargs)
        return _windows(x, value) if _tiles(module) else None
    given = kwargs.get("dim", args[1] if len(args) > 1 else ())
    dims = {given} if isinstance(given, int) else set(given)
    if x.dim() != 4 or {dim % 4 for dim in dims} != {2, 3}:
        return None
    return Mean(tuple(x.shape[1:]), tuple(value.shape[1:]))


_SELECTIONS: set[object] = {
    torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze,
    F.pad, operator.getitem, "flatten", "reshape", "view", "permute", "transpose", "squeeze",
    "unsqueeze", "contiguous",
}  # fmt: skip


def _pads_zeros(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
    filled = kwargs.get("value", args[3] if len(args) > 3 else None)
    return mode == "constant" and not filled


def _selection(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor, value: Tensor
) -> Rearrangement:
    """Find the origin of each output, by using every input's place as its value."""
    places = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device).view_as(x)
    if isinstance(target, str):
        moved = getattr(places, target)(*args[1:], **kwargs)
    else:
        moved = target(places, *args[1:], **kwargs)
    index = moved.flatten().long() - 1
    inputs, outputs = tuple(x.shape[1:]), tuple(value.shape[1:])
    kept = torch.equal(index, torch.arange(prod(inputs), device=x.device))
    return Rearrangement(None if kept else index, inputs, outputs)


_ACTIVATIONS: dict[object, Callable[..., nn.Module]] = {
    F.relu: nn.ReLU, torch.relu: nn.ReLU, "relu": nn.ReLU, F.leaky_relu: nn.LeakyReLU,
    F.silu: nn.SiLU, F.gelu: nn.GELU, F.mish: nn.Mish, F.softplus: nn.Softplus, F.elu: nn.ELU,
    F.celu: nn.CELU,
}  # fmt: skip


def _with_constant(
    target: object, args: tuple[Any, ...], kwargs: dict[str, Any], moving: int
) -> Affine | None:
    """Return the arithmetic of a value that depends on the image and one that does not."""
    if len(args) != 2 or kwargs:
        return None
    x, other = args[moving], args[1 - moving]
    if target in (operator.matmul, torch.matmul, "matmul") and moving == 0:
        return _matrix(x, other.T, None)
    if not isinstance(other, int | float | Tensor):
        return None
    constant = torch.as_tensor(other, dtype=x.dtype, device=x.device)
    if constant.dim() == x.dim():
        if len(constant) != 1:
            return None
        constant = constant[0]
    if (constant + x[0]).shape != x.shape[1:]:
        return None
    one = torch.ones((), dtype=x.dtype, device=x.device)
    if (signs := sum_of(target)) is not None:
        if moving == 0:
            return Scaling(one, signs[1] * constant, constant.abs())
        return Scaling(signs[1] * one, constant, constant.abs())
    if target in (operator.mul, operator.imul, torch.mul, "mul"):
        return Scaling(constant)
    if moving == 0 and target in (operator.truediv, torch.div, "div"):
        return Scaling(1 / constant)
    return None
