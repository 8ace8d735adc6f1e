"""What is to be told of a network of a user's own: no card, for satbench cannot build it."""

from __future__ import annotations

import json
from pathlib import Path

from satbench.core.files import write_text
from satbench.model_zoo.card import OWN_NETWORK, Card


def write_own_card(card: Card, network: str, path: Path) -> None:
    """Write what a card would say of a user's own network, with its class for an architecture.

    It has a schema of its own, so that nobody takes it for the card of a model that satbench
    builds.
    """
    told = card.to_dict()
    for key in ("architecture", "activation", "licence", "schema"):
        del told[key]
    if told["training"]:
        for key in ("architecture", "activation"):
            told["training"]["config"].pop(key, None)
    use = (
        "a network of its author's own, which satbench cannot build: make the network, load the "
        "weights with safetensors.torch.load_model, and pass it to satbench.evaluate"
    )
    values = {"schema": OWN_NETWORK, "network": network, "use": use, **told}
    write_text(path, json.dumps(values, indent=2) + "\n")
