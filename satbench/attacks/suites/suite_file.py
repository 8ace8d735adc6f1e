"""Suites as data: a TOML file of parts, each the spec of an attack, becomes a composite attack.

The shipped suites are the files in `attacks/` at the top of the repository; a user's own suite is
given by its path, `--attack FILE.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from satbench.core.content import content_folder
from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.core.schema import read_toml
from satbench.core.threat import Norm

SCHEMA = 1


@dataclass(frozen=True)
class Parameter:
    """A whole number as a parameter: its default, the least valid value, and the reason."""

    default: int
    least: int = 1
    otherwise: str = ""


@dataclass(frozen=True)
class SuitePart:
    """One part of a suite, run on the images that the parts before it left.

    `attack` is its spec; `{name}` in it is the value of a parameter of the suite.  The part attacks
    the share `weakest` of the survivors, those of least margin, and a random share `sample` of all;
    with neither it attacks every survivor.  `after` names parts by the beginning of their names,
    with `*` for any letters: the part runs only if one of these broke an image; with `above`, only
    if one of these broke more than that share of the images that it attacked.  The part is left out
    if a parameter has a value of `unless`.

    `escalate` makes the part a gated one (decision 20).  The gate closes when the first gated part
    begins: the survivors are ranked by margin at that moment, and `weakest` is a share of that
    ranking.  After the last gated part the gate opens if parts since then broke an image beyond the
    share `escalate` of the ranking; with `late`, only if they broke more than that share of the
    ranking there, or an image beyond the greatest `weakest` of the gated parts.  Then each gated
    part attacks the other survivors too, as the part `NAME/others`.

    `flag` flags the record if the part runs because of `after`, or because the gate opened.
    """

    name: str
    attack: str
    weakest: float = 0.0
    sample: float = 0.0
    after: list[str] = field(default_factory=list)
    unless: dict[str, str] = field(default_factory=dict)
    above: float = 0.0
    escalate: float = 0.0
    late: float = 0.0
    flag: bool = False

    def is_left_out(self, values: Mapping[str, object]) -> bool:
        """Say whether `unless` leaves the part out for these values of the parameters."""
        return any(values.get(name) == value for name, value in self.unless.items())

    def spec(self, values: Mapping[str, object]) -> str:
        """Return the spec of the attack for these values of the parameters."""
        return re.sub(r"\{(\w+)\}", lambda found: str(values[found[1]]), self.attack)


@dataclass(frozen=True)
class SuiteFile:
    """The contents of a suite's file; `cost` and `use` are for people.

    `older` names the files of older versions in the folder of this one, by the value of the
    parameter `version`.  So a record of an older version can still be checked and made again.
    """

    schema: int
    summary: str
    parts: list[SuitePart]
    source: str = ""
    cost: str = ""
    use: str = ""
    norms: list[Norm] = field(default_factory=lambda: ["linf", "l2", "l1"])
    parameters: dict[str, list[str] | int | str | Parameter] = field(default_factory=dict)
    older: dict[str, str] = field(default_factory=dict)


@cache
def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites, by name."""
    return {path.stem: path for path in sorted(content_folder("attacks").glob("*.toml"))}


@cache
def read_suite(path: Path) -> SuiteFile:
    """Read a suite.  Raises SatbenchError naming file and field."""
    suite = read_toml(path, "suite", SuiteFile)
    fault = _fault(suite)
    if fault:
        raise SatbenchError(f"the suite {path} is wrong: {fault}")
    return suite


def older_versions(path: Path) -> dict[str, SuiteFile]:
    """Return the older versions of the suite in a file, by version."""
    return {name: read_suite(path.parent / file) for name, file in read_suite(path).older.items()}


def suite_of_version(path: Path, version: str | None) -> SuiteFile:
    """Return one version of the suite in a file; None is the current one."""
    return older_versions(path).get(version or "", read_suite(path))


def digest_of(suite: SuiteFile) -> str:
    """Return the SHA-256 of a suite's parts, parameters and norms, without its descriptions."""
    parts = [_told(part) for part in suite.parts]
    kinds = {n: vars(v) if isinstance(v, Parameter) else v for n, v in suite.parameters.items()}
    return digest_json({"parts": parts, "parameters": kinds, "norms": suite.norms})


def _told(part: SuitePart) -> dict[str, Any]:
    """Return the settings of a part without the newer ones that it does not use.

    So the digests of suites that are older than these settings do not change.
    """
    later = {"above": 0.0, "escalate": 0.0, "late": 0.0, "flag": False}
    return {
        key: value for key, value in vars(part).items() if key not in later or value != later[key]
    }


def suite_class(name: str, suite: SuiteFile, older: Mapping[str, SuiteFile] | None = None) -> type:
    """Return the attack class of a suite: a frozen dataclass with its parameters as fields.

    Its method `parts` returns the parts in order, named, as `(name, attack)`.  With a value of
    `version` that is in `older` they are those of that suite.
    """
    fields = [(key, *_field(value)) for key, value in suite.parameters.items()]
    least = {key: one for key, one in suite.parameters.items() if not isinstance(one, str | list)}

    def check(self: Any) -> None:
        for key, one in least.items():
            bound = one if isinstance(one, Parameter) else Parameter(one)
            if getattr(self, key) < bound.least:
                more = f"; {bound.otherwise}" if bound.otherwise else ""
                raise SatbenchError(
                    f"{name}: expected {key} of {bound.least} or more, "
                    f"got {getattr(self, key)}{more}"
                )

    def parts(self: Any) -> tuple[tuple[str, object], ...]:
        from satbench.attacks.suites.suite_parts import parts_of

        chosen = (older or {}).get(getattr(self, "version", ""), suite)
        return parts_of(name, chosen, vars(self))

    namespace: dict[str, Any] = {
        "__post_init__": check,
        "parts": parts,
        "norms": tuple(suite.norms),
        "__annotations__": {"norms": ClassVar[tuple[str, ...]]},
        "__module__": __name__,
        "__doc__": suite.summary,
    }
    if "source" in suite.parameters:
        namespace["surrogates"] = property(_surrogates)
    return make_dataclass(name, fields, frozen=True, namespace=namespace)


def _surrogates(self: Any) -> tuple[str, ...]:
    """Return the surrogates: the parameter `source`, joined by +; none for `none`."""
    return () if self.source == "none" else tuple(self.source.split("+"))


def _field(value: list[str] | int | str | Parameter) -> tuple[Any, Any]:
    """Return the type and the default of a parameter."""
    if isinstance(value, list):
        return Literal[tuple(value)], field(default=value[0])
    if isinstance(value, Parameter):
        return int, field(default=value.default)
    return type(value), field(default=value)


def _fault(suite: SuiteFile) -> str:
    """Return what is wrong with a suite beyond the types of its fields, empty if nothing is."""
    names = [part.name for part in suite.parts]
    if suite.schema != SCHEMA:
        return f"schema: expected {SCHEMA}, got {suite.schema}; update satbench"
    if not names or not all(names) or len(set(names)) < len(names):
        return "parts: expected one or more, of different names that are not empty"
    if not suite.norms:
        return "norms: expected one or more of linf, l2 and l1"
    for key, value in suite.parameters.items():
        if not key.isidentifier() or value == []:
            return f"parameters.{key}: expected a name and a default"
    versions = suite.parameters.get("version", [])
    for version in suite.older:
        if not isinstance(versions, list) or version not in versions[1:]:
            return f"older.{version}: expected a value of the parameter version after the first"
    for number, part in enumerate(suite.parts):
        place = f"parts[{number}] ({part.name})"
        shares = (part.weakest, part.sample, part.above, part.escalate, part.late)
        if not all(0 <= share <= 1 for share in shares):
            return f"{place}: expected weakest, sample, above, escalate, late as shares in [0, 1]"
        if part.above and not part.after:
            return f"{place}: above is a share for the parts of after, and there is no after"
        if part.escalate and (part.after or not part.weakest):
            return f"{place}: escalate is for a part with weakest and without after"
        if part.late and not part.escalate:
            return f"{place}: late is a share beyond that of escalate, and there is no escalate"
        if part.flag and not (part.after or part.escalate):
            return f"{place}: flag is for a part with after or escalate: others always run"
        asked = {*re.findall(r"\{(\w+)\}", part.attack), *part.unless}
        if unknown := asked - set(suite.parameters):
            return f"{place}: the suite has no parameter {sorted(unknown)[0]!r}"
    return ""
