"""BPDA: layers keep their own forward and get the backward of a differentiable replacement.

Backward pass differentiable approximation (Athalye, Carlini & Wagner, 2018, "Obfuscated gradients
give a false sense of security", arXiv:1802.00420, section 4.1): a layer that is not differentiable,
or whose gradient says nothing, is run as it is, while gradients pass through a function that is
near to it; the identity will often do.  Only searches use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError, UnknownNameError


class Replaced(nn.Module):
    """A model whose layers named in `replacements` have the backward of what stands beside them.

    Names are dotted, as `model.named_modules()` gives them.  Values are the model's own, to the
    bit.  The layers are dressed for the length of a forward and are as they were after it, so that
    the model itself, called by anybody else, is untouched.
    Raises UnknownNameError for a name that is no layer; a forward raises SatbenchError where the
    first one never comes to a named layer, or a replacement answers in another shape.
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
        with ExitStack() as dressed:
            for name, layer, stand_in in zip(
                self._names, self._layers, self.stand_ins, strict=True
            ):
                dressed.enter_context(self._dressed(name, layer, stand_in))
            logits: Tensor = self.model(x)
        if self._waiting:
            raise SatbenchError(
                f"the model's forward never calls the layer {min(self._waiting)!r}, so that a "
                "replacement of it changes nothing: name one that it calls"
            )
        return logits

    @contextmanager
    def _dressed(self, name: str, layer: nn.Module, stand_in: nn.Module) -> Iterator[None]:
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
            "name a layer within it"
        )
    if not isinstance(approximate, Tensor) or value.shape != approximate.shape:
        raise SatbenchError(
            f"expected the replacement of the layer {name!r} to answer as it does, "
            f"{_shape(value)}, got {_shape(approximate)}"
        )


def _shape(value: object) -> str:
    shape = tuple(value.shape) if isinstance(value, Tensor) else None
    return f"in shape {shape}" if shape else type(value).__name__


def _apart(value: object) -> object:
    """Return a tensor's contents on their own: a layer may work in place."""
    return value.detach().clone() if isinstance(value, Tensor) else value


class _ValueOfOne(torch.autograd.Function):
    """The first argument forward, the gradient of the second backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, approximate: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad
