"""What a user hands over as a model, checked to be one whose weights can be read."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from satbench.core.errors import SatbenchError


def check_module(model: object) -> nn.Module:
    """Return `model` if it is one whose weights can be read.

    Raises SatbenchError for anything but a Module, for weights that are not there (the meta
    device, a lazy layer before its first call) or that autograd cannot use, and for weights on
    several devices.
    """
    if not isinstance(model, nn.Module):
        todo = ": wrap a function in the forward of a Module" if callable(model) else ""
        if isinstance(model, torch.export.ExportedProgram):
            todo = ": pass model.module()"
        elif isinstance(model, type):
            todo = f": make one, {model.__qualname__}()"
        raise SatbenchError(
            "expected the model as a torch.nn.Module, a function or a name, got "
            f"{kind_of(model)}{todo}"
        )
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in held.items():
        if is_lazy(tensor):
            raise SatbenchError(
                f"expected a model with weights, got {name} without a shape (a lazy layer): "
                "run it once on a batch of images before it is evaluated"
            )
        if tensor.is_meta:
            raise SatbenchError(
                f"expected a model with weights, got {name} on the meta device: "
                "build it on a real one and load its weights"
            )
        if tensor.is_inference():
            raise SatbenchError(
                f"expected weights that autograd can use, got {name}, which was made under "
                "torch.inference_mode(): evaluate copy.deepcopy(model)"
            )
    devices = sorted({str(tensor.device) for tensor in held.values()})
    if len(devices) > 1:
        raise SatbenchError(
            f"expected the model on one device, got it on {' and '.join(devices)}: "
            f"bring it together, model.to({devices[-1]!r})"
        )
    return model


def kind_of(thing: object) -> str:
    """Name the kind of a thing that was given where another was expected."""
    if isinstance(thing, type):
        return f"the class {thing.__qualname__} itself"
    return type(thing).__qualname__
