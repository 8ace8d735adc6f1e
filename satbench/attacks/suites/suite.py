"""A suite: an ordered list of attacks, divided into stages that run one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.attacks.registry import attack_spec, parse_attack, short_spec
from satbench.attacks.suites.suite_parts import noise_name
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.core.threat import Threat
from satbench.engine.stage import Stage
from satbench.engine.traits import Composite, check_fit


def check_suite(suite: Sequence[Stage], threat: Threat) -> None:
    """Raise SatbenchError if an attack of the suite, or a part of one, does not suit `threat`.

    Reasons are a norm that it does not support, and a step that is longer than the ball is wide.
    """
    for spec in dict.fromkeys(stage.spec for stage in suite):
        check_fit(spec, parse_attack(spec), threat)
    for stage in suite:
        check_fit(stage.title, stage.attack, threat)


def parse_suite(attacks: Sequence[str]) -> tuple[Stage, ...]:
    """Read the attacks of a suite, in order.  Raises SatbenchError for an unknown or double one."""
    if not attacks:
        raise SatbenchError("expected at least one attack, such as --attack pgd-50, got none")
    stages: list[Stage] = []
    for text in attacks:
        spec = attack_spec(text)
        if any(stage.spec == spec for stage in stages):
            raise SatbenchError(f"the attack {spec} is given twice")
        attack, short = parse_attack(text), short_spec(spec)
        if isinstance(attack, Composite):
            stages += [
                Stage(spec, part, noise_name(part, inner), inner, short)
                for part, inner in attack.parts()
            ]
        else:
            stages.append(Stage(spec, "", split_spec(spec)[0], attack, short))
    return tuple(stages)
