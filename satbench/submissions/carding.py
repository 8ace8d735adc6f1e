"""Cards for weights that were trained elsewhere, with a safetensors file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder
from satbench.core.threat import Threat
from satbench.model_zoo.card import Card, Training, card_within, write_card
from satbench.model_zoo.weights import digest_weights, save_weights
from satbench.models import FileOptions
from satbench.models.user_zoo import check_answers
from satbench.models.weight_files import load_file
from satbench.networks.build import build_network

NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_LETTERS = 2000


@dataclass(frozen=True)
class CardFields:
    """The fields of a card that the file of weights cannot provide; see docs/how-to/card.md.

    `shape` is that of an image, (C, H, W).  `recipe`, `seed`, `threat`, `attack` and `dataset` say
    how the model was trained; give all or none.  `attack` is empty for training without attacks.
    `command` makes the weights again.
    """

    name: str
    shape: tuple[int, int, int]
    licence: str
    origin: str = ""
    recipe: str = ""
    seed: int | None = None
    threat: str = ""
    attack: str = ""
    dataset: str = ""
    command: str = ""


def make_card(weights: Path, options: FileOptions, fields: CardFields, out: Path) -> Path:
    """Write `NAME.safetensors` and `NAME.json` to the folder `out`; return the path of the card.

    The weights must fit the network of `options` exactly and give finite logits for images of the
    shape.  Raises SatbenchError otherwise, for options that would have to be assumed, and for files
    that exist already.
    """
    _check(fields)
    check_folder(out)
    loaded = load_file(str(weights), options, 2, exactly=False)
    info, module = loaded.info, loaded.module
    if info.assumed:
        raise SatbenchError(
            f"neither {weights} nor the options say {info.assumed.replace(' ', ' and ')}, and a "
            "card must not assume it: give --normalize, or the setting in --arch"
        )
    architecture = info.architecture.partition(" normalised by ")[0]
    classes = _classes(module, fields.shape)
    rebuilt = build_network(architecture, info.activation, classes).eval()
    if rebuilt.state_dict().keys() != module.state_dict().keys():
        raise SatbenchError(
            f"a card cannot describe {info.architecture!r}: the architecture has no layer for the "
            "normalisation; evaluate the checkpoint with its options, without a card"
        )
    rebuilt.load_state_dict(module.state_dict())  # this includes the constants of the normalisation
    card = Card(
        name=fields.name,
        architecture=architecture,
        activation=info.activation,
        parameters=info.parameters,
        input_shape=fields.shape,
        classes=classes,
        weights=f"{fields.name}.safetensors",
        weights_digest=digest_weights(rebuilt),
        licence=fields.licence,
        training=_training(fields),
        origin=fields.origin,
    )
    check_answers(rebuilt, card)
    path = out / f"{fields.name}.json"
    file = out / card.weights
    # The same command may have been stopped between the two.
    is_ours = file.is_file() and not path.exists() and card_within(file) == card
    for one in (path, file):
        if one.exists() and not is_ours:
            raise SatbenchError(f"{one} exists already: choose another --name or --out")
    if not is_ours:
        save_weights(rebuilt, file, card)
    write_card(card, path)
    return path


def _classes(module: torch.nn.Module, shape: tuple[int, int, int]) -> int:
    try:
        with torch.no_grad():
            return int(module(torch.full((1, *shape), 0.5)).shape[1])
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise SatbenchError(f"the network cannot take images of shape {shape}: {line}") from error


def _check(fields: CardFields) -> None:
    if not NAME.fullmatch(fields.name):
        raise SatbenchError(
            "expected a name of letters, digits, '.', '_', '+' and '-' that begins with a letter "
            f"or a digit, got {fields.name!r}"
        )
    texts = (
        fields.licence,
        fields.origin,
        fields.recipe,
        fields.attack,
        fields.dataset,
        fields.command,
    )
    for text in texts:
        if len(text) > _LETTERS or not text.isprintable():
            raise SatbenchError(
                f"expected a line of up to {_LETTERS} printable letters, got {text[:60]!r}"
            )
    if not fields.licence.strip():
        raise SatbenchError("expected the licence of the weights, such as MIT, or 'unknown'")


def _training(fields: CardFields) -> Training | None:
    """Return how the model was trained; None if nothing was given."""
    if not (
        fields.recipe or fields.threat or fields.dataset or fields.attack or fields.seed is not None
    ):
        return None
    if not (fields.recipe and fields.threat and fields.dataset) or fields.seed is None:
        raise SatbenchError(
            "a card describes the training completely, so that models can be compared: give all of "
            "--recipe, --seed, --threat and --dataset, or none"
        )
    return Training(
        recipe=fields.recipe,
        seed=fields.seed,
        threat=str(Threat.parse(fields.threat)),
        attack=fields.attack,
        dataset=fields.dataset,
        data_digest="",
        command=fields.command,
        kept="",
        held_out={},
        config={},
        satbench="",
        torch="",
        notes=["trained elsewhere: what this card says of it is the word of who made the card"],
    )
