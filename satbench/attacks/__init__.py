"""The attacks and the suites that are made of them.

A new attack is one module and one line in `ATTACKS`.
"""

from __future__ import annotations

from satbench.attacks.registry import (
    ATTACKS,
    attack_spec,
    check_attack_name,
    default_spec,
    expand,
    is_given,
    is_own_attack,
    parse_attack,
    short_spec,
    suite_digests,
    surrogates_in_file,
)

__all__ = [
    "ATTACKS",
    "attack_spec",
    "check_attack_name",
    "default_spec",
    "expand",
    "is_given",
    "is_own_attack",
    "parse_attack",
    "short_spec",
    "suite_digests",
    "surrogates_in_file",
]
