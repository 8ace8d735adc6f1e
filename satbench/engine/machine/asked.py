"""Model calls in lower precision and with CUDA graphs, for searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from satbench.core.errors import SatbenchError

Call = Callable[[Tensor], Tensor]
"""(B, C, H, W) -> (B, K)."""

EAGER = 8
"""The number of calls with a batch size before a graph is made for it, which costs as much."""


class InexactError(SatbenchError):
    """A search in lower precision or with a graph cannot continue."""


def in_dtype(call: Call, dtype: torch.dtype) -> Call:
    """Return `call` under autocast to `dtype`, with float32 logits."""

    def asked(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype, cache_enabled=False):
            return call(x).float()

    return asked


def guarded(call: Call, dtype: torch.dtype) -> Call:
    """Return a call in `dtype` that raises InexactError for logits that are not finite.

    In float16 the gradient of each image is scaled by a power of two on its way back, so that it
    does not underflow (as in Micikevicius et al., 2018, "Mixed precision training",
    arXiv:1710.03740, section 3.2, but for each image).  A gradient that is not finite raises
    InexactError.
    """

    def asked(x: Tensor) -> Tensor:
        back = torch.is_grad_enabled() and x.requires_grad
        scale: list[Tensor] = []
        given = _Unscaled.apply(x, scale) if back and dtype == torch.float16 else x
        logits = call(given)
        if not bool(logits.detach().isfinite().all()):
            raise InexactError(f"logits are not finite in {dtype}")
        return logits if given is x else _Scaled.apply(logits, scale)

    return asked


class _Scaled(torch.autograd.Function):
    """The identity; its backward scales each row to about 1, by a power of two."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, scale: list[Tensor]) -> Tensor:
        ctx.scale = scale
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        largest = grad.abs().amax(1, keepdim=True)
        by = torch.exp2(-largest.log2().floor()).where(largest > 0, 1.0)
        by = by.where(by.isfinite(), 1.0)
        ctx.scale[:] = [by]
        return grad * by, None


class _Unscaled(torch.autograd.Function):
    """The identity; its backward undoes `_Scaled`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: list[Tensor]) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if not bool(grad.isfinite().all()):
            raise InexactError("an input gradient is not finite in float16")
        return grad / ctx.scale[0][:, :, None, None], None


class Graphed:
    """A call whose gradients on often used batch sizes are CUDA graphs.

    A graph has a fixed batch size: a power of two, and a smaller batch is filled up with its first
    image.  A graph keeps one forward: the backward of an earlier one raises InexactError.  On a CPU
    there are no graphs, and the call itself replaces them, so that the rest is tested.
    """

    def __init__(self, call: Call, capture: Callable[[Call, Tensor], Call] | None = None) -> None:
        self._call = call
        self._capture = capture or captured
        self._asked: dict[int, int] = {}
        self._graphs: dict[int, Call] = {}
        self._replays = [0]

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        size = 1 << max(0, len(x) - 1).bit_length()
        times = self._asked[size] = self._asked.get(size, 0) + 1
        if not (torch.is_grad_enabled() and x.requires_grad) or times <= EAGER:
            return self._call(x)
        full = x if len(x) == size else torch.cat([x, x[:1].expand(size - len(x), *x.shape[1:])])
        if size not in self._graphs:
            self._graphs[size] = self._capture(self._call, full.detach())
        self._replays[0] += 1
        logits: Tensor = _OneReplay.apply(self._graphs[size](full)[: len(x)], self._replays)
        return logits


def captured(call: Call, sample: Tensor) -> Call:
    """Return the graphs of a call and its input gradient on images like `sample`; see Graphed."""
    if not sample.is_cuda:
        return call
    images = (sample.clone().requires_grad_(),)
    return cast(Call, torch.cuda.make_graphed_callables(call, images))


class _OneReplay(torch.autograd.Function):
    """A copy of a graph's logits, whose memory the next replay overwrites."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, replays: list[int]) -> Tensor:
        ctx.replays, ctx.number = replays, replays[0]
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.replays[0] != ctx.number:
            raise InexactError("a CUDA graph ran again before its gradient was taken")
        return grad, None
