"""Files of weights in the layouts that people save them in.  No code from a file is ever run.

A checkpoint is often more than its weights: `{"state_dict": …, "optimizer": …}`, or the weights
twice, as trained and as an average.  Which of several sets is meant is for the user to say.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from satbench.core.downloads import is_web_page
from satbench.core.errors import SatbenchError

State = dict[str, Tensor]

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")
"""Endings of files that torch.save wrote."""

WEIGHTS = (".safetensors", *PICKLES)
"""Endings of files of weights."""

_NO_WEIGHTS = re.compile(r"optim|sched|scaler|amp_|rng", re.IGNORECASE)
_LFS = b"version https://git-lfs.github.com/spec/"


def read_state(path: Path, copy: str = "") -> State:
    """Read one set of weights, name to tensor on the CPU.

    `copy` names the set by its key, such as `ema` or `state_dict_ema`; it is needed where a file
    holds several.  Raises SatbenchError for a file that is missing, of another format, corrupt,
    a web page, or a pickle that would run code, and where the set is not clear.
    """
    check_kind(path)
    if path.suffix == ".safetensors":
        if copy:
            raise SatbenchError(f"{path} holds one set of weights: name it without #{copy}")
        return _read_safetensors(path)
    return _chosen(path, list(_sets(read_pickle(path))), copy)


def check_kind(path: Path) -> None:
    """Raise SatbenchError unless `path` is a file that may hold weights."""
    if not path.is_file():
        raise SatbenchError(f"expected weights at {path}, which is missing")
    if path.suffix not in WEIGHTS:
        raise SatbenchError(
            f"expected weights in one of the formats {', '.join(WEIGHTS)}, got {path.name}"
        )
    with path.open("rb") as file:
        start = file.read(2048)
    if is_web_page(start):
        raise SatbenchError(
            f"{path} is a web page saved under the name of weights, such as a login or a warning "
            "before a large download: delete it and fetch the weights themselves"
        )
    if start.startswith(_LFS):
        raise SatbenchError(
            f"{path} only points to weights kept by Git LFS: run `git lfs pull` in its repository"
        )


def read_pickle(path: Path) -> object:
    """Read what torch.save wrote, as far as it is data: tensors, numbers, text and containers.

    Raises SatbenchError for a file that is corrupt or that names code to be run.
    """
    try:
        with harmless_globals():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise _corrupt(path, str(error).splitlines()[0]) from None
        raise SatbenchError(
            f"{path} asks to run {named[1]} while it is read, so it was not read: weights are "
            "tensors alone; have its owner save model.state_dict(), or a safetensors file"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _corrupt(path, str(error).splitlines()[0] if str(error) else "it ends") from None


@contextmanager
def harmless_globals() -> Iterator[None]:
    """Let a pickle hold NumPy numbers and the options of argparse, as training scripts save them.

    Building any of these runs no code of the file.
    """
    scalar = cast(Callable[..., object], np.float64(0).__reduce__()[0])
    kinds = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")]
    named: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        *(argparse.Namespace, np.dtype, *kinds),
        (scalar, "numpy.core.multiarray.scalar"),  # as NumPy 1 names it
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    known = torch.serialization.get_safe_globals()  # which would be forgotten at the end
    with torch.serialization.safe_globals([one for one in named if one not in known]):
        yield


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _corrupt(path, str(error)) from None


def _corrupt(path: Path, reason: str) -> SatbenchError:
    return SatbenchError(f"the weights {path} are corrupt ({reason}); fetch them again")


def _sets(value: object, where: tuple[str, ...] = ()) -> Iterator[tuple[str, State]]:
    """Find the sets of weights in a checkpoint, each with its key."""
    if not isinstance(value, Mapping):
        return
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
    # A number that was saved as a tensor beside the weights is no set of its own.
    if tensors and (len(tensors) == len(value) or any("." in name for name in tensors)):
        yield ".".join(where), tensors
        return
    for key, inner in value.items():
        if isinstance(key, str) and not _NO_WEIGHTS.search(key):
            yield from _sets(inner, (*where, key))


def _chosen(path: Path, sets: list[tuple[str, State]], copy: str) -> State:
    names = ", ".join(name for name, _ in sets if name)
    if copy:
        for name, state in sets:
            if name == copy:
                return state
        raise SatbenchError(
            f"{path} has no weights called {copy!r}; it has {names or 'one set without a name'}"
        )
    if not sets:
        raise SatbenchError(f"{path} holds no weights: expected tensors by name, a state dict")
    if len(sets) > 1:
        raise SatbenchError(
            f"{path} holds several sets of weights ({names}), and they give different results: "
            f"name one, such as {path.name}#{sets[-1][0]}"
        )
    return sets[0][1]
