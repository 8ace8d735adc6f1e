"""One training step: attack, loss, gradient, new weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from satbench.core.noise import generator_for
from satbench.engine.backward import Backward
from satbench.networks.build import build_activation
from satbench.recipes import TrainConfig
from satbench.training.own import NOTHING, Own, on_device, own_optimizer, own_scheduler
from satbench.training.ranks import Ranks
from satbench.training.update.averaging import average_of
from satbench.training.update.awp import perturbed_weights
from satbench.training.update.inner import Inner, starts_clean
from satbench.training.update.noise import StepNoise
from satbench.training.update.objectives import Objective
from satbench.training.update.sync_norm import synchronised


@dataclass(frozen=True)
class MicroBatch:
    """Images that go through the network together: a batch or a part of one."""

    x: Tensor
    x_adv: Tensor
    y: Tensor


class Stepper:
    """Runs the steps of a run, and has their state: network, optimiser, average.

    `network` is the network on `device`; in a distributed run it is the same in all processes
    after every step.  A user's own optimiser and schedule (of `steps` steps in all) replace those
    of the recipe and set the learning rate (`by_recipe` is then False).
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        device: torch.device,
        ranks: Ranks,
        own: Own = NOTHING,
        steps: int = 0,
    ) -> None:
        network = network.to(device)
        if config.channels_last:
            network = network.to(memory_format=torch.channels_last)
        if config.sync_batch_norm and ranks.world > 1:
            network = synchronised(network, device)
        self.network = network
        self.by_recipe = own.optimizer is None and own.scheduler is None
        self.optimiser = (
            own_optimizer(own.optimizer, network)
            if own.optimizer
            else optimiser_of(config, network)
        )
        self.scheduler = (
            own_scheduler(own.scheduler, self.optimiser, steps) if own.scheduler else None
        )
        self.average = average_of(config, network)
        self._config, self._ranks = config, ranks
        # The compiled network shares the weights.
        self._fast = cast(nn.Module, torch.compile(network)) if config.compile else network
        objective = Objective(config, self._fast, on_device(own.loss, device))
        self._objective: nn.Module = objective
        self._bounded = objective.bounded
        self._steps = steps
        if ranks.world > 1:
            self._objective = DistributedDataParallel(self._objective)
        self._inner = Inner.of(config)
        # Not torch.manual_seed, which on a machine without a GPU stores every call.
        self._generator = (
            torch.cuda.default_generators[device.index or 0]
            if device.type == "cuda"
            else torch.default_generator
        )

    def __call__(self, x: Tensor, y: Tensor, epoch: int, step: int, rate: float) -> Tensor:
        """Train on this process's share of a batch at the given learning rate.

        Returns the mean loss and the accuracy on the training images of the whole batch, as two
        float64 numbers.  All random numbers are functions of (seed, epoch, step).
        """
        config, ranks = self._config, self._ranks
        seed = generator_for(config.seed, "torch", epoch, step, ranks.rank).integers(2**63)
        self._generator.manual_seed(int(seed))  # for random layers, such as dropout
        if self.by_recipe:
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
        if self._bounded:
            done = epoch * (self._steps // config.epochs) + step
            self._bounded.begin_step(tuple(x.shape[1:]), done / max(self._steps, 1))
        parts = self._attacked(x, y, epoch, step)
        if config.awp and epoch + 1 >= config.awp_from:
            with perturbed_weights(self.network, config.awp, lambda: self._grads(parts)):
                sums = self._grads(parts)
        else:
            sums = self._grads(parts)
        if config.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self.optimiser.step()
        if self.scheduler:
            self.scheduler.step()
        ranks.agree_on_buffers(self.network)
        if self.average:
            self.average.after_step(self.network)
        return ranks.total(sums) / ranks.world

    def end_epoch(self, epoch: int) -> None:
        """Update the average at the end of an epoch; the first is 1."""
        if self.average:
            self.average.after_epoch(self.network, epoch)

    def averaged(self) -> dict[str, Any] | None:
        """Return a copy of the average before the end of an epoch changes it, else None."""
        if self.average is None or not self._config.swa_from:
            return None
        return deepcopy(self.average.state_dict())

    def go_back(self, averaged: dict[str, Any] | None) -> None:
        """Undo what `end_epoch` did since `averaged`."""
        if self.average and averaged:
            self.average.load_state_dict(averaged)

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and save."""
        return self.average.network if self.average else self.network

    def _attacked(self, x: Tensor, y: Tensor, epoch: int, step: int) -> list[MicroBatch]:
        config, ranks = self._config, self._ranks
        clean = starts_clean(config, epoch, step)
        size, batch = len(x) // config.accumulate, len(x) * ranks.world
        parts = []
        for number, first in enumerate(range(0, len(x), size)):
            some, labels = x[first : first + size], y[first : first + size]
            if self._inner:
                place = (number * ranks.world + ranks.rank) * size
                noise = StepNoise(config.seed, epoch, step, batch, place, size)
                x_adv = self._inner.perturb(self._fast, some, labels, noise, clean)
            else:
                x_adv = some
            parts.append(MicroBatch(some, x_adv, labels))
        return parts

    def _grads(self, parts: list[MicroBatch]) -> Tensor:
        """Compute the gradient of the mean loss into `.grad`; return loss and accuracy, (2,)."""
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(2, dtype=torch.float64, device=parts[0].y.device)
        self._objective.train()
        for part in parts:
            # Only the last part of a batch synchronises the sum with the other processes.
            with self._alone(part is not parts[-1]):
                with Backward.parse(self._config.update_backward).applied():
                    loss, logits = self._objective(part.x, part.x_adv, part.y)
                (loss / len(parts)).backward()
            right = (logits.detach().argmax(1) == part.y).float().mean()
            sums += torch.stack([loss.detach(), right]).double() / len(parts)
        return sums

    def _alone(self, alone: bool) -> AbstractContextManager[object]:
        if alone and isinstance(self._objective, DistributedDataParallel):
            return self._objective.no_sync()
        return nullcontext()


def optimiser_of(config: TrainConfig, network: nn.Module) -> torch.optim.SGD:
    """Return SGD with momentum, without weight decay for biases, batch-norm and activations.

    The rate of a group is that of the step, times its `factor` if it has one.
    """
    own = _of_activations(config, network) if config.activation_rate != 1 else []
    slow = {id(p) for p in own}
    decayed = [p for p in network.parameters() if p.dim() > 1 and id(p) not in slow]
    others = [p for p in network.parameters() if p.dim() <= 1 and id(p) not in slow]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if own:
        groups.append({"params": own, "weight_decay": 0.0, "factor": config.activation_rate})
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
    )


def _of_activations(config: TrainConfig, network: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters of the activation in the config, each once."""
    kind = type(build_activation(config.activation)())
    sites = [module for module in network.modules() if isinstance(module, kind)]
    return list(dict.fromkeys(p for site in sites for p in site.parameters()))
