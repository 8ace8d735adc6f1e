"""Recipes: TOML files that say what a training run does, with the source of each value."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import Any, Literal, cast

from satbench.attacks import attack_spec, check_attack_name
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.threat import Threat
from satbench.data import check_name


@dataclass(frozen=True)
class TrainConfig:
    """Everything that the weights of a training run depend on.

    `attack` is the inner attacker's spec, empty for standard training; `attack_mode` is the mode
    of batch-norm while it searches; `warm_up` is the share of the run over which the learning
    rate rises; `held_out` counts the images at the end of the training set that are kept for the
    metrics.  Raises SatbenchError for a value out of range or an unknown name.
    """

    recipe: str
    dataset: str
    architecture: str
    activation: str
    threat: str
    attack: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    attack_mode: Literal["train", "eval"] = "eval"
    held_out: int = 1000
    momentum: float = 0.9
    warm_up: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        Threat.parse(self.threat)
        check_name(self.dataset)
        if self.attack:
            check_attack_name(self.attack)
        if self.attack_mode not in ("train", "eval"):
            raise SatbenchError(f"expected attack_mode train or eval, got {self.attack_mode!r}")
        for name in ("epochs", "batch_size", "held_out"):
            if getattr(self, name) < 1:
                raise SatbenchError(f"expected {name} of 1 or more, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise SatbenchError(f"expected learning_rate above 0, got {self.learning_rate}")


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with satbench."""
    return sorted(_recipe_files())


def recipe_summary(name: str) -> str:
    """Return a recipe's sentence about itself.  Raises UnknownNameError."""
    return cast(str, _read(name)["summary"])


def load_recipe(name: str, **changes: object) -> TrainConfig:
    """Read the recipe `name`, with `changes` for some of its values (None leaves one as it is).

    Specs are spelled out in full, so that equal runs have equal configs.
    Raises UnknownNameError for an unknown recipe, SatbenchError for a bad value.
    """
    values = _read(name)
    del values["summary"]
    values.update({key: value for key, value in changes.items() if value is not None})
    known = {field.name for field in fields(TrainConfig)}
    for key in values:
        if key not in known:
            raise UnknownNameError(f"setting of the recipe {name}", key, known)
    config = TrainConfig(recipe=name, **values)
    # Only now, for it imports torch, and a wrong name is answered without.
    from satbench.model_zoo.build import canonical_activation, canonical_architecture

    return replace(
        config,
        attack=attack_spec(config.attack) if config.attack else "",
        activation=canonical_activation(config.activation),
        architecture=canonical_architecture(config.architecture),
    )


def _read(name: str) -> dict[str, Any]:
    known = _recipe_files()
    if name not in known:
        raise UnknownNameError("recipe", name, known)
    return tomllib.loads(known[name])


def _recipe_files() -> dict[str, str]:
    folder = files("satbench.recipes")
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }
