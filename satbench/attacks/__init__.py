"""The attacks, the engine that runs a suite of them on the survivors, and the judge.

A new attack is one module and one line in `ATTACKS`.
"""

from __future__ import annotations

from satbench.attacks.registry import (
    ATTACKS,
    attack_spec,
    check_attack_name,
    parse_attack,
    short_spec,
    suite_digests,
)

__all__ = [
    "ATTACKS",
    "attack_spec",
    "check_attack_name",
    "parse_attack",
    "short_spec",
    "suite_digests",
]
