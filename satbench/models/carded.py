"""Models with a card: the shipped zoo, the user's zoo, and a card by its path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import Card
from satbench.model_zoo.presets import find_preset
from satbench.models._file_options import FileOptions
from satbench.models._loaded import LoadedModel
from satbench.records.record import ModelInfo

if TYPE_CHECKING:
    from torch import nn


def load_card(card: Card, path: Path, source: str, copy: str = "") -> LoadedModel:
    """Build a card's model and load its weights from `path`, else from the card's address.

    `copy` names one of several sets of weights in the file.  Raises SatbenchError for weights that
    are missing, corrupt, not the card's, or do not fit.
    """
    from satbench.model_zoo.weights import check_digest, load_weights

    module = _network(card)
    found = weights_file(card, path)
    load_weights(module, found, copy)
    check_digest(module, card.weights_digest, card.name, found)
    return LoadedModel(module, card_info(card, source), card)


def card_info(card: Card, source: str) -> ModelInfo:
    """Return the description of a card's model for a record."""
    return ModelInfo(
        name=card.name,
        source=source,
        architecture=card.architecture,
        activation=card.activation,
        parameters=card.parameters,
        weights_digest=card.weights_digest,
        training=_training(card),
    )


def check_agrees(card: Card, options: FileOptions, text: str) -> None:
    """Raise SatbenchError if the user's options contradict the card of the weights."""
    from satbench.networks.build import canonical_activation, canonical_architecture

    said = options
    if options.preset:
        preset = find_preset(options.preset)
        said = FileOptions(preset.architectures[0], options.activation or preset.activation)
    pairs = (
        (said.architecture, card.architecture, canonical_architecture),
        (said.activation, card.activation, canonical_activation),
    )
    other = [spec for spec, own, canonical in pairs if spec and canonical(spec) != canonical(own)]
    if other:
        subject = text if text == card.name else f"{text} holds the weights of {card.name}, which"
        raise SatbenchError(
            f"{subject} was trained as {card.architecture} with {card.activation}, not with "
            f"{' and '.join(other)}: leave out {' and '.join(options.given)}"
        )


def weights_file(card: Card, path: Path) -> Path:
    """Return the path of a card's weights: `path`, else the cache, downloaded if missing."""
    return path if path.is_file() or not card.url else _fetched(card)


def _network(card: Card) -> nn.Module:
    from satbench.networks.build import build_network

    return build_network(card.architecture, card.activation, card.classes).eval()


def _fetched(card: Card) -> Path:
    from satbench.core.downloads import cache_folder, download
    from satbench.model_zoo.weights import check_digest, load_weights

    def check(path: Path) -> None:
        module = _network(card)
        load_weights(module, path)
        check_digest(module, card.weights_digest, card.name, path)

    suffix = Path(card.weights).suffix
    target = cache_folder() / "weights" / f"{card.weights_digest}{suffix}"
    return download(card.url, target, check)


def _training(card: Card) -> dict[str, Any]:
    training = card.training
    if training is None:
        return {}
    certified = {"objective": training.bounds} if training.bounds else {}
    return {
        "recipe": training.recipe,
        "seed": training.seed,
        "threat": training.threat,
        "attack": training.attack,
        **certified,
        "dataset": training.dataset,
        "data_digest": training.data_digest,
    }
