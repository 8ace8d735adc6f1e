"""Weights: reading and writing files, and their digest.  No foreign file is unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from satbench.core.digests import digest_named_arrays
from satbench.core.errors import SatbenchError
from satbench.core.files import write_bytes
from satbench.model_zoo.card import CARD_KEY, Card
from satbench.model_zoo.checkpoints import picked, read_state
from satbench.model_zoo.fitting import load_state


def digest_weights(model: nn.Module) -> str:
    """Return the SHA-256 of a model's state: every parameter and buffer, by name."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            arrays |= _arrays_of(name, value.detach().cpu())
        elif isinstance(value, tuple):  # the packed weights of a quantised layer
            for place, part in enumerate(value):
                if isinstance(part, Tensor):
                    arrays |= _arrays_of(f"{name}.{place}", part.detach().cpu())
    return digest_named_arrays(arrays)


def _arrays_of(name: str, tensor: Tensor) -> dict[str, NDArray[np.generic]]:
    """Return the contents of a tensor as arrays, even if numpy lacks its dtype or layout."""
    if tensor.is_quantized:
        scheme = str(tensor.qscheme())
        scale, zero = (
            (tensor.q_per_channel_scales().numpy(), tensor.q_per_channel_zero_points().numpy())
            if "channel" in scheme
            else (np.array(tensor.q_scale()), np.array(tensor.q_zero_point()))
        )
        whole = {f"{name} in {scheme}": tensor.int_repr().numpy()}
        return whole | {f"{name} scale": scale, f"{name} zero point": zero}
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    try:
        return {name: np.asarray(tensor.numpy())}
    except TypeError:  # bfloat16 or float8, which numpy lacks
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {f"{name} in {dtype}": tensor.view(torch.uint8).numpy()}


def save_weights(model: nn.Module, path: Path, card: Card | None = None) -> None:
    """Write a model's state as safetensors, atomically, with the `card` as metadata of the file."""
    state = _own_memory({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})
    # safetensors' own writer raises no OSError on a full disk.
    write_bytes(path, save(state, {CARD_KEY: card.to_json()} if card else None))


def _own_memory(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor its own memory, which safetensors needs: layers may share weights."""
    seen: set[int] = set()
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            state[name] = tensor.clone()
        seen.add(place)
    return state


def load_weights(
    model: nn.Module, path: Path, copy: str = "", keys: str = "", drop: Sequence[str] = ()
) -> bool:
    """Load a file of weights into `model`, strictly; -> whether it holds the normalisation.

    `copy` names one of several sets in a checkpoint, such as `ema`.  Only names that begin with
    `keys` are loaded, and none that begins with a text in `drop`.  Raises SatbenchError for a file
    that is missing, of another format, corrupt, a web page, or a pickle that would run code.  For
    weights that do not fit, the error names the tensors and the likely cause.
    """
    return load_state(model, picked(read_state(path, copy), keys, drop, path), path)


def check_digest(model: nn.Module, wanted: str, name: str, path: Path) -> None:
    """Raise SatbenchError unless the weights of `model`, from `path`, have the digest `wanted`.

    `wanted` is the digest in the card of `name`.
    """
    digest = digest_weights(model)
    if digest != wanted:
        raise SatbenchError(
            f"expected weights with digest {wanted[:12]}… in {path}, "
            f"got {digest[:12]}…; they are not the weights of the card {name}"
        )
