"""The contract of every shipped recipe. A new file in `satbench/recipes/` is picked up."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from satbench.core.errors import SatbenchError
from satbench.data import load_dataset
from satbench.recipes import (
    TrainConfig,
    load_recipe,
    overrides_of,
    parse_overrides,
    recipe_names,
    recipe_summary,
    spelled_out,
    typed_setting,
)
from satbench.recipes.config import required, settings
from satbench.recipes.values import show_override
from satbench.training.ranks import ALONE
from satbench.training.start import fresh_model
from satbench.training.update.step import Stepper

# Whoever adds one is told of its faults every day.
pytestmark = pytest.mark.sampled(None)

each_recipe = pytest.mark.parametrize("name", recipe_names())

SOURCE = re.compile(
    r"\b(arXiv|section|table|appendix|algorithm|code|papers?|ours?|own|as \w[\w-]+|(19|20)\d\d)\b",
    re.IGNORECASE,
)
"""What a source of a value looks like: a publication, its code, `ours`, or another recipe."""

LARGE = {
    "fast-at-cifar10",
    "pgd7-at-cifar10",
    "sat-cifar10",
    "sat-imagenet-efficientnet",
    "sat-imagenet-resnet50",
    "trades-cifar10",
}
"""Recipes of networks with 5 to 46 million weights, whose update takes long."""

SIZES = {"fashion-mnist": (1, 28, 28), "cifar10": (3, 8, 8), "cifar100": (3, 8, 8)}
"""Images that a step is tried on: no larger than the network needs."""


def text_of(name: str) -> str:
    return (files("satbench.recipes") / f"{name}.toml").read_text(encoding="utf-8")


def values_of(name: str) -> dict[str, Any]:
    return {key: value for key, value in tomllib.loads(text_of(name)).items() if key != "summary"}


def unsourced(text: str) -> list[str]:
    """Return the settings whose paragraph does not begin with a comment that names a source."""
    found, comment, before = [], "", ""
    for line in text.splitlines():
        if line.startswith("#"):
            comment = comment + " " + line.strip("# ") if before.startswith("#") else line
        elif "=" in line and line[:1].isalpha():
            key = line.partition("=")[0].strip()
            if key != "summary" and not SOURCE.search(comment):
                found.append(key)
        elif not line.strip():
            comment = ""
        before = line
    return found


@each_recipe
def test_a_recipe_is_named_and_says_what_it_is(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert recipe_summary(name)
    assert load_recipe(name).recipe == name


@each_recipe
def test_every_value_stands_under_a_comment_that_names_its_source(name: str) -> None:
    assert unsourced(text_of(name)) == []


def test_a_value_without_a_source_is_seen() -> None:
    assert unsourced("# Rice et al., 2020.\nepochs = 3\n\nmomentum = 0.9\n") == ["momentum"]
    assert unsourced("# It is good.\nepochs = 3\n") == ["epochs"]


@each_recipe
def test_every_value_has_the_type_of_its_setting(name: str) -> None:
    values = values_of(name)
    config = load_recipe(name)
    for key, value in values.items():
        kept = getattr(config, key)
        assert type(typed_setting(key, value)) is type(kept)
        assert typed_setting(key, kept) == kept
        with pytest.raises(SatbenchError, match=f"expected {key} to be"):
            typed_setting(key, {"no": "setting is a table"})
    assert set(required()) <= set(values) <= set(settings())


@each_recipe
def test_what_is_written_is_what_is_trained(name: str) -> None:
    config = load_recipe(name)
    specs = ("attack", "architecture", "activation", "attack_backward", "update_backward")
    for key, value in values_of(name).items():
        if key not in specs:  # which are spelled out
            assert getattr(config, key) == typed_setting(key, value)


@pytest.mark.sampled(4)
@each_recipe
def test_a_config_survives_json_toml_overrides_and_being_spelled_out(
    name: str, tmp_path: Path
) -> None:
    config = load_recipe(name)

    stored = json.loads(json.dumps(config.to_dict()))
    lists = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    assert TrainConfig(**lists) == config
    assert spelled_out(config) == config
    assert overrides_of(config) == []

    file = tmp_path / "again.toml"
    told = {key: value for key, value in asdict(config).items() if key != "recipe"}
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items()))
    assert replace(load_recipe(str(file)), recipe=name) == config

    texts = [show_override(key, value) for key, value in told.items()]
    assert load_recipe(name, **parse_overrides(texts)) == config


def shape_for(config: TrainConfig, folder: Path) -> tuple[int, int, int]:
    """Return the shape of small images for the network of a recipe."""
    if config.dataset in SIZES:
        return SIZES[config.dataset]
    try:
        return load_dataset(config.dataset, "train", 1, folder).shape
    except SatbenchError:  # it needs files
        return (3, 32, 32)


@pytest.mark.usefixtures("shapes_checked")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in recipe_names()]
)
def test_a_step_of_training_is_finite_and_reaches_every_weight(name: str, tmp_path: Path) -> None:
    config = replace(load_recipe(name), batch_size=2, accumulate=1, compile=False)
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, *shape_for(config, tmp_path), generator=draw), torch.tensor([0, 2])
    with torch.random.fork_rng():
        model = fresh_model(config, classes=3)
        last = list(model.parameters())[-1].clone()
        stepper = Stepper(config, model, torch.device("cpu"), ALONE)

        loss, accuracy = stepper(x, y, 0, 0, config.learning_rate)
        logits = stepper.result.eval()(x)

    weights = [p for p in stepper.network.parameters() if p.requires_grad]
    assert loss.isfinite()
    assert loss > 0
    assert accuracy in (0, 0.5, 1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in weights)
    assert all(tensor.isfinite().all() for tensor in stepper.network.state_dict().values())
    assert not torch.equal(weights[-1], last)
    assert (logits.shape, logits.dtype) == ((2, 3), torch.float32)
