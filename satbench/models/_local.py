"""A user's own weights for networks of other libraries: `SOURCE:NAME@FILE`."""

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
class WithFile(Protocol):
    """A source that can take its weights from a file, which options may describe."""

    @property
    def file(self) -> LocalFile | None: ...

    def with_options(self, options: FileOptions) -> Self:
        """Return the source with options for its file.  Raises SatbenchError."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file of weights, `PATH` or `PATH#COPY`, with the options that describe it."""

    text: str
    options: FileOptions = field(default_factory=FileOptions)

    @classmethod
    def at(cls, text: str) -> Self:
        """Return the file at a path.  Raises SatbenchError if there is none."""
        file = cls(text)
        if not file.path.is_file():
            raise SatbenchError(f"expected weights at {file.path}, which is missing")
        return file

    @property
    def path(self) -> Path:
        """The path without the copy."""
        return Path(self.text.partition("#")[0]).expanduser()

    @property
    def name(self) -> str:
        """The name in a record: the file's name without the ending."""
        copy = self.text.partition("#")[2]
        return self.path.stem + (f"#{copy}" if copy else "")

    def state(self) -> dict[str, Tensor]:
        """Read the chosen tensors.  Raises SatbenchError."""
        from satbench.model_zoo.checkpoints import picked, read_state

        state = read_state(self.path, self.text.partition("#")[2])
        return picked(state, self.options.keys, self.options.drop_keys, self.path)

    def with_options(self, options: FileOptions, source: str) -> LocalFile:
        """Return the file with options.  Raises SatbenchError for options that `source` implies."""
        if wrong := [one for one in options.given if one not in _OF_A_FILE]:
            raise SatbenchError(
                f"{source} already determines {' and '.join(wrong)}: leave out these options"
            )
        return replace(self, options=options)


def is_file(text: str) -> bool:
    """Whether the text after an @ is a file: it exists, or it looks like a path."""
    path = text.partition("#")[0]
    return os.path.isfile(Path(path).expanduser()) or "/" in path or os.sep in path or "." in path


def load_local(
    file: LocalFile,
    architecture: str,
    make: Callable[[int], nn.Module],
    constants: Callable[[nn.Module], tuple[tuple[float, ...], tuple[float, ...]]],
    classes: int,
) -> LoadedModel:
    """Build a network with the number of classes of a file's weights, and load them strictly.

    `make` takes the number of classes.  `constants` returns the usual mean and deviation of the
    network; they are assumed if neither the file nor the user gives others, and the record says so.
    `classes` is that of the data set, for files that do not show it.  Raises SatbenchError for
    weights that do not fit, and for constants that differ from those of the file.
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
