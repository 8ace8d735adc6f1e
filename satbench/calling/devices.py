"""Devices: choosing one, and moving models to it and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from satbench.core.errors import SatbenchError


def choose_device(name: str) -> torch.device:
    """Return the device called `name`: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`.

    `cuda:all` gives the first GPU, because other processes use the others.  Raises SatbenchError
    for a device that this machine lacks.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda:0" if name == "cuda:all" else name)
    except RuntimeError:
        raise SatbenchError(f"expected --device auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise SatbenchError(f"expected --device auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SatbenchError(
            f"expected a device of this machine, got {name!r}: it has "
            f"{torch.cuda.device_count()} GPUs that torch can use"
        )
    return device


@contextmanager
def moved(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Move modules to a device within the block, and then each back to its own."""
    with ExitStack() as undo:
        for module in modules:
            tensors = (*module.parameters(), *module.buffers())
            home = next((tensor.device for tensor in tensors), torch.device("cpu"))
            undo.callback(module.to, home)
            module.to(device)
        yield


def device_name(device: torch.device) -> str:
    """Return the name of a device, as it is written in a record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def device_of(model: nn.Module) -> torch.device:
    """Return a model's device: that of its first parameter or buffer, or the CPU without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
