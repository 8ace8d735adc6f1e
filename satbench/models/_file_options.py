"""What a user says of a file of weights that does not say it itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypedDict

from satbench.core.errors import SatbenchError


@dataclass(frozen=True)
class FileOptions:
    """How a file of weights is to be read; empty is what the file says, or what is usual.

    `architecture` and `activation` are specs; `preset` stands for both, for a normalisation and
    for a layout (`satbench.model_zoo.presets`).  `normalize` says how the network normalises its
    pixels, a name or `MEAN;STD`; `keys` is the beginning of the names of the tensors that are
    meant, `drop_keys` of those that are not.
    """

    architecture: str | None = None
    activation: str | None = None
    preset: str | None = None
    normalize: str | None = None
    keys: str = ""
    drop_keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        dropped = self.drop_keys
        several = (dropped,) if isinstance(dropped, str) else tuple(dropped)
        object.__setattr__(self, "drop_keys", several)
        if self.preset and self.architecture:
            raise SatbenchError(
                f"the preset {self.preset!r} says which architecture it is: give --preset or "
                "--arch; settings go with the preset, such as 'trades(depth=28)'"
            )

    @property
    def given(self) -> list[str]:
        """The options that were given, as the command line names them."""
        names = [one.name for one in fields(self) if getattr(self, one.name)]
        return [f"--{_SHORT.get(name, name).replace('_', '-')}" for name in names]


class FileKeywords(TypedDict, total=False):
    """The fields of FileOptions as keywords."""

    architecture: str | None
    activation: str | None
    preset: str | None
    normalize: str | None
    keys: str
    drop_keys: Sequence[str]


_SHORT = {"architecture": "arch"}
