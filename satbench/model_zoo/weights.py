"""Weights: files in and out, and their digest.  Nothing from outside is unpickled."""

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
        elif isinstance(value, tuple):  # what a quantised layer packs
            for place, part in enumerate(value):
                if isinstance(part, Tensor):
                    arrays |= _arrays_of(f"{name}.{place}", part.detach().cpu())
    return digest_named_arrays(arrays)


def _arrays_of(name: str, tensor: Tensor) -> dict[str, NDArray[np.generic]]:
    """Return the contents of a tensor as arrays, also where numpy lacks its dtype or layout."""
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
    except TypeError:  # bfloat16 and float8: numpy has neither
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {f"{name} in {dtype}": tensor.view(torch.uint8).numpy()}


def save_weights(model: nn.Module, path: Path, card: Card | None = None) -> None:
    """Write a model's state as safetensors, atomically; with `card`, what it is goes with it."""
    state = _apart({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})
    # Not safetensors' own writer, whose error on a full disk is no OSError.
    write_bytes(path, save(state, {CARD_KEY: card.to_json()} if card else None))


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor its own memory, as safetensors needs it: layers may share weights."""
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
    """Load a file of weights into `model`, strictly; -> whether it has the normalisation.

    `copy` names one of several sets in a checkpoint, such as `ema`; `keys` and `drop` are
    beginnings of names to take alone and to leave out.  Raises SatbenchError for a file that is
    missing, of another format, corrupt, a web page, or a pickle that would run code; and for
    weights that do not fit, saying which tensors and why that may be.
    """
    return load_state(model, picked(read_state(path, copy), keys, drop, path), path)


def check_digest(model: nn.Module, wanted: str, name: str, path: Path) -> None:
    """Raise SatbenchError unless the weights of `model`, read at `path`, are those of a card.

    `wanted` is the digest that the card of `name` contains.
    """
    digest = digest_weights(model)
    if digest != wanted:
        raise SatbenchError(
            f"expected weights with digest {wanted[:12]}… in {path}, "
            f"got {digest[:12]}…; they are not the ones the card of {name} tells of"
        )
