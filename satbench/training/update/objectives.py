"""The outer minimum: the loss of the weights at the adversarial images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.attacks.gradient.losses import divergence, wide
from satbench.engine.contract import Model
from satbench.model_zoo.card import CERTIFIED_OBJECTIVES
from satbench.recipes.config import TrainConfig
from satbench.training.own import Loss, checked_loss
from satbench.training.update.certified import CertifiedLoss


class Objective(nn.Module):
    """A network with its loss as one module, so that a step is one forward.

    `network` may be compiled; its parameters are this module's.  `loss`, a user's own at the
    adversarial images, replaces the objective.
    """

    def __init__(self, config: TrainConfig, network: nn.Module, loss: Loss | None = None) -> None:
        super().__init__()
        self.network = network
        self._config = config
        self._loss = None if loss is None else (loss,)  # in a tuple, so that it is not a submodule
        self.bounded = (
            CertifiedLoss(config, network) if config.objective in CERTIFIED_OBJECTIVES else None
        )

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the logits of `x_adv`, or the worst that bounds allow.

        (B, C, H, W) twice, (B,) -> (), (B, K).
        """
        config = self._config
        with autocast(config, x.device):
            if self._loss is not None:
                logits = wide(self.network(x_adv))
                return checked_loss(self._loss[0], logits, y), logits
            if self.bounded is not None:
                return self.bounded(x, y)
            if config.objective == "cross-entropy":
                return adversarial_cross_entropy(self.network, x_adv, y, config.label_smoothing)
            if config.objective == "trades":
                return trades(self.network, x, x_adv, y, config.beta, config.label_smoothing)
            return mart(self.network, x, x_adv, y, config.beta)


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Return the context of a training pass: bfloat16 if the config says so."""
    return torch.autocast(device.type, torch.bfloat16, config.precision == "bfloat16")


def adversarial_cross_entropy(
    model: Model, x_adv: Tensor, y: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy at `x_adv` and the logits there.

    Madry et al., 2018, arXiv:1706.06083, equation 2.1; label smoothing spreads this share of the
    label evenly over all classes (Szegedy et al., 2016, arXiv:1512.00567, section 7).
    """
    logits = wide(model(x_adv))
    return F.cross_entropy(logits, y, label_smoothing=label_smoothing), logits


def trades(
    model: Model, x: Tensor, x_adv: Tensor, y: Tensor, beta: float, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return CE(f(x), y) + β KL(f(x) ‖ f(x_adv)), mean over the batch, and the logits of `x_adv`.

    Zhang et al., 2019, arXiv:1901.08573, equation 5 with β = 1/λ; the gradient flows through both
    predictions.  Batch-norm sees clean and adversarial images as two batches, as in the official
    code.
    """
    clean = wide(model(x))
    logits = wide(model(x_adv))
    natural = F.cross_entropy(clean, y, label_smoothing=label_smoothing)
    return natural + beta * divergence(clean, logits).mean(), logits


def mart(model: Model, x: Tensor, x_adv: Tensor, y: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return BCE(f(x_adv), y) + β KL(f(x) ‖ f(x_adv)) (1 - p_y(x)), mean over the batch.

    BCE is -log p_y - log(1 - max over k ≠ y of p_k), at x_adv; also returns the logits there.
    Wang et al., 2020, "Improving adversarial robustness requires revisiting misclassified
    examples", ICLR, openreview rklOg6EFwS, equation 11 with β for λ.  Differs from the authors'
    code, which adds 1e-12 to the probabilities and takes 1.0001 for 1.
    """
    logits = wide(model(x_adv))
    clean = wide(model(x))
    label = y.view(-1, 1)
    other = logits.scatter(1, label, -torch.inf).argmax(1, keepdim=True)
    # log(1 - p) as the log-sum of all other classes, which stays finite if p rounds to 1.
    log_rest = logits.scatter(1, other, -torch.inf).logsumexp(1) - logits.logsumexp(1)
    boosted = F.cross_entropy(logits, y, reduction="none") - log_rest
    doubt = 1 - clean.softmax(1).gather(1, label).squeeze(1)
    return (boosted + beta * divergence(clean, logits) * doubt).mean(), logits
