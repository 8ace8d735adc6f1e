"""A registry maps a name to the place of an object, and imports the object when needed.

Other packages add names through entry points, in the group `satbench.attacks` for attacks,
`satbench.activations` for activations, and so on.  They are found without an import.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.specs import split_spec


@dataclass(frozen=True)
class Entry:
    """One registry line.

    `target` is `package.module:attribute`; it is imported on first use, so that a list of names
    needs no torch.  `source` is its publication.  `plugin` is the distribution that added the line,
    empty for satbench itself.
    """

    name: str
    target: str
    summary: str
    source: str = ""
    plugin: str = ""

    def load(self) -> object:
        """Import the object. Raises SatbenchError if a plug-in cannot be imported."""
        module, _, attribute = self.target.partition(":")
        if not self.plugin:
            return getattr(import_module(module), attribute)
        try:
            return attrgetter(attribute)(import_module(module))
        except Exception as error:  # a plug-in may fail in any way
            raise SatbenchError(
                f"{self.name!r} comes from the plug-in {self.plugin}, which is broken "
                f"({type(error).__name__}: {error}): update {self.plugin} or uninstall it"
            ) from error


class Registry:
    """Names of one kind (`attack`, `activation`, …): satbench's in order, then the plug-ins'."""

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
        if name in self._entries:
            return self._entries[name]
        if name not in self._all:
            raise UnknownNameError(self.kind, name, self._all)
        return self._all[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._all

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._all.values())

    def names(self) -> list[str]:
        """Return the names, in order."""
        return list(self._all)

    def plugin_of(self, spec: str) -> str:
        """Return the plug-in whose code a spec would run; empty if there is none."""
        try:
            name, _ = split_spec(spec)
        except SatbenchError:
            return ""
        return self[name].plugin if name in self else ""

    @property
    def faults(self) -> list[str]:
        """Return the problems of plug-ins that can be found without importing them."""
        return self._plugins[1]

    @property
    def _all(self) -> dict[str, Entry]:
        # A plug-in cannot replace a name of satbench.
        return self._entries | self._plugins[0] | self._entries

    @cached_property
    def _plugins(self) -> tuple[dict[str, Entry], list[str]]:
        found: dict[str, Entry] = {}
        faults: list[str] = []
        for point in sorted(entry_points(group=f"satbench.{_plural(self.kind)}"), key=_origin):
            name, plugin = point.name, _origin(point)[0]
            if name in self._entries or name in found:
                owner = found[name].plugin if name in found else "satbench"
                faults.append(
                    f"the {self.kind} {name!r} of the plug-in {plugin} is left out: "
                    f"{owner} has one of that name"
                )
            elif not all(part.strip() for part in (*point.value.partition(":"),)):
                faults.append(
                    f"the {self.kind} {name!r} of the plug-in {plugin} is left out: "
                    f"expected package.module:attribute, got {point.value!r}"
                )
            else:
                summary = f"from the plug-in {plugin}"
                found[name] = Entry(name, point.value, summary, plugin=plugin)
        return found, faults


def _origin(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name if point.dist else "unknown"), point.name


def _plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
