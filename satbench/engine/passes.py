"""The count of passes: forwards (F) and input-gradient backwards (B) of one image each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from satbench.calling.logits import ModelError, ask, without_masks


@dataclass
class Passes:
    """How many images went forward and backward; `on_pass` is called with each number."""

    forwards: int = 0
    backwards: int = 0
    on_pass: Callable[[int], None] | None = field(default=None, compare=False, repr=False)

    def add(self, forwards: int = 0, backwards: int = 0) -> None:
        """Add passes to the count."""
        self.forwards += forwards
        self.backwards += backwards
        if self.on_pass:
            self.on_pass(forwards + backwards)

    def take(self) -> tuple[int, int]:
        """Return the forwards and backwards so far, and start again from 0."""
        counted = self.forwards, self.backwards
        self.forwards = self.backwards = 0
        return counted

    def mark(self) -> Callable[[], None]:
        """Return a function that resets the counts to their values now."""
        before = self.forwards, self.backwards

        def reset() -> None:
            self.forwards, self.backwards = before

        return reset


@contextmanager
def not_counted_on_error(reset: Callable[[], None]) -> Iterator[None]:
    """Call `reset`, the result of `Passes.mark`, if an error ends the block."""
    try:
        yield
    except BaseException:
        reset()
        raise


class CountingModel(torch.nn.Module):
    """A model that counts every image that passes through it, forward and backward.

    `satbench.calling.logits` reads its answers: float32, with finite values for masked classes.
    """

    def __init__(self, model: Callable[[Tensor], object], passes: Passes) -> None:
        super().__init__()
        self.model = model
        self.passes = passes
        self._classes = 0  # of the first answer
        self._read = not getattr(model, "reads_itself", False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        self.passes.add(forwards=len(x))
        if torch.is_grad_enabled() and x.requires_grad:
            given = _CountBackward.apply(x, self.passes)
            logits = ask(self.model, given, copied=False, read=self._read)
        else:
            logits = ask(self.model, x, read=self._read)
        self._classes = self._classes or logits.shape[1]
        if logits.shape[1] != self._classes:
            raise ModelError(
                f"expected {self._classes} logits as before, got {logits.shape[1]}", x.detach()
            )
        return without_masks(logits) if self._read else logits


class _CountBackward(torch.autograd.Function):
    """The identity; its backward counts images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passes: Passes) -> Tensor:
        ctx.passes = passes
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.passes.add(backwards=len(grad))
        return grad, None
