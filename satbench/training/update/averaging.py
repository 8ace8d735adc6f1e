"""Averages of the weights over a run, which are evaluated and saved instead of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from satbench.recipes import TrainConfig


class Average:
    """The moving (EMA) or even (SWA) average of a network's weights, itself a network.

    Running statistics of batch-norm are averaged like weights; integers are copied.  The
    moving average has decay min(d, (1 + t) / (10 + t)) after t updates, so that a short run is
    not dominated by the initial weights; it is updated after every step (Polyak & Juditsky, 1992;
    used in adversarial training by Gowal et al., 2020, arXiv:2010.03593, section 4.3).  The even
    average is updated at the end of each epoch from `swa_from` on (Izmailov et al., 2018,
    arXiv:1803.05407, algorithm 1; differs from the paper: statistics of batch-norm are averaged,
    not recomputed, because that would cost a pass over the training images).
    """

    def __init__(self, config: TrainConfig, network: nn.Module) -> None:
        self._config = config
        self.updates, self._share = 0, 0.0
        # With the device given, the counter is on it too, and no step waits for a copy.
        device = next((parameter.device for parameter in network.parameters()), None)
        self._averaged = AveragedModel(network, device, self._moved, use_buffers=True)
        self._averaged.requires_grad_(False)
        self._averaged.n_averaged.fill_(1)  # at 0 the first update would drop the start

    @property
    def network(self) -> nn.Module:
        """The network with the averaged weights."""
        module: nn.Module = self._averaged.module
        return module

    def after_step(self, network: nn.Module) -> None:
        """Update the average after a step."""
        if self._config.ema_decay:
            past = self.updates + 1
            decay = min(self._config.ema_decay, (1 + past) / (10 + past))
            self._take(network, 1 - decay)

    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """Update the average after an epoch; the first is 1."""
        if self._config.swa_from:
            if epoch < self._config.swa_from:
                self.network.load_state_dict(network.state_dict())
            else:
                self._take(network, 1 / (self.updates + 1))

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]

    def _take(self, network: nn.Module, share: float) -> None:
        self.updates, self._share = self.updates + 1, share
        self._averaged.update_parameters(network)

    def _moved(self, own: Tensor, theirs: Tensor, _: Tensor | int) -> Tensor:
        return torch.lerp(own, theirs, self._share) if own.is_floating_point() else theirs


def average_of(config: TrainConfig, network: nn.Module) -> Average | None:
    """Return the average that a config specifies; None if there is none."""
    return Average(config, network) if config.ema_decay or config.swa_from else None
