"""The names of attacks, and how the text of one becomes the thing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from satbench.core.registry import Entry, Registry
from satbench.core.specs import build, spec_of, split_spec

if TYPE_CHECKING:  # the contract needs torch, and names must be answered without it
    from satbench.attacks.contract import Attack

ATTACKS = Registry(
    "attack",
    (
        Entry(
            "pgd",
            "satbench.attacks._pgd:PGD",
            "projected gradient descent on the cross-entropy; pgd-K takes K steps",
            "Madry et al., 2018, arXiv:1706.06083",
        ),
        Entry(
            "autoattack",
            "satbench.attacks._pyautoattack:AutoAttack",
            "standard AutoAttack by the package pyautoattack: apgd-ce, apgd-t, fab-t, square",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        Entry(
            "apgd-ce",
            "satbench.attacks._pyautoattack:APGDCE",
            "Auto-PGD on the cross-entropy (pyautoattack)",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        Entry(
            "apgd-t",
            "satbench.attacks._pyautoattack:APGDT",
            "Auto-PGD on the targeted DLR loss, one run a target (pyautoattack)",
            "Croce & Hein, 2020, arXiv:2003.01690",
        ),
        Entry(
            "fab-t",
            "satbench.attacks._pyautoattack:FABT",
            "targeted FAB, a minimum-norm attack (pyautoattack)",
            "Croce & Hein, 2020, arXiv:1907.02044",
        ),
        Entry(
            "square",
            "satbench.attacks._pyautoattack:Square",
            "random search with squares, no gradients (pyautoattack)",
            "Andriushchenko et al., 2020, arXiv:1912.00049",
        ),
    ),
)

_PGD_K = re.compile(r"^pgd-(\d+)(\(.*\))?$", re.DOTALL)


def check_attack_name(text: str) -> None:
    """Raise SatbenchError unless `text` names a known attack.  Imports no attack."""
    name, _ = split_spec(expand(text))
    # `pgf-50` is nearer to `pgd` than to any other name once its number is off.
    ATTACKS[name if name in ATTACKS else re.sub(r"-\d+$", "", name)]


def parse_attack(text: str) -> Attack:
    """Read `pgd(steps=40,step=eps/10)` or the short form `pgd-40`.

    Raises SatbenchError for an unknown name or parameter, or a value out of range.
    """
    name, arguments = split_spec(expand(text))
    return build(cast("type[Attack]", ATTACKS[name].load()), name, arguments)


def attack_spec(text: str) -> str:
    """Return the canonical spec of an attack, every parameter spelled out."""
    return spec_of(split_spec(expand(text))[0], parse_attack(text))


def short_spec(spec: str) -> str:
    """Return the shortest text that means the same: `pgd(steps=50,step=eps/4,…)` -> `pgd-50`."""
    name, arguments = split_spec(expand(spec))
    defaults = split_spec(attack_spec(name))[1]
    changed = {key: value for key, value in arguments.items() if value != defaults[key]}
    if name == "pgd" and "steps" in arguments:
        changed.pop("steps", None)
        name = f"pgd-{arguments['steps']}"
    inside = ",".join(f"{key}={value}" for key, value in changed.items())
    return f"{name}({inside})" if inside else name


def expand(text: str) -> str:
    """Spell a short form out: `pgd-40` -> `pgd(steps=40)`."""
    short = _PGD_K.match(text.strip())
    if not short:
        return text
    rest = (short[2] or "()")[1:-1]
    return f"pgd(steps={short[1]}{',' + rest if rest.strip() else ''})"
