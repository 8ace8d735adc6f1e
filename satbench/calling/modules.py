"""The check that a user's model is a Module with readable weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from satbench.core.errors import SatbenchError


def check_module(model: object) -> nn.Module:
    """Return `model` if its weights can be read.

    Raises SatbenchError for anything but a Module, for missing weights (on the meta device, or of a
    lazy layer before its first call), for weights that autograd cannot use, and for weights on
    several devices.

    >>> check_module(nn.Linear(2, 3))
    Linear(in_features=2, out_features=3, bias=True)
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
                "run it once on a batch of images first"
            )
        if tensor.is_meta:
            raise SatbenchError(
                f"expected a model with weights, got {name} on the meta device: "
                "build it on a real device and load its weights"
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
            f"move it to one, model.to({devices[-1]!r})"
        )
    return model


def kind_of(thing: object) -> str:
    """Return the type of an object, for an error message.

    >>> kind_of(3), kind_of(dict)
    ('int', 'the class dict itself')
    """
    if isinstance(thing, type):
        return f"the class {thing.__qualname__} itself"
    return type(thing).__qualname__
