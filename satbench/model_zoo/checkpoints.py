"""A reader for weights in the usual checkpoint layouts.  No code from a file is ever run.

A checkpoint often holds more than the weights: `{"state_dict": …, "optimizer": …}`, or the weights
twice, as trained and as an average.  The user chooses between several sets.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from satbench.model_zoo.file_kinds import another_kind, is_safetensors
from satbench.model_zoo.plain_pickle import RefusedError
from satbench.model_zoo.torch_file import read_torch_file

State = dict[str, Tensor]

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")
"""Usual suffixes of torch.save files; files with other suffixes are read as well."""

WEIGHTS = (".safetensors", *PICKLES)
"""Usual suffixes of files of weights."""

_NO_WEIGHTS = re.compile(r"^opt|optim|sched|scaler|amp_|rng", re.IGNORECASE)
_DEEP = 6  # levels of keys above a set of weights, at most
_LFS = b"version https://git-lfs.github.com/spec/"


def read_state(path: Path, copy: str = "") -> State:
    """Read one set of weights, name to tensor on the CPU.

    `copy` names the set by its key, such as `ema` or `state_dict_ema`; it is needed if a file holds
    several that differ.  The format is found from the contents of the file, not from its name.
    Raises SatbenchError for a file that is missing, of another format, corrupt, a web page, or a
    pickle that would run code, and if `copy` is needed and not given.
    """
    check_kind(path)
    if is_safetensors(path):
        if copy:
            raise SatbenchError(f"{path} holds one set of weights: leave out #{copy}")
        return _read_safetensors(path)
    return _chosen(path, _sets_of(read_pickle(path)), copy)


def picked(state: State, keys: str, drop: Sequence[str], path: Path) -> State:
    """Return the tensors whose names begin with `keys`, which is removed, and with none of `drop`.

    Both are prefixes of the file's names, in whole parts between dots.  Empty `keys` selects all
    names, empty `drop` leaves none out.  Raises SatbenchError for a prefix of no name.
    """
    for prefix in drop:
        kept = {name: tensor for name, tensor in state.items() if not _within(name, prefix)}
        if len(kept) == len(state):
            raise _no_name(state, "--drop-keys", prefix, path)
        state = kept
    if not keys:
        return state
    chosen = {name: tensor for name, tensor in state.items() if _within(name, keys)}
    if not chosen:
        raise _no_name(state, "--keys", keys, path)
    start = f"{keys.rstrip('.')}."
    return {name.removeprefix(start): tensor for name, tensor in chosen.items()}


def _within(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix.rstrip('.')}.")


def _no_name(state: State, option: str, prefix: str, path: Path) -> SatbenchError:
    firsts = sorted({name.partition(".")[0] for name in state})
    if len(firsts) == 1:  # one prefix of all names, so show the next level
        firsts = sorted({".".join(name.split(".")[:2]) for name in state})
    shown = ", ".join(firsts[:8]) + (", …" if len(firsts) > 8 else "")
    return SatbenchError(
        f"expected {option} to begin the name of a tensor in {path}, got {prefix!r}; names there "
        f"begin with {shown}"
    )


def check_kind(path: Path) -> None:
    """Raise SatbenchError unless `path` is a file that may hold weights."""
    if not os.path.isfile(path):
        raise SatbenchError(f"expected weights at {path}, which is missing")
    with path.open("rb") as file:
        start = file.read(2048)
    if is_web_page(start):
        raise SatbenchError(
            f"{path} is a web page saved under the name of weights, such as a login or a warning "
            "before a large download: delete it and download the weights"
        )
    if start.startswith(_LFS):
        raise SatbenchError(
            f"{path} is only a pointer to weights in Git LFS: run `git lfs pull` in its repository"
        )
    if kind := another_kind(path, start):
        raise SatbenchError(f"expected weights in {path}, as safetensors or torch.save, got {kind}")


def read_pickle(path: Path) -> object:
    """Read a file of torch.save or pickle, if it holds only data.

    Data are tensors, numbers, text, dates, paths, containers, NumPy arrays and generators, argparse
    options and common configurations.  Raises SatbenchError for a file that is corrupt or that
    would run code.
    """
    try:
        return read_torch_file(path)
    except RefusedError as error:
        raise SatbenchError(
            f"{path} would run {error.name} while it is read, so it was not read: "
            f"{_why(error.name)}; ask its owner for model.state_dict() or a safetensors file"
        ) from None
    except Exception as error:  # pickle may raise anything on a broken file
        if path.suffix not in WEIGHTS:
            raise SatbenchError(
                f"expected weights in one of the formats {', '.join(WEIGHTS)}, got {path.name}"
            ) from None
        raise _corrupt(path, str(error).splitlines()[0] if str(error) else "truncated") from None


@contextmanager
def harmless_globals() -> Iterator[None]:
    """Allow NumPy numbers and argparse options in a pickle, which training scripts save.

    Building these runs no code of the file.
    """
    scalar = cast(Callable[..., object], np.float64(0).__reduce__()[0])
    kinds = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")]
    named: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        *(argparse.Namespace, np.dtype, *kinds),
        (scalar, "numpy.core.multiarray.scalar"),  # the name in NumPy 1
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    known = torch.serialization.get_safe_globals()  # safe_globals would drop these at its end
    with torch.serialization.safe_globals([one for one in named if one not in known]):
        yield


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _corrupt(path, str(error)) from None


def _corrupt(path: Path, reason: str) -> SatbenchError:
    return SatbenchError(f"the weights {path} are corrupt ({reason}); fetch them again")


def _why(name: str) -> str:
    """Explain why a file that calls `name` was not read."""
    package = name.partition(".")[0]
    if package in _SYSTEM:
        return "no weights need that, so do not trust its source"
    if name.startswith(("torch.nn.", "torchvision.", "timm.", "transformers.")):
        return "it holds a whole model, which only code can build, and not only its weights"
    if "_rebuild_qtensor" in name:
        return "its tensors are quantised, and networks here are float32"
    if package == "torch":
        return "it holds an object of torch that satbench does not read"
    return f"it holds an object that only the code of {package} can build"


_SYSTEM = {
    *("builtins", "os", "posix", "nt", "sys", "subprocess", "shutil", "runpy", "importlib"),
    *("pathlib", "io", "socket", "ctypes", "pickle", "webbrowser", "pty", "code", "codecs"),
    *("operator", "types", "marshal", "multiprocessing", "threading", "urllib", "http"),
}
"""Python modules that act on the machine or run code."""


def _sets_of(value: object) -> list[tuple[str, State]]:
    """Return the sets of weights in a checkpoint, each with its key."""
    return list(_sets(value)) or list(_sets(value, arrays=True))


def _sets(
    value: object, where: tuple[str, ...] = (), arrays: bool = False
) -> Iterator[tuple[str, State]]:
    """Find the sets of weights; with `arrays`, NumPy arrays count as tensors."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = {str(place): inner for place, inner in enumerate(value)} if where == () else {}
    if not isinstance(value, Mapping) or len(where) > _DEEP:
        return
    tensors = {
        name: tensor
        for name, inner in value.items()
        if isinstance(name, str) and (tensor := _as_tensor(inner, arrays)) is not None
    }
    # A single number saved as a tensor next to the weights is not a set.
    if tensors and (len(tensors) == len(value) or any("." in name for name in tensors)):
        yield ".".join(where), tensors
        return
    for key, inner in value.items():
        if isinstance(key, str) and not _NO_WEIGHTS.search(key):
            yield from _sets(inner, (*where, key), arrays)


def _as_tensor(value: object, arrays: bool) -> Tensor | None:
    if arrays and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value)
    return value if isinstance(value, Tensor) else None


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def _chosen(path: Path, sets: list[tuple[str, State]], copy: str) -> State:
    names = ", ".join(name for name, _ in sets if name)
    if copy:
        for name, state in sets:
            if name == copy:
                return state
        raise SatbenchError(
            f"{path} has no weights named {copy!r}; it has {names or 'one set without a name'}"
        )
    if not sets:
        raise SatbenchError(f"{path} holds no weights: expected tensors by name, a state dict")
    # Single numbers saved as tensors, such as the best loss, are not a network.
    sets = [one for one in sets if any(t.dim() > 1 for t in one[1].values())] or sets
    names = ", ".join(name for name, _ in sets if name)
    if not all(_same(state, sets[0][1]) for _, state in sets[1:]):
        raise SatbenchError(
            f"{path} holds several sets of weights ({names}), and they give different results: "
            f"name one, such as {path.name}#{sets[-1][0]}"
        )
    return sets[0][1]
