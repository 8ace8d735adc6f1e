"""Weights: files in and out, and their digest.  Nothing from outside is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, nn

from satbench.core.digests import digest_named_arrays
from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path
from satbench.model_zoo.checkpoints import read_state
from satbench.model_zoo.fitting import load_state


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


def load_weights(model: nn.Module, path: Path, copy: str = "") -> None:
    """Load a file of weights into `model`, strictly.

    `copy` names one of several sets in a checkpoint, such as `ema`.  Raises SatbenchError for a
    file that is missing, of another format, corrupt, a web page, or a pickle that would run
    code; and for weights that do not fit, saying which tensors and why that may be.
    """
    load_state(model, read_state(path, copy), path)


def check_digest(model: nn.Module, wanted: str, name: str, path: Path) -> None:
    """Raise SatbenchError unless the weights of `model`, read at `path`, are those of a card.

    `wanted` is the digest that the card of `name` tells.
    """
    digest = digest_weights(model)
    if digest != wanted:
        raise SatbenchError(
            f"expected weights with digest {wanted[:12]}… in {path}, "
            f"got {digest[:12]}…; they are not the ones the card of {name} tells of"
        )
