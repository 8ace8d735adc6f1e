"""From what a user names to a model: zoo name, card, weights file, or `package.module:factory`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.leaderboard.record import ModelInfo
from satbench.model_zoo.card import Card, read_card, weights_path, zoo_card, zoo_names

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelRequest:
    """What the user asked for, checked as far as it can be without torch.

    `card` is there for a zoo name or the path of a card.  `text` is what the user wrote.
    """

    text: str
    kind: str
    card: Card | None = None
    architecture: str | None = None
    activation: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode on the CPU, with what a record says of it."""

    module: nn.Module
    info: ModelInfo
    card: Card | None


def request_model(
    text: str, architecture: str | None = None, activation: str | None = None
) -> ModelRequest:
    """Check what the user named.  Imports no torch.

    Raises SatbenchError: an unknown name (with the nearest), a missing file, a weights file
    without `--arch` and `--activation`.
    """
    if text in zoo_names():
        return ModelRequest(text, "zoo", zoo_card(text))
    path = Path(text)
    if path.suffix == ".json":
        return ModelRequest(text, "file", read_card(path))
    if path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"):
        if not path.is_file():
            raise SatbenchError(f"expected weights at {path}, which is missing")
        if architecture is None or activation is None:
            raise SatbenchError(
                f"weights alone do not say what they belong to: give --arch and --activation "
                f"with {text}, or name the card beside it"
            )
        return ModelRequest(text, "file", None, architecture, activation)
    module, colon, factory = text.partition(":")
    if colon and module and factory and "/" not in module:
        return ModelRequest(text, "factory")
    raise UnknownNameError("model", text, zoo_names())


def load_model(request: ModelRequest, classes: int) -> LoadedModel:
    """Build the model and load its weights; `classes` is the data set's count.

    Raises SatbenchError: weights that are missing, corrupt, of another digest than the card says
    or that do not fit, a factory that cannot be imported, fails, or returns no module.
    """
    if request.card:
        return _from_card(request, request.card)
    if request.kind == "file":
        return _from_weights(request, classes)
    return _from_factory(request)


def describe_module(module: nn.Module, name: str, source: str) -> ModelInfo:
    """Return what a record says of a module that has no card."""
    from satbench.model_zoo.weights import digest_weights

    kind = type(module)
    return ModelInfo(
        name=name,
        source=source,
        architecture=f"{kind.__module__}.{kind.__qualname__}",
        activation="unknown",
        parameters=sum(p.numel() for p in module.parameters()),
        weights_digest=digest_weights(module),
        training={},
    )


def _from_card(request: ModelRequest, card: Card) -> LoadedModel:
    from satbench.model_zoo.build import build_network
    from satbench.model_zoo.weights import digest_weights, load_weights

    module = build_network(card.architecture, card.activation, card.classes).eval()
    shipped = request.kind == "zoo"
    path = weights_path(card) if shipped else Path(request.text).parent / card.weights
    load_weights(module, path)
    digest = digest_weights(module)
    if digest != card.weights_digest:
        raise SatbenchError(
            f"expected weights with digest {card.weights_digest[:12]}… in {path}, "
            f"got {digest[:12]}…; they are not the ones the card of {card.name} tells of"
        )
    training = card.training
    told = (
        {}
        if training is None
        else {
            "recipe": training.recipe,
            "seed": training.seed,
            "threat": training.threat,
            "attack": training.attack,
            "dataset": training.dataset,
            "data_digest": training.data_digest,
        }
    )
    info = ModelInfo(
        name=card.name,
        source=request.kind,
        architecture=card.architecture,
        activation=card.activation,
        parameters=card.parameters,
        weights_digest=digest,
        training=told,
    )
    return LoadedModel(module, info, card)


def _from_weights(request: ModelRequest, classes: int) -> LoadedModel:
    from satbench.model_zoo.build import (
        build_network,
        canonical_activation,
        canonical_architecture,
    )
    from satbench.model_zoo.weights import load_weights

    architecture, activation = cast(str, request.architecture), cast(str, request.activation)
    module = build_network(architecture, activation, classes).eval()
    path = Path(request.text)
    load_weights(module, path)
    info = replace(
        describe_module(module, path.stem, "file"),
        architecture=canonical_architecture(architecture),
        activation=canonical_activation(activation),
    )
    return LoadedModel(module, info, None)


def _from_factory(request: ModelRequest) -> LoadedModel:
    made = make_module(request.text, "--model PACKAGE.MODULE:FACTORY")
    info = describe_module(made, request.text, "factory")
    return LoadedModel(made, replace(info, architecture=request.text), None)


def make_module(text: str, expected: str) -> nn.Module:
    """Call a factory by its name, `package.module:factory`.

    `expected` says how the name is given.  Raises SatbenchError where it cannot be imported, fails,
    or returns no module.
    """
    from torch import nn

    from satbench.preflight import check_module  # needs torch, which names do without

    module_name, _, attribute = text.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does, so that a local file is found
    try:
        factory = cast(Callable[[], object], getattr(import_module(module_name), attribute))
    except (ImportError, AttributeError) as error:
        raise SatbenchError(f"expected {expected}, got {text!r}: {error}") from None
    if not callable(factory):
        raise SatbenchError(f"expected {text} to be a function that returns a model")
    try:
        made = factory()
    except Exception as error:
        raise SatbenchError(f"{text}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise SatbenchError(
            f"expected {text}() to return a torch.nn.Module, got {type(made).__name__}"
        )
    return check_module(made)
