"""Cards: a model's origin, training and digests, for the shipped zoo and the user's own zoo.

Reading them needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.files import open_plain, write_text
from satbench.core.limits import MOST_CLASSES, MOST_HEADER_BYTES, MOST_PARAMETERS, MOST_PIXELS
from satbench.core.schema import (
    Number,
    convert,
    parse_object,
    parse_schema,
    read_text,
    read_toml_values,
)

SCHEMA = 1
OWN_NETWORK = "own-network-1"
"""The schema of the metadata for a network that satbench cannot build; it is not a card."""

CARD_KEY = "satbench.card"
"""The key of a card in the metadata of a safetensors file."""

_LATER = {"url", "origin"}
"""Fields that later versions added; a card without them is still read."""


CERTIFIED_OBJECTIVES = ("ibp", "crown-ibp")
"""Objectives of training that bound the logits over the whole ball, instead of an attack."""

OVERFITTED = "catastrophic overfitting"
"""How a note begins that says in which epochs training overfitted catastrophically."""


@dataclass(frozen=True)
class Training:
    """How a model was trained.

    `attack` and `threat` are those of the inner attack (`attack` is empty for standard training).
    `data_digest` is the digest of the whole training split.  `held_out` are the kept epoch's
    accuracies on held-out training images.  `config` is everything that the weights depend on.
    `notes` are remarks on the run.
    """

    recipe: str
    seed: int
    threat: str
    attack: str
    dataset: str
    data_digest: str
    command: str
    kept: str
    held_out: dict[str, Number]
    config: dict[str, Any]
    satbench: str
    torch: str
    notes: list[str] = field(default_factory=list)

    @property
    def bounds(self) -> str:
        """The certified objective of the training, such as `ibp`; empty for another."""
        objective = self.config.get("objective")
        return str(objective) if objective in CERTIFIED_OBJECTIVES else ""


@dataclass(frozen=True)
class Card:
    """A zoo entry: a model's name, how to build it, where its weights are, and how it was trained.

    `weights` is the name of the safetensors file next to the card (or in `weights/`).
    `weights_digest` is the SHA-256 of its named tensors.  `input_shape` is (C, H, W).  `url` is the
    address of the file, if it has one.  `origin` names the foreign file that it was made from.
    """

    name: str
    architecture: str
    activation: str
    parameters: int
    input_shape: tuple[int, int, int]
    classes: int
    weights: str
    weights_digest: str
    licence: str
    training: Training | None
    schema: int = SCHEMA
    url: str = ""
    origin: str = ""

    def to_json(self) -> str:
        """Return the card as JSON text; `read_card` is its inverse."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON values, without later fields that are empty."""
        values = asdict(self)
        if self.training and not self.training.notes:
            del values["training"]["notes"]
        return {key: value for key, value in values.items() if value or key not in _LATER}


def read_card(path: Path) -> Card:
    """Read a card.  Raises SatbenchError for a missing, malformed or newer one."""
    return parse_card(read_text(path, "card"), str(path))


def parse_card(text: str, where: str) -> Card:
    """Read a card from its JSON text, found at `where`.  Raises SatbenchError as `read_card`."""
    if parse_object(text, "card", where).get("schema") == OWN_NETWORK:
        raise SatbenchError(
            f"{where} describes a custom network, which satbench cannot build; load "
            "its weights in Python and call satbench.evaluate, or give --model "
            "package.module:factory"
        )
    card = convert(parse_schema(text, "card", where, (SCHEMA,)), Card, "card", where)
    if not card.weights or Path(card.weights).name != card.weights or "\\" in card.weights:
        raise SatbenchError(
            f"expected the name of a file next to the card {where} as its weights, "
            f"got {card.weights!r}"
        )
    numbers = {
        "parameters": (card.parameters, 0, MOST_PARAMETERS),
        "classes": (card.classes, 1, MOST_CLASSES),
        "input_shape": (prod(card.input_shape), 1, MOST_PIXELS),
    }
    for name, (number, least, most) in numbers.items():
        if not least <= number <= most or min(card.input_shape) < 1:
            raise SatbenchError(
                f"the card {where} is wrong: {name}: expected a number from {least} to {most:,}"
            )
    return card


def card_within(path: Path) -> Card | None:
    """Return the card in a safetensors file, which `satbench train` writes there.

    None if the file has no card or is not safetensors.  Raises SatbenchError for a card that is
    malformed or newer.
    """
    with open_plain(path) as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= MOST_HEADER_BYTES else b""
    try:
        text = parse_object(header.decode(), "header", str(path))["__metadata__"][CARD_KEY]
    except (ValueError, KeyError, TypeError):
        return None
    return parse_card(text, f"within {path}") if isinstance(text, str) else None


def card_of_digest(digest: str) -> Card | None:
    """Return the card in either zoo whose weights have this digest, or None."""
    for name in zoo_names():
        path = _cards() / f"{name}.json"
        # Parsing all cards takes many times longer than reading them.
        if digest in read_text(path, "card") and (card := read_card(path)).weights_digest == digest:
            return card
    for path in sorted(user_zoo().glob("*.json")):
        with contextlib.suppress(SatbenchError):  # a bad card must not hide the others
            if (card := read_card(path)).weights_digest == digest:
                return card
    return None


def write_card(card: Card, path: Path) -> None:
    """Write a card atomically."""
    write_text(path, card.to_json())


def zoo_names() -> list[str]:
    """Return the names of the models that ship with satbench, sorted."""
    folder = _cards()
    names = os.listdir(folder) if folder.is_dir() else []  # many times faster than Path.glob
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def board_names() -> list[str]:
    """Return the names of the models for the board, sorted: those that are not surrogates."""
    file = _cards().parent / "surrogates.toml"
    surrogates = {
        name
        for benchmarks in read_toml_values(file, "list of surrogates").values()
        for names in benchmarks.values()
        for name in names
    }
    return [name for name in zoo_names() if name not in surrogates]


def zoo_card(name: str) -> Card:
    """Return the card of a shipped model.  Raises UnknownNameError."""
    if name not in zoo_names():
        raise UnknownNameError("model", name, zoo_names())
    return read_card(_cards() / f"{name}.json")


def weights_path(card: Card) -> Path:
    """Return the path of a shipped model's weights."""
    return _cards().parent / "weights" / card.weights


def user_zoo() -> Path:
    """Return the folder of the user's own zoo, which may be missing.

    It is `$SATBENCH_ZOO`, or `satbench/zoo` in `$XDG_DATA_HOME` or `~/.local/share`.
    """
    if os.environ.get("SATBENCH_ZOO"):
        return Path(os.environ["SATBENCH_ZOO"])
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "satbench" / "zoo"


def user_names() -> list[str]:
    """Return the names of the models in the user's own zoo, sorted."""
    return sorted(path.stem for path in user_zoo().glob("*.json"))


def user_card(name: str) -> Card:
    """Return the card of a model in the user's own zoo.

    Raises UnknownNameError, and SatbenchError if the card is malformed or another model's.
    """
    if name not in user_names():
        raise UnknownNameError("model", name, user_names())
    path = user_zoo() / f"{name}.json"
    card = read_card(path)
    if card.name != name:
        raise SatbenchError(f"expected the card of {name} in {path}, got that of {card.name}")
    return card


def find_card(name: str) -> tuple[Card, Path]:
    """Return the card of a model in either zoo, and the path of its weights.

    Raises UnknownNameError with the nearest name in both.
    """
    if name in zoo_names():
        card = zoo_card(name)
        return card, weights_path(card)
    if name not in user_names():
        raise UnknownNameError("model", name, [*zoo_names(), *user_names()])
    card = user_card(name)
    return card, user_zoo() / card.weights


def _cards() -> Path:
    return content_folder("model_zoo") / "cards"
