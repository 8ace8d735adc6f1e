"""The user's own zoo: a model is checked once with its card, and then has a name."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from satbench.core.errors import SatbenchError
from satbench.core.files import write_bytes
from satbench.model_zoo.card import (
    Card,
    read_card,
    user_names,
    user_zoo,
    write_card,
    zoo_names,
)
from satbench.models import SOURCES
from satbench.models.carded import load_card, weights_file
from satbench.models.weight_files import card_of_file, card_of_run

_NAME = re.compile(r"^[A-Za-z0-9][\w.+-]*$")


def add_model(path: Path) -> Card:
    """Check the card at `path` and its weights, and copy both to the user's zoo.

    `path` can also be the folder of a run, or a file of weights that contains its card.  The
    weights are next to the card, or are downloaded from its `url`.  They must have the card's
    digest, fit the network exactly, and give finite logits.  Otherwise, and if the name is taken,
    raises SatbenchError, and the zoo does not change.
    """
    card, weights = _found(path)
    _check_name(card)
    loaded = load_card(card, weights, "user-zoo")
    check_answers(loaded.module, card)
    folder = user_zoo()
    write_bytes(folder / card.weights, weights_file(card, weights).read_bytes())
    # The card is written last, so that the zoo never lists a model without weights.
    write_card(card, folder / f"{card.name}.json")
    return card


def _found(path: Path) -> tuple[Card, Path]:
    if path.is_dir():
        return card_of_run(path)
    if path.suffix != ".json" and path.is_file():
        if card := card_of_file(str(path)):
            return card, path
        raise SatbenchError(f"expected a card, got {path}, which contains none: give its card")
    card = read_card(path)
    return card, path.parent / card.weights


def check_answers(module: torch.nn.Module, card: Card) -> None:
    """Raise SatbenchError unless a model fits its card and has finite logits for grey images.

    It checks the number of parameters, the number of classes and the shape of the images.
    """
    count = sum(p.numel() for p in module.parameters())
    if count != card.parameters:
        raise SatbenchError(
            f"the card of {card.name} says {card.parameters} parameters, the network has "
            f"{count}: correct the card"
        )
    grey = torch.full((2, *card.input_shape), 0.5)
    try:
        with torch.no_grad():
            logits = module(grey)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise SatbenchError(
            f"{card.name} cannot take images of the card's shape {card.input_shape}: {line}"
        ) from error
    if logits.shape != (2, card.classes) or not logits.isfinite().all():
        raise SatbenchError(
            f"expected {card.classes} finite logits an image from {card.name}, got shape "
            f"{tuple(logits.shape)}" + ("" if logits.isfinite().all() else " with NaN or infinity")
        )


def _check_name(card: Card) -> None:
    if not _NAME.match(card.name) or card.name in SOURCES.names():
        raise SatbenchError(
            f"expected a name of letters, digits, '.', '_', '+' and '-' that begins with a letter "
            f"or a digit, got {card.name!r}"
        )
    if card.name in zoo_names():
        raise SatbenchError(
            f"{card.name!r} is the name of a model that ships with satbench: rename the card"
        )
    if card.name in user_names():
        raise SatbenchError(
            f"{user_zoo()} already has a model {card.name!r}: rename the card, or "
            f"remove {card.name}.json there first"
        )
    taken = {read_card(user_zoo() / f"{name}.json").weights: name for name in user_names()}
    if card.weights in taken:
        raise SatbenchError(
            f"the weights of {taken[card.weights]!r} in {user_zoo()} are also called "
            f"{card.weights}: rename the file, and its name on the card"
        )
