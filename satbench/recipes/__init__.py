"""Recipes: TOML files with the settings of a training run and the source of each value."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from satbench.attacks import attack_spec
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.schema import parse_toml, read_toml_values
from satbench.core.specs import split_spec
from satbench.data.foreign import is_remote
from satbench.recipes.config import TRAINING_ATTACKS, TrainConfig, required, settings
from satbench.recipes.values import parse_overrides, show_override
from satbench.recipes.values import typed as typed_setting

_EPRINT = re.compile(r"arXiv:(\d{4}\.\d{5})")


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with satbench."""
    return sorted(_recipe_files())


def recipe_summary(name: str) -> str:
    """Return a recipe's summary.  Raises UnknownNameError."""
    return cast(str, _read(name).get("summary", ""))


def recipe_sources(name: str) -> list[str]:
    """Return the arXiv numbers of the papers that a recipe's file names, sorted.

    Raises UnknownNameError for a recipe that does not ship with satbench.

    >>> recipe_sources("fmnist-sat")
    ['2001.03994', '2002.11569', '2006.14536']
    """
    files = _recipe_files()
    if name not in files:
        raise UnknownNameError("recipe", name, files)
    return sorted(set(_EPRINT.findall(files[name])))


def load_recipe(name: str, **changes: object) -> TrainConfig:
    """Read the recipe `name`, with `changes` of some values (None changes nothing).

    `name` is a recipe that ships with satbench, or the path of a user's FILE.toml.  Specs are
    written in full, so that equal runs have equal configs.  Raises UnknownNameError for an unknown
    recipe, SatbenchError for a bad value, and for a data set in a file that comes from a server.
    """
    values = _read(name)
    dataset = values.get("dataset")
    if changes.get("dataset") is None and isinstance(dataset, str) and is_remote(dataset):
        raise SatbenchError(
            f"the recipe {name} names the data set {dataset!r}, and satbench asks no server for a "
            f"name in a file: if you want it, give --dataset {shlex.quote(dataset)}"
        )
    return _with_changes(name, values, changes)


def _with_changes(name: str, values: dict[str, Any], changes: Mapping[str, object]) -> TrainConfig:
    values.pop("summary", None)
    values.update({key: value for key, value in changes.items() if value is not None})
    known = settings()
    for key in values:
        if key not in known:
            raise UnknownNameError(f"setting of the recipe {name}", key, known)
    missing = [key for key in required() if key not in values]
    if missing:
        raise SatbenchError(f"the recipe {name} lacks {', '.join(missing)}; add them")
    typed_values = cast(
        dict[str, Any], {key: typed_setting(key, value) for key, value in values.items()}
    )
    return spelled_out(TrainConfig(recipe=name, **typed_values))


def spelled_out(config: TrainConfig) -> TrainConfig:
    """Return a config with its specs in full, so that equal runs have equal configs.

    Raises SatbenchError for a spec of an unknown thing.
    """
    # Imported late, because it imports torch, and a wrong name must be reported without it.
    from satbench.engine.backward import Backward
    from satbench.networks.build import canonical_activation, canonical_architecture

    return replace(
        config,
        attack=_canonical_attack(config.attack),
        activation=canonical_activation(config.activation),
        architecture=canonical_architecture(config.architecture),
        attack_backward=str(Backward.parse(config.attack_backward)),
        update_backward=str(Backward.parse(config.update_backward)),
    )


def overrides_of(config: TrainConfig) -> list[str]:
    """Return the `KEY=VALUE` texts that turn its recipe into `config`.

    Architecture, activation, seed and epochs are left out, because they have their own options.  A
    config without a recipe has no such texts.
    """
    own = ("architecture", "activation", "seed", "epochs")
    try:
        values = _read(config.recipe)
        base = _with_changes(config.recipe, values, {key: getattr(config, key) for key in own})
    except UnknownNameError:
        return []
    return [
        show_override(key, getattr(config, key))
        for key in settings()
        if key not in own and getattr(config, key) != getattr(base, key)
    ]


def _canonical_attack(spec: str) -> str:
    if spec and split_spec(spec)[0] in TRAINING_ATTACKS:
        from satbench.attacks.gradient.trades import training_attack_spec  # needs torch

        return training_attack_spec(spec)
    return attack_spec(spec) if spec else ""


def _read(name: str) -> dict[str, Any]:
    known = _recipe_files()
    if name in known:
        return parse_toml(known[name], "recipe", name)
    if not name.endswith(".toml"):
        raise UnknownNameError("recipe", name, known)
    return read_toml_values(Path(name), "recipe")


def _recipe_files() -> dict[str, str]:
    folder = files("satbench.recipes")
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


__all__ = [
    "TRAINING_ATTACKS",
    "TrainConfig",
    "load_recipe",
    "overrides_of",
    "parse_overrides",
    "recipe_names",
    "recipe_summary",
    "spelled_out",
    "typed_setting",
]
