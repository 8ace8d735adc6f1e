"""Recognising a file of weights without a card by the digest of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from satbench.core.digests import digest_named_arrays
from satbench.model_zoo.card import Card, card_of_digest
from satbench.model_zoo.file_kinds import is_safetensors

Arrays = dict[str, NDArray[np.generic]]


def card_of_weights(path: Path, copy: str = "") -> Card | None:
    """Return the card in either zoo of the weights in a file, or None.

    Names may carry prefixes, such as `module.`.  `copy` names one of several sets in a checkpoint.
    Raises SatbenchError for a pickle that cannot be read.  Imports torch only for pickles.
    """
    arrays = _arrays(path, copy)
    for prefix in _wrappers(arrays):
        named = {name.removeprefix(prefix): array for name, array in arrays.items()}
        if card := card_of_digest(digest_named_arrays(named)):
            return card
    return None


def _arrays(path: Path, copy: str) -> Arrays:
    if is_safetensors(path):
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, TypeError):  # unreadable, or of a dtype that NumPy lacks
            return {}
    from satbench.model_zoo.checkpoints import read_state

    try:
        return {name: tensor.numpy() for name, tensor in read_state(path, copy).items()}
    except (TypeError, RuntimeError):  # bfloat16 or sparse tensors, which NumPy lacks
        return {}


def _wrappers(arrays: Arrays) -> Iterator[str]:
    """Yield the prefixes that all names share, in whole parts between dots, the empty one first."""
    prefix = ""
    while arrays and all(name.startswith(prefix) for name in arrays):
        yield prefix
        rest = next(iter(arrays)).removeprefix(prefix)
        if "." not in rest:
            return
        prefix += rest.partition(".")[0] + "."


__all__ = ["card_of_weights", "is_safetensors"]
