"""BPDA: layers keep their forward and get the backward of a differentiable replacement.

Backward pass differentiable approximation (Athalye, Carlini & Wagner, 2018, "Obfuscated gradients
give a false sense of security", arXiv:1802.00420, section 4.1): a layer that is not differentiable,
or whose gradient is useless, runs unchanged, while gradients pass through a similar function; the
identity is often enough.  Only searches use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError, UnknownNameError


class Replaced(nn.Module):
    """A model in which each layer named in `replacements` has the backward of its replacement.

    Names are dotted, as in `model.named_modules()`.  Values are bit for bit those of the model.
    The forwards of the layers are replaced only during a forward of this module, so the model
    itself does not change for other callers.  Raises UnknownNameError for a name that is not a
    layer.  A forward raises SatbenchError if the model never calls a named layer, or if a
    replacement returns another shape.
    """

    def __init__(self, model: nn.Module, replacements: Mapping[str, nn.Module]) -> None:
        super().__init__()
        layers = dict(model.named_modules(remove_duplicate=False))
        layers.pop("", None)  # the model itself
        for name in replacements:
            if name not in layers:
                raise UnknownNameError("layer", name, layers)
        self.model = model
        self.stand_ins = nn.ModuleList(replacements.values())
        self._names = tuple(replacements)
        self._layers = tuple(layers[name] for name in replacements)  # in a tuple: no submodules
        self._waiting = set(self._names)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        with ExitStack() as patched:
            for name, layer, stand_in in zip(
                self._names, self._layers, self.stand_ins, strict=True
            ):
                patched.enter_context(self._patched(name, layer, stand_in))
            logits: Tensor = self.model(x)
        if self._waiting:
            raise SatbenchError(
                f"the model's forward never calls the layer {min(self._waiting)!r}, so its "
                "replacement has no effect: name a layer that it calls"
            )
        return logits

    @contextmanager
    def _patched(self, name: str, layer: nn.Module, stand_in: nn.Module) -> Iterator[None]:
        own: Callable[..., object] = layer.forward
        before = layer.__dict__.get("forward")

        def forward(*args: Any, **kwargs: Any) -> object:
            self._waiting.discard(name)
            return _own_forward_other_backward(name, own, stand_in, args, kwargs)

        layer.__dict__["forward"] = forward
        try:
            yield
        finally:
            del layer.__dict__["forward"]
            if before is not None:
                layer.__dict__["forward"] = before


def _own_forward_other_backward(
    name: str,
    own: Callable[..., object],
    stand_in: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> object:
    followed = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    if not torch.is_grad_enabled() or not any(value.requires_grad for value in followed):
        return own(*args, **kwargs)
    approximate = stand_in(*args, **kwargs)
    with torch.no_grad():
        value = own(*map(_apart, args), **{key: _apart(one) for key, one in kwargs.items()})
    _check_alike(name, value, approximate)
    replaced: Tensor = _ValueOfOne.apply(value, approximate)
    return replaced


def _check_alike(name: str, value: object, approximate: object) -> None:
    if not isinstance(value, Tensor):
        raise SatbenchError(
            f"expected the layer {name!r} to return one tensor, got {type(value).__name__}: "
            "name a layer inside it"
        )
    if not isinstance(approximate, Tensor) or value.shape != approximate.shape:
        raise SatbenchError(
            f"expected the replacement of the layer {name!r} to return the same shape, "
            f"{_shape(value)}, got {_shape(approximate)}"
        )


def _shape(value: object) -> str:
    shape = tuple(value.shape) if isinstance(value, Tensor) else None
    return f"in shape {shape}" if shape else type(value).__name__


def _apart(value: object) -> object:
    """Return a copy of a tensor, because a layer may work in place."""
    return value.detach().clone() if isinstance(value, Tensor) else value


class _ValueOfOne(torch.autograd.Function):
    """Returns its first argument forward, and passes the gradient to the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, approximate: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad
