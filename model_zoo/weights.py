"""Weights: safetensors in and out.  Nothing from outside is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from satbench.core.digests import digest_named_arrays
from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path


def digest_weights(model: nn.Module) -> str:
    """Return the SHA-256 of a model's state: every parameter and buffer, by name."""
    arrays = {
        name: tensor.detach().cpu().contiguous().numpy()
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor)
    }
    return digest_named_arrays({name: np.asarray(array) for name, array in arrays.items()})


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's state as safetensors, atomically."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`, strictly.

    Raises SatbenchError for a file that is missing, of another format, corrupt, or that does not
    fit the model (saying which tensors).
    """
    if not path.is_file():
        raise SatbenchError(f"expected weights at {path}, which is missing")
    if path.suffix != ".safetensors":
        raise SatbenchError(
            f"expected weights in safetensors format, got {path.name}; convert them with "
            "safetensors.torch.save_file(torch.load(PATH, weights_only=True), NEW_PATH)"
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise SatbenchError(f"the weights {path} are corrupt ({error}); fetch them again") from None
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    faults = {"missing": missing, "not in the model": extra, "of another shape": shapes}
    said = "; ".join(f"{what}: {', '.join(names[:4])}" for what, names in faults.items() if names)
    if said:
        raise SatbenchError(
            f"the weights {path} do not fit the model ({said}); check --arch and --activation"
        )
    model.load_state_dict(state, strict=True)
