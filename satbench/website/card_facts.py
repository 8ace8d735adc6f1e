"""The facts of a model's card for its page: its origin and its training."""

from __future__ import annotations

from collections.abc import Mapping

from satbench.board.model_pages import activation_text, network_text, recipe_text
from satbench.core.markdown import is_address, percent
from satbench.model_zoo.card import Card, Training, zoo_card, zoo_names
from satbench.records.record import ModelInfo
from satbench.website.data_table import Fact

Cards = Mapping[tuple[str, str, str], Card]

_NO_ADVERSARY = "none: trained without an adversary"


def shipped_cards() -> Cards:
    """Return the cards of the zoo by weights, architecture and activation."""
    cards = [zoo_card(name) for name in zoo_names()]
    return {(one.weights_digest, one.architecture, one.activation): one for one in cards}


def card_of(model: ModelInfo, cards: Cards) -> Card | None:
    """Return the card of a record's model; None if it has none."""
    return cards.get((model.weights_digest, model.architecture, model.activation))


def model_facts(model: ModelInfo, card: Card | None) -> list[Fact]:
    """Return what is known about a model without its training."""
    facts = [
        Fact("Architecture", model.architecture, code=True),
        Fact("Network", network_text(card.architecture) if card else ""),
        Fact("Activation", model.activation, code=True),
        Fact("", activation_text(card.activation) if card else ""),
        Fact("Parameters", f"{model.parameters:,}"),
        Fact("Images", _images(card) if card else ""),
        Fact("Weights", card.weights if card else "", code=True),
        Fact("SHA-256 of the weights", model.weights_digest, code=True),
        Fact("Licence", card.licence if card else ""),
        _from(card.url if card else ""),
        Fact("Made of", card.origin if card else ""),
        Fact("Given as", "" if card else model.source),
        Fact("Assumed", model.assumed),
    ]
    return [one for one in facts if one.text]


def training_facts(model: ModelInfo, card: Card | None) -> list[Fact]:
    """Return how a model was trained, as far as its card or its records say."""
    if card is not None and card.training is not None:
        return _facts_of_card(card.training)
    stated = {name: value for name, value in model.training.items() if value not in ("", None)}
    return [Fact(name.replace("_", " "), str(value)) for name, value in sorted(stated.items())]


def _facts_of_card(one: Training) -> list[Fact]:
    held_out = one.config.get("held_out")
    images = f"of {held_out:,}" if isinstance(held_out, int) else "of"
    shares = ", ".join(f"{what} {percent(share)} %" for what, share in one.held_out.items())
    mode = one.config.get("attack_mode")
    return [
        Fact("Recipe", f"{one.recipe}: {recipe_text(one.recipe)}"),
        Fact(
            "Threat model",
            one.threat if one.attack or one.bounds else _NO_ADVERSARY,
        ),
        *([Fact("Attacker", one.attack, code=True)] if one.attack else []),
        *([Fact("Bounds", one.bounds, code=True)] if one.bounds else []),
        *([Fact("Batch norm", f"in {mode} mode while it is attacked")] if mode else []),
        Fact("Seed", str(one.seed)),
        Fact("Data", f"{one.dataset}, training split"),
        Fact("SHA-256 of the data", one.data_digest, code=True),
        Fact("Kept", one.kept),
        Fact("Held out", f"{shares}, {images} training images that no step saw"),
        *(Fact("Note", note) for note in one.notes),
        Fact("Made with", f"satbench {one.satbench}, torch {one.torch}"),
    ]


def training_command(card: Card | None) -> str:
    """Return the command that trains the same weights again; empty if it is not known."""
    return card.training.command if card and card.training else ""


def _images(card: Card) -> str:
    shape = "×".join(map(str, card.input_shape))
    return f"{shape}, pixels in [0, 1] (the net normalises), {card.classes} classes"


def _from(url: str) -> Fact:
    return Fact("From", url, href=url if is_address(url) else "")
