"""The linear operations of a network, each with its transpose and with |W| instead of W.

Each works on rows of one shape.  Weights are read from the modules at each use, so that bounds
follow weights that are being trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Affine(Protocol):
    """y = W x + b for one image; `terms` is the largest number of products in one sum.

    The sums are those of `apply` and of `transpose`.
    """

    @property
    def terms(self) -> int:
        """The largest number of products in one sum; 0 if values are only moved."""
        ...

    def apply(self, x: Tensor) -> Tensor:
        """Return W x.  (B, inputs) -> (B, outputs)."""
        ...

    def apply_abs(self, x: Tensor) -> Tensor:
        """Return |W| x.  (B, inputs) -> (B, outputs)."""
        ...

    def transpose(self, a: Tensor) -> Tensor:
        """Return a W.  (R, outputs) -> (R, inputs)."""
        ...

    def offset(self) -> Tensor | None:
        """Return b, which broadcasts with one output; None if there is none."""
        ...

    def offset_size(self) -> Tensor | None:
        """Return a bound on |b| and on the numbers it is computed from; None if there is none."""
        ...


@dataclass(frozen=True)
class Convolution:
    """A convolution with zero padding; `inputs` and `outputs` are the shapes of one image."""

    module: nn.Conv2d
    padding: tuple[int, int]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def terms(self) -> int:
        """The larger of the weights of an output and those of an input."""
        outputs, inputs, *kernel = self.module.weight.shape
        return prod(kernel) * max(inputs, outputs // self.module.groups)

    def apply(self, x: Tensor) -> Tensor:
        """Convolve."""
        return self._convolved(x, self.module.weight)

    def apply_abs(self, x: Tensor) -> Tensor:
        """Convolve with the absolute weights."""
        return self._convolved(x, self.module.weight.abs())

    def transpose(self, a: Tensor) -> Tensor:
        """Apply the transposed convolution."""
        like, kernel = self.module, self.module.weight.shape[2:]
        # The transpose must also have the pixels at the far sides that a stride does not reach.
        sides = zip(
            self.inputs[1:], self.outputs[1:], like.stride, self.padding, like.dilation, kernel,
            strict=True,
        )  # fmt: skip
        left = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, s, p, d, k in sides]
        weight = like.weight
        return F.conv_transpose2d(
            a, weight, None, like.stride, self.padding, left, like.groups, like.dilation
        )

    def offset(self) -> Tensor | None:
        """Return the bias of each channel."""
        bias = self.module.bias
        return None if bias is None else bias.view(-1, 1, 1)

    def offset_size(self) -> Tensor | None:
        """Return the absolute bias of each channel."""
        offset = self.offset()
        return None if offset is None else offset.abs()

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        like = self.module
        return F.conv2d(x, weight, None, like.stride, self.padding, like.dilation, like.groups)


@dataclass(frozen=True)
class Matrix:
    """A linear layer."""

    module: nn.Linear

    @property
    def terms(self) -> int:
        """The larger of inputs and outputs."""
        return max(self.module.weight.shape)

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return F.linear(x, self.module.weight)

    def apply_abs(self, x: Tensor) -> Tensor:
        """Multiply by the absolute weights."""
        return F.linear(x, self.module.weight.abs())

    def transpose(self, a: Tensor) -> Tensor:
        """Multiply from the left."""
        return a @ self.module.weight

    def offset(self) -> Tensor | None:
        """Return the bias."""
        bias: Tensor | None = self.module.bias
        return bias

    def offset_size(self) -> Tensor | None:
        """Return the absolute bias."""
        bias = self.offset()
        return None if bias is None else bias.abs()


@dataclass(frozen=True)
class Scaling:
    """A factor and a shift of each element; both broadcast with one output.

    `shift_size` bounds |shift| and the numbers it was computed from.
    """

    factor: Tensor
    shift: Tensor | None = None
    shift_size: Tensor | None = None
    terms: int = 1

    def apply(self, x: Tensor) -> Tensor:
        """Scaling."""
        return x * self.factor

    def apply_abs(self, x: Tensor) -> Tensor:
        """Scaling by the absolute factors."""
        return x * self.factor.abs()

    def transpose(self, a: Tensor) -> Tensor:
        """Scaling."""
        return a * self.factor

    def offset(self) -> Tensor | None:
        """Return the shift."""
        return self.shift

    def offset_size(self) -> Tensor | None:
        """Return the size of the shift."""
        return self.shift_size


def batch_norm(module: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> Scaling:
    """Return the scaling of a batch-norm with these statistics of its channels, (C,)."""
    factor = torch.rsqrt(variance + module.eps)
    if module.weight is not None:
        factor = factor * module.weight
    moved = -mean * factor
    shift, size = moved, moved.abs()
    if module.bias is not None:
        shift, size = shift + module.bias, size + module.bias.abs()
    return Scaling(factor.view(-1, 1, 1), shift.view(-1, 1, 1), size.view(-1, 1, 1))


@dataclass(frozen=True)
class Mean:
    """The mean over all pixels of a channel; `inputs` is (C, H, W), `outputs` has C elements."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def terms(self) -> int:
        """The pixels of a channel."""
        return prod(self.inputs[1:])

    def apply(self, x: Tensor) -> Tensor:
        """Average."""
        return x.mean((2, 3)).view(len(x), *self.outputs)

    def apply_abs(self, x: Tensor) -> Tensor:
        """Average."""
        return self.apply(x)

    def transpose(self, a: Tensor) -> Tensor:
        """Give each pixel its share."""
        return (a.reshape(len(a), -1, 1, 1) / self.terms).expand(len(a), *self.inputs)

    def offset(self) -> Tensor | None:
        """Return None."""
        return None

    def offset_size(self) -> Tensor | None:
        """Return None."""
        return None


@dataclass(frozen=True)
class Pooling:
    """The mean over windows, which do not overlap and tile the image."""

    kernel: tuple[int, int]
    inputs: tuple[int, ...]

    @property
    def terms(self) -> int:
        """The pixels of a window."""
        return prod(self.kernel)

    def apply(self, x: Tensor) -> Tensor:
        """Average."""
        return F.avg_pool2d(x, self.kernel)

    def apply_abs(self, x: Tensor) -> Tensor:
        """Average."""
        return self.apply(x)

    def transpose(self, a: Tensor) -> Tensor:
        """Give each pixel its share."""
        rows, columns = self.kernel
        return (a / self.terms).repeat_interleave(rows, -2).repeat_interleave(columns, -1)

    def offset(self) -> Tensor | None:
        """Return None."""
        return None

    def offset_size(self) -> Tensor | None:
        """Return None."""
        return None


@dataclass(frozen=True)
class Rearrangement:
    """Elements in another order, some left out, zeros put in; `index` is -1 for a zero.

    `index` has one place per output; None if only the shape changes.
    """

    index: Tensor | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    terms: int = 0

    def apply(self, x: Tensor) -> Tensor:
        """Select."""
        if self.index is not None:
            x = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)[:, self.index]
        return x.reshape(len(x), *self.outputs)

    def apply_abs(self, x: Tensor) -> Tensor:
        """Select."""
        return self.apply(x)

    def transpose(self, a: Tensor) -> Tensor:
        """Put each element back to its origin."""
        if self.index is not None:
            places = self.index % (prod(self.inputs) + 1)  # -1 is the last
            into = a.new_zeros(len(a), prod(self.inputs) + 1)
            a = into.index_add(1, places, a.flatten(1))[:, :-1]
        return a.reshape(len(a), *self.inputs)

    def offset(self) -> Tensor | None:
        """Return None."""
        return None

    def offset_size(self) -> Tensor | None:
        """Return None."""
        return None
