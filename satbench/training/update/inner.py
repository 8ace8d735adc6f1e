"""The inner maximum: an attack on the model in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor, nn

from satbench.attacks import short_spec
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.gradient.trades import parse_training_attack
from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for
from satbench.core.threat import Threat
from satbench.engine.backward import Backward
from satbench.engine.contract import Attack, NoiseSource, Prepared
from satbench.engine.traits import Composite, check_fit
from satbench.recipes.config import TrainConfig
from satbench.training.ranks import bare
from satbench.training.update.objectives import autocast


@dataclass(frozen=True)
class Inner:
    """The training attack of a run, with all settings of the recipe."""

    config: TrainConfig
    attack: Attack
    threat: Threat

    @classmethod
    def of(cls, config: TrainConfig) -> Inner | None:
        """Return the training attack of a config, None for standard training.

        Raises SatbenchError for an attack that could make processes wait for each other, that
        cannot be used in training, or that does not fit the threat model.
        """
        if not config.attack:
            return None
        attack, threat = parse_training_attack(config.attack), Threat.parse(config.threat)
        if isinstance(attack, Composite | Prepared):
            raise SatbenchError(
                "expected an attack that can be used in training, such as pgd or "
                f"trades, got {short_spec(config.attack)}, which has parts or surrogates"
            )
        check_fit(config.attack, attack, threat)
        may_end_early = isinstance(attack, PGD) and (attack.keep == "any" or attack.restarts > 1)
        if config.sync_batch_norm and config.attack_mode == "train" and may_end_early:
            raise SatbenchError(
                "with sync_batch_norm and attack_mode train all processes must make the same "
                "passes; give the attack keep=last and restarts=1"
            )
        return cls(config, attack, threat)

    def perturb(
        self, network: nn.Module, x: Tensor, y: Tensor, noise: NoiseSource, clean: bool
    ) -> Tensor:
        """Perturb a batch, starting from the clean images if `clean`; the network does not change.

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
    """Return whether the attack of this step starts from the clean images.

    It is one draw per batch, as in the SAT code, a function of (seed, epoch, step).
    """
    if not config.clean_start:
        return False
    drawn = generator_for(config.seed, "clean start", epoch, step).random()
    return bool(drawn < config.clean_start)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Turn off weight gradients for the block: an attack needs only those of the images."""
    trained = [p for p in bare(network).parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
