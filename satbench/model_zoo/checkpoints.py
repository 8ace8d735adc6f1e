"""Files of weights in the layouts that people save them in.  No code from a file is ever run.

A checkpoint is often more than its weights: `{"state_dict": …, "optimizer": …}`, or the weights
twice, as trained and as an average.  Which of several sets is meant is for the user to say.
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
"""Usual endings of files that torch.save wrote; any other is read too."""

WEIGHTS = (".safetensors", *PICKLES)
"""Usual endings of files of weights."""

_NO_WEIGHTS = re.compile(r"^opt|optim|sched|scaler|amp_|rng", re.IGNORECASE)
_DEEP = 6  # keys above a set of weights, at most
_LFS = b"version https://git-lfs.github.com/spec/"


def read_state(path: Path, copy: str = "") -> State:
    """Read one set of weights, name to tensor on the CPU.

    `copy` names the set by its key, such as `ema` or `state_dict_ema`; it is needed where a file
    holds several that differ.  What the file is, its contents say, not its name.  Raises
    SatbenchError for a file that is missing, of another format, corrupt, a web page, or a pickle
    that would run code, and where the set is not clear.
    """
    check_kind(path)
    if is_safetensors(path):
        if copy:
            raise SatbenchError(f"{path} holds one set of weights: name it without #{copy}")
        return _read_safetensors(path)
    return _chosen(path, _sets_of(read_pickle(path)), copy)


def picked(state: State, keys: str, drop: Sequence[str], path: Path) -> State:
    """Return the tensors whose names begin with `keys`, without it, and with none of `drop`.

    Both are beginnings of the names in the file, whole parts between dots; empty for all and none.
    Raises SatbenchError for one that no name begins with.
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
    if len(firsts) == 1:  # a wrapper around all, whose parts say more
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
            "before a large download: delete it and fetch the weights themselves"
        )
    if start.startswith(_LFS):
        raise SatbenchError(
            f"{path} only points to weights kept by Git LFS: run `git lfs pull` in its repository"
        )
    if kind := another_kind(path, start):
        raise SatbenchError(f"expected weights in {path}, as safetensors or torch.save, got {kind}")


def read_pickle(path: Path) -> object:
    """Read what torch.save or pickle wrote, as far as it is data: tensors and what is beside them.

    Numbers, text, dates, paths, containers, arrays and generators of NumPy, options of argparse
    and common configurations are data.  Raises SatbenchError for a file that is corrupt or that
    names code to be run.
    """
    try:
        return read_torch_file(path)
    except RefusedError as error:
        raise SatbenchError(
            f"{path} asks to run {error.name} while it is read, so it was not read: "
            f"{_why(error.name)}; have its owner save model.state_dict(), or a safetensors file"
        ) from None
    except Exception as error:  # a broken pickle can make pickle raise anything
        if path.suffix not in WEIGHTS:
            raise SatbenchError(
                f"expected weights whose contents are of one of the formats {', '.join(WEIGHTS)}, "
                f"got {path.name}"
            ) from None
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


def _why(name: str) -> str:
    """Say what a global stands for that a file wants called."""
    package = name.partition(".")[0]
    if package in _SYSTEM:
        return "no weights need that, so do not trust where it comes from"
    if name.startswith(("torch.nn.", "torchvision.", "timm.", "transformers.")):
        return "it holds a whole model, which only code can make, and not its weights alone"
    if "_rebuild_qtensor" in name:
        return "its tensors are quantised, and networks here are made of float32"
    if package == "torch":
        return "it holds a kind of object beside plain tensors that is not read here"
    return f"it holds an object that only the code of {package} can make"


_SYSTEM = {
    *("builtins", "os", "posix", "nt", "sys", "subprocess", "shutil", "runpy", "importlib"),
    *("pathlib", "io", "socket", "ctypes", "pickle", "webbrowser", "pty", "code", "codecs"),
    *("operator", "types", "marshal", "multiprocessing", "threading", "urllib", "http"),
}
"""Modules of Python that act on the machine or run what they are given."""


def _sets_of(value: object) -> list[tuple[str, State]]:
    """Return the sets of weights in a checkpoint, each with its key."""
    return list(_sets(value)) or list(_sets(value, arrays=True))


def _sets(
    value: object, where: tuple[str, ...] = (), arrays: bool = False
) -> Iterator[tuple[str, State]]:
    """Find the sets of weights; `arrays` takes those of NumPy for tensors."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = {str(place): inner for place, inner in enumerate(value)} if where == () else {}
    if not isinstance(value, Mapping) or len(where) > _DEEP:
        return
    tensors = {
        name: tensor
        for name, inner in value.items()
        if isinstance(name, str) and (tensor := _as_tensor(inner, arrays)) is not None
    }
    # A number that was saved as a tensor next to the weights is not a set.
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
            f"{path} has no weights called {copy!r}; it has {names or 'one set without a name'}"
        )
    if not sets:
        raise SatbenchError(f"{path} holds no weights: expected tensors by name, a state dict")
    # Numbers that were kept as tensors, such as the best loss, are no network.
    sets = [one for one in sets if any(t.dim() > 1 for t in one[1].values())] or sets
    names = ", ".join(name for name, _ in sets if name)
    if not all(_same(state, sets[0][1]) for _, state in sets[1:]):
        raise SatbenchError(
            f"{path} holds several sets of weights ({names}), and they give different results: "
            f"name one, such as {path.name}#{sets[-1][0]}"
        )
    return sets[0][1]
