"""The check, during a search, that a fast copy computes the same function as its model.

A rewritten model may be another function: torch.fx traces one path through a forward, and sees
neither what hooks store nor what a context changes.  So a copy is compared with its model at points
that the search evaluates anyway.  The model gets one image of the batch alone.  The copy's logits
for this image, computed in the whole batch, must be the same.  The input gradient, for the gradient
that the attack's loss passes back, must be the same too.  A randomised model never agrees with a
copy.  Nor does a model whose answer for an image depends on the other images.

The passes of the proof are not counted: a record contains only the passes of the attack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from satbench.calling.logits import read_logits
from satbench.core.errors import SatbenchError
from satbench.engine.judge import in_full_precision

LOGITS = 1e-4
"""Largest error of a logit, relative to the image's largest; rounding causes about 1e-6."""

GRADIENT = 1e-3
"""Largest error of an input gradient, relative to its length; rounding causes about 1e-6."""

KINKS = 6
"""At how many points a gradient may be wrong before the copy is dropped.

If rounding moves an activation across a kink, a correct gradient is off by up to 3 % (at 1 point in
10 for a ResNet-50, at fewer for smaller networks); that of another function is off everywhere.
"""

_TINY = 1e-25  # a gradient multiplied by this may underflow in float32


class UnlikeError(SatbenchError):
    """A fast copy differs from its model."""


@dataclass
class Proof:
    """What is known about a copy in one search.

    A key of `proven` and `doubts` is (whether gradients are needed, whether there is one image).
    The copy is called by its `forward`, because calling a graph module writes errors to stderr;
    searches call it by `quick` if there is one.  It is `coarse` if that rounds more than float32.
    """

    model: nn.Module
    copy: nn.Module
    quick: Callable[[Tensor], Tensor] | None = None
    coarse: bool = False
    calls: int = 0
    proven: set[tuple[bool, bool]] = field(default_factory=set)
    doubts: dict[tuple[bool, bool], int] = field(default_factory=dict)

    @property
    def is_in_doubt(self) -> bool:
        """Whether a gradient was wrong, and none with the same key was right."""
        return bool(self.doubts.keys() - self.proven)

    def ask(self, x: Tensor) -> Tensor:
        """Return the copy's logits, and compare them with the model's if a check is due.

        A check is due at the first two calls, and once for each key.  Two calls are needed because
        one of them is likely to be at the images themselves, before any perturbation.  Raises
        UnlikeError, or any error of the copy.
        """
        key = (torch.is_grad_enabled() and x.requires_grad, len(x) == 1)
        row, self.calls = self.calls, self.calls + 1
        if not len(x) or not (row < 2 or key not in self.proven):
            return self._answer(x)
        row %= len(x)
        one = x.detach()[row].clone()[None]
        if self.coarse or _is_coarse(x):
            self._compare(x.detach(), row, key)
            return self._answer(x)
        wants_gradient = key[0] and key not in self.proven
        if wants_gradient:
            x, one = (
                x.clone(),
                one.requires_grad_(),
            )  # a new tensor, because a hook is registered on it
        logits = _logits(self.copy.forward, x)
        expected = _logits(self.model, one.clone())
        _check_alike(logits[row : row + 1], expected)
        if wants_gradient:
            self._watch(_Passed(x, logits, row), _Passed(one, expected, 0), key)
        else:
            self.proven.add(key)
        return logits

    def _answer(self, x: Tensor) -> Tensor:
        return self.quick(x) if self.quick else _logits(self.copy.forward, x)

    def _watch(self, copied: _Passed, alone: _Passed, key: tuple[bool, bool]) -> None:
        """Compare the gradients when the attack computes one of the copy."""
        if not (copied.logits.requires_grad and alone.logits.requires_grad):
            if copied.logits.requires_grad or alone.logits.requires_grad:
                raise UnlikeError("gradients pass through only one of them")
            self.proven.add(key)
            return
        # A hook of a tensor must not refer to it, or its graph would never be freed.
        upstream, row = list[Tensor](), copied.row

        def hold(grad: Tensor) -> None:
            if not upstream or key in self.proven:
                return
            handle.remove()
            above = upstream.pop()[row][None]
            if bool(above.abs().amax() < _TINY):  # nothing to compare, as with a saturated loss
                self._compare(alone.x.detach(), 0, key)
            else:
                self._note(key, _is_alike_gradient(grad[row][None], alone.gradient(above)))

        handle = copied.x.register_hook(hold)  # type: ignore[no-untyped-call]
        copied.logits.register_hook(upstream.append)  # type: ignore[no-untyped-call]

    def _compare(self, x: Tensor, row: int, key: tuple[bool, bool]) -> None:
        """Compare the copy on images with the model on one of them, in separate passes.

        They are in full precision, and their gradients are those of a sum of the logits.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() or key[0]), in_full_precision():
            copied = _Passed.through(self.copy.forward, x, row, key[0])
            alone = _Passed.through(self.model, x[row][None], 0, key[0])
            _check_alike(copied.logits[row][None], alone.logits)
            if not key[0]:
                self.proven.add(key)
                return
            signs = torch.ones_like(alone.logits)
            signs[:, ::2] = -1
            self._note(key, _is_alike_gradient(copied.gradient(signs), alone.gradient(signs)))

    def _note(self, key: tuple[bool, bool], alike: bool) -> None:
        if alike:
            self.proven.add(key)
            return
        self.doubts[key] = self.doubts.get(key, 0) + 1
        if self.doubts[key] >= KINKS:
            raise UnlikeError(f"its gradient was off at {KINKS} points of {KINKS}")


@dataclass(frozen=True)
class _Passed:
    """Images that went through a model, their logits, and the row of the compared one."""

    x: Tensor
    logits: Tensor
    row: int

    @classmethod
    def through(
        cls, model: Callable[[Tensor], object], x: Tensor, row: int, gradient: bool
    ) -> _Passed:
        """Run images through a model."""
        leaf = x.clone().requires_grad_(gradient)
        return cls(leaf, _logits(model, leaf.clone()), row)

    def gradient(self, above: Tensor) -> Tensor:
        """Return the image's gradient, given that of its logits.  (1, K) -> (1, C, H, W)."""
        wanted = torch.zeros_like(self.x)
        if self.logits.requires_grad:
            upstream = torch.zeros_like(self.logits)
            upstream[self.row] = above[0]
            # Given `upstream` as it is, torch imports its compiler: a second of CPU time.
            with torch.enable_grad():  # a hook runs without
                above_all = (self.logits * upstream).sum()
            (grad,) = torch.autograd.grad(above_all, self.x, allow_unused=True)
            wanted = wanted if grad is None else grad
        return wanted[self.row][None]


def _check_alike(got: Tensor, wanted: Tensor) -> None:
    got, wanted = got.detach(), wanted.detach()
    if got.shape != wanted.shape:
        raise UnlikeError(f"its logits have shape {tuple(got.shape)}, not {tuple(wanted.shape)}")
    finite = wanted.isfinite()  # a class may be masked by -inf
    largest = wanted.where(finite, 0).abs().amax()
    off = (got - wanted).where(finite, torch.where(got == wanted, 0, torch.inf)).abs().amax()
    if not bool(off <= LOGITS * largest):
        raise UnlikeError(
            f"a logit is off by {float(off):.3g}, the largest is {float(largest):.3g}"
        )


def _is_alike_gradient(got: Tensor, wanted: Tensor) -> bool:
    off = torch.linalg.vector_norm(got.double() - wanted.double())
    return bool(off <= GRADIENT * torch.linalg.vector_norm(wanted.double()))


def _is_coarse(x: Tensor) -> bool:
    """Whether float32 passes are rounded to TF32, so that only large differences can be seen."""
    products = torch.get_float32_matmul_precision() != "highest"
    return x.is_cuda and (torch.backends.cudnn.allow_tf32 or products)


def _logits(model: Callable[[Tensor], object], x: Tensor) -> Tensor:
    return read_logits(model(x), len(x))
