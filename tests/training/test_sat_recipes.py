"""The recipes of the paper: each value is from Xie et al., 2020, arXiv:2006.14536, or its code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib.resources import files

import pytest

from satbench.core.specs import split_spec
from satbench.recipes import TrainConfig, load_recipe, parse_overrides
from satbench.training.update.schedule import learning_rate

RESNET, EFFICIENTNET = "sat-imagenet-resnet50", "sat-imagenet-efficientnet"
PAPER = {
    "threat": "linf:4/255",
    "attack": "pgd(steps=1,step=eps,restarts=1,start=uniform,keep=last)",
    "attack_mode": "eval",
    "objective": "cross-entropy",
    "activation": "silu",
    "epochs": 100,
    "schedule": "step",
    "milestones": (30, 60, 90),
    "factor": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
    "clean_start": 0.0,
    "ema_decay": 0.0,
    "attack_backward": "true",
    "update_backward": "true",
    "augment": "resized-crop-flip",
    "crop": 224,
}


def switches_of(recipe: str) -> Sequence[str]:
    """Return the KEY=VALUE texts that the comments of a recipe offer, in order."""
    text = (files("satbench.recipes") / f"{recipe}.toml").read_text(encoding="utf-8")
    comments = " ".join(line.strip("# \n") for line in text.splitlines() if line[:1] == "#")
    found = re.findall(r"--set ('[^']*'|\S+)", comments)
    return [shlex.split(value.rstrip(".,;:"))[0] for value in found]


def rates(config: TrainConfig, epochs: Sequence[int], steps: int = 10) -> list[float]:
    """Return the learning rate at the first step of some epochs, counted from 0."""
    return [
        round(learning_rate(config, epoch * steps, config.epochs * steps), 12) for epoch in epochs
    ]


@pytest.mark.parametrize("recipe", [RESNET, EFFICIENTNET])
def test_the_recipes_have_the_values_of_the_paper(recipe: str) -> None:
    config = load_recipe(recipe)

    assert {key: getattr(config, key) for key in PAPER} == PAPER


def test_the_recipes_have_the_networks_of_the_paper() -> None:
    nets = [load_recipe(recipe).architecture for recipe in (RESNET, EFFICIENTNET)]

    assert nets == ["resnet(depth=50,statistics=sat)", "efficientnet(variant=b0,statistics=sat)"]


@pytest.mark.parametrize("recipe", [RESNET, EFFICIENTNET])
def test_the_learning_rate_falls_after_30_60_and_90_epochs(recipe: str) -> None:
    found = rates(load_recipe(recipe), (0, 29, 30, 59, 60, 89, 90, 99))

    assert found == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]


def test_the_learning_rate_is_0_1_per_256_images_of_a_batch() -> None:
    config = load_recipe(RESNET)

    assert config.learning_rate == 0.1 * (config.batch_size // 256)


def test_the_comments_of_a_recipe_offer_the_settings_in_which_paper_and_code_differ() -> None:
    assert switches_of(RESNET) == [
        "dataset=imagefolder:PATH",
        "clean_start=0.2",
        "attack_backward=softplus(10)",
        "update_backward=softplus(10)",
        "batch_size=4096",
        "learning_rate=1.6",
        "warm_up=0.05",
        "warm_up_start=0.1",
        "label_smoothing=0.1",
        "crop_schedule=1:128,31:224",
        "colour_jitter=0.4",
        "lighting=0.1",
        "precision=bfloat16",
    ]


@pytest.mark.parametrize("recipe", [RESNET, EFFICIENTNET])
def test_every_setting_that_a_recipe_offers_can_be_set(recipe: str) -> None:
    plain, offered = load_recipe(recipe), parse_overrides(switches_of(recipe))
    config = load_recipe(recipe, **offered)

    assert offered
    assert offered == {key: getattr(config, key) for key in offered}
    assert not [key for key in offered if getattr(plain, key) == getattr(config, key)]


def test_with_a_large_batch_the_learning_rate_rises_over_five_epochs() -> None:
    config = load_recipe(RESNET, **parse_overrides(switches_of(RESNET)))

    assert config.learning_rate == 0.1 * (config.batch_size // 256)
    assert rates(config, (5, 30, 60), steps=100) == [1.6, 0.16, 0.016]
    assert [learning_rate(config, step, 10_000) for step in (-1, 249, 499)] == pytest.approx(
        [0.1, 0.85, 1.6]
    )


def test_every_efficientnet_variant_of_the_paper_can_be_named() -> None:
    variants = [*(f"b{number}" for number in range(8)), "l1"]
    configs = [
        load_recipe(EFFICIENTNET, architecture=f"efficientnet(variant={v})") for v in variants
    ]

    assert variants == [dict(split_spec(c.architecture)[1])["variant"] for c in configs]


def test_the_control_on_cifar10_differs_from_pgd7_only_in_the_attack() -> None:
    control, robust = load_recipe("standard-cifar10"), load_recipe("pgd7-at-cifar10")
    keys = control.to_dict().keys() | robust.to_dict()

    assert {key for key in keys if getattr(control, key) != getattr(robust, key)} == {
        "recipe",
        "attack",
        "attack_mode",
        "keep",
    }
    assert control.attack == ""
