"""Weights in a file of one's own for the networks of other libraries: `SOURCE:NAME@FILE`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from satbench.core.errors import SatbenchError
from satbench.models._file_options import FileOptions
from satbench.models._foreign import settled
from satbench.models._loaded import LoadedModel, describe_module, normalized

if TYPE_CHECKING:
    from torch import Tensor, nn

_OF_A_FILE = ("--normalize", "--keys", "--drop-keys")


@runtime_checkable
class Told(Protocol):
    """A source whose weights may lie in a file that does not say everything itself."""

    @property
    def file(self) -> LocalFile | None: ...

    def told(self, options: FileOptions) -> Self:
        """Return the source with what the user says of its file.  Raises SatbenchError."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file of weights, `PATH` or `PATH#COPY`, and what its user says of it."""

    text: str
    options: FileOptions = field(default_factory=FileOptions)

    @classmethod
    def at(cls, text: str) -> Self:
        """Return the file at a path.  Raises SatbenchError where there is none."""
        file = cls(text)
        if not file.path.is_file():
            raise SatbenchError(f"expected weights at {file.path}, which is missing")
        return file

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.text.partition("#")[0]).expanduser()

    @property
    def name(self) -> str:
        """What a record calls it: its name without the ending."""
        copy = self.text.partition("#")[2]
        return self.path.stem + (f"#{copy}" if copy else "")

    def state(self) -> dict[str, Tensor]:
        """Read the tensors that are meant.  Raises SatbenchError."""
        from satbench.model_zoo.checkpoints import picked, read_state

        state = read_state(self.path, self.text.partition("#")[2])
        return picked(state, self.options.keys, self.options.drop_keys, self.path)

    def told(self, options: FileOptions, source: str) -> LocalFile:
        """Return it with what the user says of it.  Raises SatbenchError for what is known."""
        if wrong := [one for one in options.given if one not in _OF_A_FILE]:
            raise SatbenchError(f"{source} says already what {' and '.join(wrong)} would say")
        return replace(self, options=options)


def is_file(text: str) -> bool:
    """Whether what follows an @ means a file: one that is there, or a path by its look."""
    path = text.partition("#")[0]
    return os.path.isfile(Path(path).expanduser()) or "/" in path or os.sep in path or "." in path


def load_local(
    file: LocalFile,
    architecture: str,
    make: Callable[[int], nn.Module],
    constants: Callable[[nn.Module], tuple[tuple[float, ...], tuple[float, ...]]],
    classes: int,
) -> LoadedModel:
    """Build a network for as many classes as a file has weights for, and load it, strictly.

    `make` takes the number of classes, `constants` gives the mean and the deviation that are usual
    for the network: they are assumed where neither the file nor its user tells others, and the
    record says so.  `classes` is the data set's count, for files that do not tell.  Raises
    SatbenchError for weights that do not fit, and constants that are not those of the file.
    """
    from satbench.model_zoo.fitting import classes_in, load_state
    from satbench.networks.normalize import Normalize, normalize_text

    state = file.state()
    network = make(classes)
    if (there := classes_in(network, state)) and there != classes:
        network = make(there)
    module = normalized(network, *constants(network))
    (layer,) = (one for one in module if isinstance(one, Normalize))
    usual = normalize_text(layer)
    from_file = load_state(module, state, file.path)
    assumed = settled([layer], file.options.normalize, None, from_file, file.path)
    now = normalize_text(layer)
    info = replace(
        describe_module(module, file.name, "file"),
        architecture=architecture + ("" if now == usual else f" normalised by {now}"),
        assumed=" ".join(assumed),
    )
    return LoadedModel(module, info, None)
