"""The options that describe a file of weights, if it does not describe itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypedDict

from satbench.core.errors import SatbenchError


@dataclass(frozen=True)
class FileOptions:
    """How to read a file of weights; an empty field means what the file says, or the default.

    `architecture` and `activation` are specs; `preset` replaces both, and the normalisation and
    layout (`satbench.model_zoo.presets`).  `normalize` says how the network normalises pixels, a
    name or `MEAN;STD`.  Only tensors whose names begin with `keys` are used, without those that
    begin with one of `drop_keys`.
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
                f"the preset {self.preset!r} includes the architecture: give --preset or --arch, "
                "not both; settings go into the preset, such as 'trades(depth=28)'"
            )

    @property
    def given(self) -> list[str]:
        """The given options, by their names on the command line."""
        names = [one.name for one in fields(self) if getattr(self, one.name)]
        return [f"--{_SHORT.get(name, name).replace('_', '-')}" for name in names]


class FileKeywords(TypedDict, total=False):
    """The fields of `FileOptions` as keyword arguments."""

    architecture: str | None
    activation: str | None
    preset: str | None
    normalize: str | None
    keys: str
    drop_keys: Sequence[str]


_SHORT = {"architecture": "arch"}
