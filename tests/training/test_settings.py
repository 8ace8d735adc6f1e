"""Settings of recipes: a user's own file, overrides, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.model_zoo.card import read_card, zoo_card, zoo_names
from satbench.recipes import (
    TrainConfig,
    load_recipe,
    overrides_of,
    parse_overrides,
    recipe_names,
)
from satbench.training.run import default_name, run_training, train_command
from satbench.training.saved.facts import Facts, open_run

CIFAR = {
    "fast-at-cifar10": {"attack": "pgd(steps=1,step=1.25*eps,", "epochs": 15},
    "pgd7-at-cifar10": {"attack": "pgd(steps=7,step=eps/4,", "epochs": 200},
    "trades-cifar10": {"attack": "trades(steps=10,step=0.007)", "epochs": 80},
    "sat-cifar10": {"attack": "pgd(steps=1,step=eps,", "epochs": 30},
}


@pytest.mark.parametrize("name", CIFAR)
def test_the_recipes_for_cifar10_exist(name: str) -> None:
    config = load_recipe(name)

    assert (config.dataset, config.epochs) == ("cifar10", CIFAR[name]["epochs"])
    assert config.attack.startswith(str(CIFAR[name]["attack"]))
    assert config.augment == "crop-flip"


def test_overrides_are_parsed_by_the_type_of_their_setting() -> None:
    texts = ["epochs=30", "learning_rate=0.5", "nesterov=false", "milestones=50,75"]
    texts += ["attack=pgd(steps=2,step=eps/2)", "keep=best", "attack_backward=softplus(10)"]

    assert parse_overrides(texts) == {
        "epochs": 30,
        "learning_rate": 0.5,
        "nesterov": False,
        "milestones": (50, 75),
        "attack": "pgd(steps=2,step=eps/2)",
        "keep": "best",
        "attack_backward": "softplus(10)",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs", r"^expected --set KEY=VALUE such as epochs=30, got 'epochs'$"),
        ("epocs=3", r"^unknown setting 'epocs': did you mean 'epochs'\?$"),
        ("epochs=many", r"^expected epochs to be a whole number, got 'many'$"),
        ("epochs=1.5", r"^expected epochs to be a whole number, got '1\.5'$"),
        ("awp=much", r"^expected awp to be a number, got 'much'$"),
        ("nesterov=maybe", r"^expected nesterov to be true or false, got 'maybe'$"),
        ("milestones=a,b", r"^expected milestones to be a list of whole numbers such as 50,75, go"),
        ("recipe=other", r"^unknown setting 'recipe'"),
    ],
)
def test_an_invalid_override_is_refused(text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        parse_overrides([text])


def test_an_override_given_twice_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"^--set awp is given twice$"):
        parse_overrides(["awp=1", "awp=2"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": "3"}, r"^expected epochs to be a whole number, got '3'$"),
        ({"epochs": True}, r"^expected epochs to be a whole number, got True$"),
        ({"nesterov": 1}, r"^expected nesterov to be true or false, got 1$"),
        ({"milestones": [1.5]}, r"^expected milestones to be a list of whole numbers"),
        ({"attack_backward": "relu"}, r"^expected backward=true or backward=softplus\(10\)"),
        ({"schedule": "stepp"}, r"^expected schedule one-cycle, cosine, linear, step or constant,"),
        ({"schedule": "step"}, r"^the schedule step needs milestones"),
        ({"schedule": "step", "milestones": [3, 2]}, r"^expected rising milestones, got \[3, 2\]$"),
        ({"objective": "trades"}, r"^objective trades needs a beta above 0$"),
        ({"objective": "mart", "beta": 5, "attack": ""}, r"^objective mart needs an attack$"),
        ({"beta": 6.0}, r"^beta is only for the objectives trades and mart$"),
        (
            {"accumulate": 3},
            r"^expected a batch_size that is a multiple of accumulate, 3, got 128$",
        ),
        ({"ema_decay": 0.9, "swa_from": 1}, r"^ema_decay and swa_from are two averages"),
        ({"ema_decay": 1.0}, r"^expected ema_decay from 0 to below 1, got 1\.0$"),
        ({"clean_start": 1.5}, r"^expected clean_start from 0 to 1, got 1\.5$"),
        ({"clean_start": 0.2, "attack": "trades"}, r"^clean_start needs an attack pgd"),
        ({"awp": -0.1}, r"^expected awp of 0 or more, got -0\.1$"),
        ({"compile": True, "update_backward": "softplus(10)"}, r"^compile does not go with"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_invalid_setting_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        load_recipe("fmnist-sat", **changes)


# The command on the card


@pytest.mark.parametrize("name", recipe_names())
def test_an_unchanged_recipe_has_no_overrides(name: str) -> None:
    assert overrides_of(load_recipe(name, seed=3, epochs=7, activation="elu")) == []


def test_the_overrides_of_a_config_rebuild_it() -> None:
    changes: dict[str, Any] = {
        "milestones": (2, 5),
        "schedule": "step",
        "awp": 0.005,
        "nesterov": False,
        "attack": "pgd(steps=3)",
        "held_out": 500,
        "learning_rate": 1e-05,
        "update_backward": "softplus(10)",
    }
    config = load_recipe("fmnist-sat", **changes)
    texts = overrides_of(config)

    assert {text.partition("=")[0] for text in texts} == set(changes)
    assert load_recipe("fmnist-sat", **parse_overrides(texts)) == config
    assert "--set milestones=2,5 " in train_command(config)


def test_every_setting_can_be_written_as_text_and_read_back() -> None:
    base = load_recipe("pgd7-at-cifar10")
    config = replace(base, milestones=(), schedule="constant", sync_batch_norm=True)

    assert load_recipe("pgd7-at-cifar10", **parse_overrides(overrides_of(config))) == config


# A user's own recipe


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(
        'dataset = "fashion-mnist"\narchitecture = "tiny(width=1)"\nactivation = "silu"\n'
        'threat = "linf:0.1"\nattack = "pgd(steps=1)"\nepochs = 1\nbatch_size = 16\n'
        "learning_rate = 1\nweight_decay = 0.0\nheld_out = 8\nseed = 5\n"
    )
    return path


def test_a_recipe_can_be_a_users_file(mine: Path) -> None:
    config = load_recipe(str(mine), epochs=2)

    assert (config.seed, config.epochs, config.learning_rate) == (5, 2, 1.0)
    assert default_name(config) == "mine-tiny-silu-s5"
    assert overrides_of(config) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = ", r"^the recipe .*mine\.toml is not TOML: "),
        ("epochs = 1", r"^the recipe .*mine\.toml lacks dataset, architecture, activation, "),
        ("epoch = 1", r"^unknown setting of the recipe .*mine\.toml 'epoch': did you mean 'epochs"),
    ],
)
def test_an_invalid_recipe_file_is_refused(text: str, said: str, mine: Path) -> None:
    mine.write_text(text)
    with pytest.raises(SatbenchError, match=said):
        load_recipe(str(mine))


def test_a_missing_recipe_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a recipe at .*other\.toml, which is miss"):
        load_recipe(str(tmp_path / "other.toml"))


# Files on disk


def test_newer_settings_are_left_out_of_cards_at_their_defaults(
    config: TrainConfig,
) -> None:
    first = [field.name for field in fields(TrainConfig)][:16]

    assert list(config.to_dict()) == first
    assert list(replace(config, awp=0.1).to_dict()) == [*first, "awp"]
    assert json.loads(json.dumps(replace(config, schedule="step", milestones=(1,)).to_dict()))[
        "milestones"
    ] == [1]


@pytest.mark.parametrize("name", [name for name in zoo_names() if name.endswith("s0")])
def test_the_current_recipes_give_the_configs_in_the_cards_of_shipped_models(name: str) -> None:
    training = zoo_card(name).training
    assert training is not None
    config = load_recipe(
        training.recipe, **{k: v for k, v in training.config.items() if k != "recipe"}
    )

    # docs/decisions/0008-pssilu.md
    changed = ["activation_rate=0.1"] if training.config["activation"] == "pssilu" else []
    assert config.to_dict() == training.config
    assert changed == overrides_of(config)


def test_a_run_that_began_before_a_setting_existed_can_be_resumed(
    config: TrainConfig, tmp_path: Path
) -> None:
    old = {k: v for k, v in asdict(config).items() if k in config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(old))
    facts = Facts("data", 1, 1, "cpu", "2", "0")
    open_run(tmp_path, config, facts, ())

    with pytest.raises(SatbenchError, match=r"holds a run with another awp; choose another"):
        open_run(tmp_path, replace(config, awp=0.1), facts, ())


def test_the_card_says_which_epoch_was_kept_and_how_to_repeat_the_training(
    mine: Path, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", lambda *_, **__: toy)
    config = load_recipe(str(mine), epochs=2, keep="best", augment="flip")
    run = run_training(config, None, tmp_path, None, "cpu", 1, lambda metrics: None, True)
    assert run is not None
    training = read_card(run.card).training
    assert training is not None
    lines = (run.card.parent / "metrics.jsonl").read_text().splitlines()
    best = max((json.loads(line) for line in lines), key=lambda epoch: epoch["held_out_pgd10"])

    assert training.kept == f"epoch {best['epoch']}, best by held-out PGD-10 accuracy"
    assert training.held_out == {"clean": best["held_out_clean"], "pgd-10": best["held_out_pgd10"]}
    assert "--set augment=flip --set keep=best" in training.command
