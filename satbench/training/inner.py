"""The inner maximum: an attack on the model that is being trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from satbench.attacks import attack_spec, parse_attack, short_spec
from satbench.attacks._pgd import PGD, QUARTER_EPS
from satbench.attacks.backward import Backward
from satbench.attacks.ball import project, steepest
from satbench.attacks.contract import Attack, Model, NoiseSource, Prepared, of_any_batch
from satbench.attacks.traits import Composite, check_fit
from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for
from satbench.core.specs import build, spec_of, split_spec
from satbench.core.threat import Length, Threat
from satbench.recipes.config import TrainConfig
from satbench.training.objectives import autocast, divergence, wide
from satbench.training.ranks import bare

START_NOISE = 0.001
"""Deviation of the Gaussian start of the TRADES attacker (arXiv:1901.08573, algorithm 1)."""


@dataclass(frozen=True)
class TradesAttack:
    """The attacker of TRADES: ascends KL(f(x) ‖ f(x_adv)) from a start beside the image.

    Zhang et al., 2019, arXiv:1901.08573, algorithm 1: `steps` steps of length `step` along the
    steepest ascent, from x + 0.001 N(0, 1); the last iterate.  Labels play no part.  As in the
    authors' code the start may lie outside the box [0, 1]: projection begins with the first step.
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


@dataclass(frozen=True)
class Inner:
    """The attacker of a run, with all that a recipe says about how it searches."""

    config: TrainConfig
    attack: Attack
    threat: Threat

    @classmethod
    def of(cls, config: TrainConfig) -> Inner | None:
        """Return the attacker of a config, None for standard training.

        Raises SatbenchError for an attack that could leave processes waiting for each other, that
        cannot search in training, or that does not suit the threat model.
        """
        if not config.attack:
            return None
        attack, threat = parse_training_attack(config.attack), Threat.parse(config.threat)
        if isinstance(attack, Composite | Prepared):
            raise SatbenchError(
                "expected an attack that can search while a network is trained, such as pgd or "
                f"trades, got {short_spec(config.attack)}, which is made of parts or borrows models"
            )
        check_fit(config.attack, attack, threat)
        may_end_early = isinstance(attack, PGD) and (attack.keep == "any" or attack.restarts > 1)
        if config.sync_batch_norm and config.attack_mode == "train" and may_end_early:
            raise SatbenchError(
                "with sync_batch_norm and attack_mode train all processes must take the same "
                "passes; give the attack keep=last and restarts=1"
            )
        return cls(config, attack, threat)

    def perturb(
        self, network: nn.Module, x: Tensor, y: Tensor, noise: NoiseSource, clean: bool
    ) -> Tensor:
        """Perturb a batch, from the clean images where `clean`; weights and modes come back.

        (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W), detached.
        """
        attack = self.attack
        if clean and isinstance(attack, PGD):
            attack = replace(attack, start="clean")
        backward = Backward.parse(self.config.attack_backward)
        network.train(self.config.attack_mode == "train")
        with frozen(network), backward.applied(), autocast(self.config, x.device):
            return attack(network, x, y, self.threat, noise).detach()

    def search(self, network: nn.Module, x: Tensor, y: Tensor, noise: NoiseSource) -> Tensor:
        """Perturb a batch as `perturb` does, but in the network's own mode and in float32."""
        backward = Backward.parse(self.config.attack_backward)
        with frozen(network), backward.applied():
            return self.attack(network, x, y, self.threat, noise).detach()


def starts_clean(config: TrainConfig, epoch: int, step: int) -> bool:
    """Return whether the attacker of this step starts from the clean images.

    One draw a batch, as the SAT code has it; a function of (seed, epoch, step).
    """
    if not config.clean_start:
        return False
    drawn = generator_for(config.seed, "clean start", epoch, step).random()
    return bool(drawn < config.clean_start)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let no weight gradient be prepared within: an attack needs those of the images alone."""
    trained = [p for p in bare(network).parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
