"""The description of a user's own network; it is not a card, because satbench cannot build it."""

from __future__ import annotations

import json
from pathlib import Path

from satbench.core.files import write_text
from satbench.model_zoo.card import OWN_NETWORK, Card


def write_own_card(card: Card, network: str, path: Path) -> None:
    """Write the contents of a card for a user's own network, with its class as architecture.

    It has a different schema, so that it cannot be mistaken for the card of a model that satbench
    can build.
    """
    contents = card.to_dict()
    for key in ("architecture", "activation", "licence", "schema"):
        del contents[key]
    if contents["training"]:
        for key in ("architecture", "activation"):
            contents["training"]["config"].pop(key, None)
    use = (
        "a network of its author's own, which satbench cannot build: make the network, load the "
        "weights with safetensors.torch.load_model, and pass it to satbench.evaluate"
    )
    values = {"schema": OWN_NETWORK, "network": network, "use": use, **contents}
    write_text(path, json.dumps(values, indent=2) + "\n")
