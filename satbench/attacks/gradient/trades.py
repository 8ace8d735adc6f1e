"""The attacker of TRADES, and the reader of specs of training attackers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from satbench.attacks.gradient.losses import divergence, wide
from satbench.attacks.gradient.pgd import QUARTER_EPS
from satbench.attacks.registry import attack_spec, parse_attack
from satbench.core.errors import SatbenchError
from satbench.core.specs import build, spec_of, split_spec
from satbench.core.threat import Length, Threat
from satbench.engine.ball import project, steepest
from satbench.engine.contract import Attack, Model, NoiseSource, of_any_batch

START_NOISE = 0.001
"""Deviation of the Gaussian start of the TRADES attacker (arXiv:1901.08573, algorithm 1)."""


@dataclass(frozen=True)
class TradesAttack:
    """The attacker of TRADES: ascends KL(f(x) ‖ f(x_adv)) from a start near the image.

    Zhang et al., 2019, arXiv:1901.08573, algorithm 1: `steps` steps of length `step` along the
    steepest ascent, from x + 0.001 N(0, 1); the last iterate.  Labels are not used.  As in the
    authors' code, the start may be outside the box [0, 1]: projection begins with the first step.
    """

    steps: int = 10
    step: Length = QUARTER_EPS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SatbenchError(f"trades: expected steps of 1 or more, got {self.steps}")

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        with torch.no_grad():
            clean = wide(model(x))
        normal = torch.from_numpy(noise.normal(tuple(x.shape[1:]))).to(x)
        x_adv, step = x + START_NOISE * normal, self.step.within(threat)
        for _ in range(self.steps):
            leaf = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                loss = divergence(clean, wide(model(leaf))).sum()
            (grad,) = torch.autograd.grad(loss, leaf)
            x_adv = project(x_adv + step * steepest(grad, threat, x_adv), x, threat)
        return x_adv


def parse_training_attack(spec: str) -> Attack:
    """Read the spec of an inner attacker: `trades(steps=10,step=eps/4)` or any attack's."""
    name, arguments = split_spec(spec)
    return build(TradesAttack, name, arguments) if name == "trades" else parse_attack(spec)


def training_attack_spec(spec: str) -> str:
    """Return the canonical text of an inner attacker."""
    name, _ = split_spec(spec)
    return spec_of(name, parse_training_attack(spec)) if name == "trades" else attack_spec(spec)
