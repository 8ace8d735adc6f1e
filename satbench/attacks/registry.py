"""The names of attacks, and the reader that turns a spec into an attack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from satbench.attacks.defaults import shipped_defaults
from satbench.attacks.suites.suite_file import (
    digest_of,
    read_suite,
    shipped_suites,
    suite_class,
    suite_of_version,
)
from satbench.core.errors import SatbenchError
from satbench.core.registry import Entry, Registry
from satbench.core.specs import build, check_spec_text, spec_of, split_spec
from satbench.core.threat import Threat
from satbench.engine.traits import (
    Composite,
    check_attack,
    check_class,
    check_step_text,
    traits_of,
)

if TYPE_CHECKING:  # the contract needs torch, and names must work without it
    from satbench.engine.contract import Attack

_PLACED = ("autoattack", "fast", "autoattack-rand")  # the others follow `fast`, by name


def _suite(name: str) -> Entry:
    """Return the registry entry of a shipped suite."""
    suite = read_suite(shipped_suites()[name])
    return Entry(name, f"satbench.attacks.suites.shipped:{name}", suite.summary, suite.source)


ATTACKS = Registry(
    "attack",
    (
        Entry(
            "pgd",
            "satbench.attacks.gradient.pgd:PGD",
            "projected gradient descent on the cross-entropy; pgd-K takes K steps",
            "Madry et al., 2018, arXiv:1706.06083",
        ),
        _suite("autoattack"),
        _suite("fast"),
        *(_suite(name) for name in shipped_suites() if name not in _PLACED),
        Entry(
            "audit",
            "satbench.attacks.suites.audit:Audit",
            "AutoAttack on the weakest survivors and a random sample, for a bound on the others",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        Entry(
            "cosine-pgd",
            "satbench.attacks.gradient.cosine:CosinePGD",
            "PGD with a decaying step: loss ce, margin, gama, mifpe, dlr; backward=softplus(10)",
            "Sriramanan et al., 2020, arXiv:2011.14969; Xie et al., 2020, arXiv:2006.14536",
        ),
        Entry(
            "malt",
            "satbench.attacks.gradient.malt:MALT",
            "targeted margin searches, the nearest targets first",
            "Melamed et al., 2024, arXiv:2407.02240",
        ),
        Entry(
            "malt-apgd",
            "satbench.attacks.gradient.malt:PublishedMALT",
            "MALT as published: Auto-PGD of 100 steps on each of the 9 nearest targets",
            "Melamed et al., 2024, arXiv:2407.02240",
        ),
        Entry(
            "pma",
            "satbench.attacks.gradient.pma:PMA",
            "the probability margin attack: PGD on the margin of the softmax, term by term",
            "Xie et al., 2025, arXiv:2411.15210",
        ),
        Entry(
            "a3",
            "satbench.attacks.gradient.a3:A3",
            "the adaptive auto attack: 13 rounds that learn how to start and what to attack",
            "Liu et al., 2022, arXiv:2203.05154",
        ),
        Entry(
            "autoattack-reference",
            "satbench.attacks.packages.pyautoattack_attacks:AutoAttackReference",
            "AutoAttack run by the package that defines it, pyautoattack",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        _suite("autoattack-rand"),
        Entry(
            "apgd-ce",
            "satbench.attacks.gradient.apgd:APGDCE",
            "Auto-PGD on the cross-entropy",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        Entry(
            "apgd-dlr",
            "satbench.attacks.gradient.apgd:APGDDLR",
            "Auto-PGD on the difference of logits ratio",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        Entry(
            "apgd-t",
            "satbench.attacks.gradient.apgd:APGDT",
            "Auto-PGD on the targeted DLR loss, one run per target",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        Entry(
            "fab-t",
            "satbench.attacks.gradient.fab:FABT",
            "targeted FAB, a minimum-norm attack",
            "Croce & Hein, 2020, arXiv:1907.02044",
        ),
        Entry(
            "square",
            "satbench.attacks.score.square:Square",
            "random search with squares, no gradients",
            "Andriushchenko et al., 2020, arXiv:1912.00049",
        ),
        Entry(
            "square-from-best",
            "satbench.attacks.score.square_from_best:SquareFromBest",
            "square from the best points that earlier attacks of the suite found",
            "Andriushchenko et al., 2020, arXiv:1912.00049",
        ),
        Entry(
            "square-flagged",
            "satbench.attacks.score.square_from_best:SquareFlagged",
            "square from the best points, only on images with signs of misleading gradients",
            "Andriushchenko et al., 2020, arXiv:1912.00049",
        ),
        Entry(
            "transfer",
            "satbench.attacks.transfer.surrogates:Transfer",
            "images made on other models, with any of mi, ni, di, ti, si and vmi",
            "Dong et al., 2018, arXiv:1710.06081, and others",
        ),
        Entry(
            "distilled",
            "satbench.attacks.transfer.distilled:Distilled",
            "uses labels only: trains a smooth student on the model's labels, and attacks it",
            "Papernot et al., 2017, arXiv:1602.02697",
        ),
        Entry(
            "foolbox.fmn",
            "satbench.attacks.packages.foolbox_attacks:FMN",
            "fast minimum-norm, for linf, l2 and l1 (Foolbox, its L2 projection fixed)",
            "Pintor et al., 2021, arXiv:2102.12827",
        ),
        Entry(
            "foolbox.ddn",
            "satbench.attacks.packages.foolbox_attacks:DDN",
            "decoupled direction and norm, a minimum-norm attack for l2 (Foolbox)",
            "Rony et al., 2019, arXiv:1811.09600",
        ),
        Entry(
            "foolbox.deepfool",
            "satbench.attacks.packages.foolbox_attacks:DeepFool",
            "DeepFool, a minimum-norm attack for linf and l2 (Foolbox)",
            "Moosavi-Dezfooli et al., 2016, arXiv:1511.04599",
        ),
        Entry(
            "foolbox.cw",
            "satbench.attacks.packages.foolbox_attacks:CarliniWagner",
            "Carlini & Wagner's minimum-norm attack for l2 (Foolbox)",
            "Carlini & Wagner, 2017, arXiv:1608.04644",
        ),
        Entry(
            "foolbox.boundary",
            "satbench.attacks.packages.foolbox_attacks:Boundary",
            "the boundary attack for l2, from labels only (Foolbox)",
            "Brendel et al., 2018, arXiv:1712.04248",
        ),
        Entry(
            "foolbox.hopskipjump",
            "satbench.attacks.packages.foolbox_attacks:HopSkipJump",
            "HopSkipJump for linf and l2, from labels only (Foolbox, each image separately)",
            "Chen et al., 2020, arXiv:1904.02144",
        ),
    ),
)

_OWN: dict[str, type] = {}
"""Suites from the user's own files, by their name in specs."""
_FILES: dict[str, Path] = {}

_GIVEN: dict[str, Attack] = {}
"""Attacks that a user passed as objects in this process, by their text in specs."""

_TOML = re.compile(r"^(?P<path>.+\.toml)(?P<arguments>\(.*\))?$", re.DOTALL)
_PGD_K = re.compile(r"^pgd-(\d+)(\(.*\))?$", re.DOTALL)


def check_attack_name(text: str, threat: Threat | None = None) -> None:
    """Raise SatbenchError unless `text` names a known attack.  Imports no attack.

    If the threat model is known, a step that is too long for it is refused too.
    """
    if text in _GIVEN:
        return
    name, arguments = _split(text)
    if name in _OWN:
        return
    # `pgf-50` is nearer to `pgd` than to any other name without its number.
    entry = ATTACKS[name if name in ATTACKS else re.sub(r"-\d+$", "", name)]
    if threat and not entry.plugin:
        check_step_text(name, arguments, threat)


def parse_attack(text: str) -> Attack:
    """Read `pgd(steps=40,step=eps/10)`, the short form `pgd-40`, or `FILE.toml`, a suite.

    Raises SatbenchError for an unknown name or parameter, a value out of range, and an attack, such
    as a plug-in's, that violates the contract (`satbench.engine.traits`).
    """
    if text in _GIVEN:
        return _GIVEN[text]
    name, arguments = _split(text)
    cls = _OWN[name] if name in _OWN else ATTACKS[name].load()
    check_class(name, cls)
    attack = build(cast("type[Attack]", cls), name, arguments)
    check_attack(name, attack)
    return attack


def attack_spec(text: str) -> str:
    """Return the canonical spec of an attack with all its parameters."""
    return text if text in _GIVEN else spec_of(_split(text)[0], parse_attack(text))


def default_spec(name: str) -> str:
    """Return the canonical spec of an attack at all its defaults, if possible without torch.

    >>> default_spec("square")
    'square(queries=5000,block=250)'
    """
    known = shipped_defaults()
    # A user's suite may have any name; what is not in the file comes from the attack itself.
    return known[name] if name in known and name not in _OWN else attack_spec(name)


def spec_of_object(attack: object) -> str | None:
    """Return the canonical spec of an attack of the registry that is given as an object.

    None for an object of any other class.
    """
    kind = type(attack)
    place = f"{kind.__module__}:{kind.__qualname__}"
    named = (entry.name for entry in ATTACKS if entry.target == place)
    name = next(named, None) or next((k for k, own in _OWN.items() if own is kind), None)
    return spec_of(name, attack) if name else None


def give_attack(text: str, attack: Attack) -> None:
    """Register `text` as the name of an attack that is a user's own object, for this process.

    Raises SatbenchError if its declared traits or its parts are invalid.
    """
    check_attack(text.partition("(")[0], attack)
    _GIVEN[text] = attack


def short_spec(spec: str) -> str:
    """Return the shortest text that means the same: `pgd(steps=50,step=eps/4,…)` -> `pgd-50`.

    A name that is no attack here, such as a third party's `images(…)`, is returned unchanged.  So
    are a file and an attack of a plug-in, whose defaults only its code knows.
    """
    if spec.partition("(")[0] not in _OWN and not is_own_attack(spec):
        return spec
    name, arguments = _split(spec)
    defaults = split_spec(default_spec(name))[1]
    changed = {key: value for key, value in arguments.items() if value != defaults.get(key)}
    if name == "pgd" and "steps" in arguments:
        changed.pop("steps", None)
        name = f"pgd-{arguments['steps']}"
    inside = ",".join(f"{key}={value}" for key, value in changed.items())
    return f"{name}({inside})" if inside else name


def surrogates_in_file(text: str) -> frozenset[str]:
    """Return the models that a suite's file itself names, `FILE.toml` or `FILE.toml(a=…)`.

    Models named in the parameters after the file are left out.  A text without a file names none.
    """
    file = _TOML.match(check_spec_text(text))
    if not file:
        return frozenset()
    attack = parse_attack(text)
    parts = attack.parts() if isinstance(attack, Composite) else ()
    asked = {name for value in _split(text)[1].values() for name in value.split("+")}
    return frozenset(name for _, part in parts for name in traits_of(part).surrogates) - asked


def is_given(spec: str) -> bool:
    """Say whether a spec names an object that was passed in this process."""
    return spec in _GIVEN


def is_own_attack(spec: str) -> bool:
    """Say whether a spec is of one of satbench's own attacks: reading it runs no other code."""
    try:
        name, _ = split_spec(spec)
    except SatbenchError:
        return False
    return ".toml" not in spec and name in ATTACKS and not ATTACKS[name].plugin


def suite_digests(specs: Sequence[str]) -> dict[str, str]:
    """Return the digests of the suites among the canonical `specs`, by name."""
    files = {**shipped_suites(), **_FILES}
    split = [split_spec(spec) for spec in specs]
    return {
        name: digest_of(suite_of_version(files[name], arguments.get("version")))
        for name, arguments in split
        if name in files
    }


def _split(text: str) -> tuple[str, dict[str, str]]:
    """Split the text of an attack into its name and arguments; a file gets its own name."""
    file = _TOML.match(check_spec_text(text))
    if not file:
        return split_spec(expand(text))
    path = Path(file["path"])
    suite = read_suite(path)
    if suite.older:
        raise SatbenchError(
            f"the suite {path} is wrong: older: expected no older versions in a suite of your own; "
            "write each version as a file of its own"
        )
    # The digest is in the name, so that a changed file is another attack.
    stem = re.sub(r"[^\w.-]", "-", path.stem)
    name = f"suite.{stem}-{digest_of(suite)[:12]}"
    if name not in _OWN:
        _OWN[name], _FILES[name] = suite_class(name, suite), path
    return split_spec(name + (file["arguments"] or ""))


def expand(text: str) -> str:
    """Expand a short form: `pgd-40` -> `pgd(steps=40)`."""
    short = _PGD_K.match(text.strip())
    if not short:
        return text
    rest = (short[2] or "()")[1:-1]
    return f"pgd(steps={short[1]}{',' + rest if rest.strip() else ''})"
