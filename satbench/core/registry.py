"""A registry maps a name to the place of the thing it names, and imports it when asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from satbench.core.errors import UnknownNameError


@dataclass(frozen=True)
class Entry:
    """One registry line.

    `target` is `package.module:attribute`; it is imported on first use, so that listing names
    costs no import of torch. `source` says where the thing was published.
    """

    name: str
    target: str
    summary: str
    source: str = ""

    def load(self) -> object:
        """Import the thing."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


class Registry:
    """Names of one kind (`attack`, `activation`, …), in the order they were registered."""

    def __init__(self, kind: str, entries: tuple[Entry, ...] = ()) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Register an entry.  Raises ValueError for a name registered twice."""
        if entry.name in self._entries:
            raise ValueError(f"{self.kind} {entry.name!r} is registered twice")
        self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> Entry:
        """Return the entry called `name`.  Raises UnknownNameError with the nearest name."""
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Return the names, in order."""
        return list(self._entries)
