"""The card of a trained model, which is stored next to the weights and inside them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from satbench.data import Dataset
from satbench.model_zoo.card import Card, Training
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.saved.facts import Facts
from satbench.training.watch import EpochMetrics


def run_card(
    name: str,
    weights: str,
    model: nn.Module,
    config: TrainConfig,
    data: Dataset,
    facts: Facts,
    kept: tuple[str, EpochMetrics],
    command: str = "",
    notes: Sequence[str] = (),
) -> Card:
    """Return the card of `model`, trained as `config` says on the training split `data`.

    `facts` are those from the start of the run.  `weights` is the name of the file, `kept` says why
    this epoch was chosen and has its metrics; `command` trains it again; `notes` are other notes on
    the run.
    """
    why, metrics = kept
    training = Training(
        recipe=config.recipe,
        seed=config.seed,
        threat=config.threat,
        attack=config.attack,
        dataset=data.origin or config.dataset,  # with the full rule for pixels
        data_digest=facts.data,
        command=command,
        kept=why,
        held_out={"clean": metrics.held_out_clean, "pgd-10": metrics.held_out_pgd10},
        config=config.to_dict(),
        satbench=facts.satbench,
        torch=facts.torch,
        notes=list(notes),
    )
    return Card(
        name=name,
        architecture=config.architecture,
        activation=config.activation,
        parameters=sum(p.numel() for p in model.parameters()),
        input_shape=data.shape,
        classes=data.classes,
        weights=weights,
        weights_digest=digest_weights(model),
        licence="MIT",
        training=training,
    )
