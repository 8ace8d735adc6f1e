from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.judge import check_allowed
from satbench.model_zoo.card import card_within, read_card
from satbench.model_zoo.weights import digest_weights
from satbench.models import load_model, request_model
from satbench.networks.build import canonical_activation
from satbench.recipes import TrainConfig, load_recipe, recipe_names
from satbench.training import epochs
from satbench.training.images.batches import OnDevice
from satbench.training.loop import EpochMetrics, StepNoise, fresh_model, learning_rate, train
from satbench.training.run import default_name, run_training, train_command
from satbench.training.update.inner import Inner
from satbench.training.update.step import optimiser_of

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    recipe="toy",
    dataset="fashion-mnist",
    architecture="tiny(width=2)",
    activation="silu",
    threat="linf:0.1",
    attack="pgd(steps=1,step=1.25*eps,restarts=1,start=uniform,keep=last)",
    epochs=2,
    batch_size=8,
    learning_rate=0.1,
    weight_decay=5e-4,
    attack_mode="train",
    held_out=8,
    warm_up=0.25,
)
STEPS = 4  # an epoch: (40 - 8) / 8
FILES = ("best.safetensors", "checkpoint.before.pt", "checkpoint.pt", "config.json")
FILES += ("lock", "metrics.jsonl")


@pytest.fixture(scope="module")
def toy() -> Dataset:
    """Return 40 images of noise in 3 classes, which differ in brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    images = rng.integers(0, 86, (40, 1, 8, 8)) + 80 * labels.reshape(-1, 1, 1, 1)
    return Dataset("toy", "train", images.astype(np.uint8), labels, 3)


class PowerCutError(Exception):
    """The power is off."""


def stop_at(epoch: int, step: int) -> Callable[[int, int, int], None]:
    def on_step(now: int, done: int, steps: int) -> None:
        if (now, done) == (epoch, step):
            raise PowerCutError

    return on_step


def history_of(metrics: list[EpochMetrics]) -> list[dict[str, float]]:
    """Return metrics without those that depend on the clock."""
    return [{k: v for k, v in asdict(m).items() if k != "images_per_second"} for m in metrics]


# The learning rate


def test_the_learning_rate_rises_linearly_then_falls_along_half_a_cosine() -> None:
    config = replace(CONFIG, learning_rate=1.0, warm_up=0.2)
    rates = [learning_rate(config, step, 20) for step in range(20)]

    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:] == pytest.approx(
        [(1 + math.cos(math.pi * t / 16)) / 2 for t in range(16)], abs=1e-12
    )


def test_without_warm_up_the_learning_rate_starts_at_its_peak() -> None:
    config = replace(CONFIG, learning_rate=0.3, warm_up=0.0)

    assert learning_rate(config, 0, 10) == 0.3
    assert learning_rate(config, 5, 10) == pytest.approx(0.15)


@pytest.mark.parametrize("warm_up", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000, 2766])
def test_the_learning_rate_is_above_0_and_exceeds_the_peak_by_less_than_one_step(
    steps: int, warm_up: float
) -> None:
    config = replace(CONFIG, learning_rate=0.5, warm_up=warm_up)
    rates = [learning_rate(config, step, steps) for step in range(steps)]

    # If the warm-up ends within a step, that step exceeds the peak by less than one step's rise.
    assert min(rates) > 0
    assert max(rates) <= 0.5 * (1 + 1 / max(warm_up * steps, 1))


def test_the_learning_rate_of_each_step_is_set_in_the_optimiser(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    step = torch.optim.SGD.step

    def remember(self: torch.optim.SGD, *args: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        assert {group["lr"] for group in self.param_groups} == {used[-1]}
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", remember)
    train(CONFIG, toy, tmp_path, CPU)

    assert used == [learning_rate(CONFIG, k, 2 * STEPS) for k in range(2 * STEPS)]


# Twins


@pytest.mark.parametrize("activation", ["relu", "gelu(approximate=tanh)", "silu"])
def test_twins_start_with_equal_weights(activation: str) -> None:
    twin = fresh_model(replace(CONFIG, activation=activation), 3)

    assert digest_weights(twin) == digest_weights(fresh_model(CONFIG, 3))


def test_another_seed_starts_with_other_weights() -> None:
    other = fresh_model(replace(CONFIG, seed=1), 3)

    assert digest_weights(other) != digest_weights(fresh_model(CONFIG, 3))


@pytest.mark.usefixtures("global_generators")
def test_building_a_model_does_not_change_the_global_generator() -> None:
    fresh_model(CONFIG, 3)


def rows_seen(
    config: TrainConfig, toy: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[list[int]]:
    """Train, and return the rows of every batch that was loaded."""
    seen: list[list[int]] = []
    load = OnDevice._stored

    def remember(self: OnDevice, rows: Any) -> Any:
        seen.append(rows.tolist())
        return load(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(OnDevice, "_stored", remember)
        train(config, toy, folder, CPU)
    return seen


def test_twins_see_the_images_in_the_same_order(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [
        rows_seen(replace(CONFIG, activation=activation), toy, tmp_path / activation, monkeypatch)
        for activation in ("relu", "silu")
    ]

    assert seen[0] == seen[1]


def test_each_epoch_uses_each_image_that_is_not_held_out_once(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = rows_seen(CONFIG, toy, tmp_path, monkeypatch)
    first, second = (
        [row for rows in seen[start : start + STEPS] for row in rows] for start in (0, STEPS + 1)
    )

    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second
    assert seen[STEPS] == seen[-1] == list(range(32, 40))


def test_the_noise_of_a_step_depends_only_on_seed_epoch_step_and_restart() -> None:
    noise = StepNoise(0, 1, 2, 4)
    others = [StepNoise(1, 1, 2, 4), StepNoise(0, 0, 2, 4), StepNoise(0, 1, 3, 4)]
    drawn = noise.uniform((1, 2, 2))

    np.testing.assert_array_equal(StepNoise(0, 1, 2, 4).uniform((1, 2, 2)), drawn)
    assert drawn.shape == (4, 1, 2, 2)
    assert all((other.uniform((1, 2, 2)) != drawn).all() for other in others)
    assert (noise.uniform((1, 2, 2), restart=1) != drawn).all()
    assert (abs(drawn) < 1).all()


# The attack in training


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.5"])
def test_the_attack_in_training_stays_in_the_ball(
    threat: str, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perturb, moved = Inner.perturb, []

    def check(self: Inner, network: nn.Module, x: Tensor, *rest: Any) -> Tensor:
        x_adv = perturb(self, network, x, *rest)
        check_allowed(x, x_adv, Threat.parse(threat))
        moved.append(bool((x_adv != x).any()))
        return x_adv

    monkeypatch.setattr(Inner, "perturb", check)
    train(replace(CONFIG, threat=threat), toy, tmp_path, CPU)

    assert moved == [True] * 2 * STEPS


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_is_in_the_configured_mode_while_the_attack_searches(
    mode: Any, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    class Attack:
        def __call__(self, model: nn.Module, x: Tensor, *rest: Any) -> Tensor:
            modes.append(model.training)
            return x

    monkeypatch.setattr(
        "satbench.training.update.inner.parse_training_attack", lambda spec: Attack()
    )
    train(replace(CONFIG, attack_mode=mode), toy, tmp_path, CPU)

    # After the steps of an epoch comes its measurement, in eval mode.
    assert modes == ([mode == "train"] * STEPS + [False]) * 2


def test_without_an_attack_training_uses_unchanged_images(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inner, "perturb", None)

    train(replace(CONFIG, attack=""), toy, tmp_path, CPU)


def test_training_lowers_the_loss(toy: Dataset, tmp_path: Path) -> None:
    config = replace(CONFIG, attack="", epochs=12, architecture="tiny(width=4)")
    metrics = train(config, toy, tmp_path, CPU).history

    assert metrics[-1].loss < metrics[0].loss / 2
    assert metrics[-1].held_out_clean >= 0.875


def test_training_returns_the_model_in_eval_mode_with_metrics_of_every_epoch(
    toy: Dataset, tmp_path: Path
) -> None:
    told: list[EpochMetrics] = []
    done = train(CONFIG, toy, tmp_path, CPU, on_epoch=told.append)

    assert not any(module.training for module in done.model.modules())
    assert [m.epoch for m in done.history] == [1, 2]
    assert told == done.history
    assert all(0 <= m.held_out_pgd10 <= m.held_out_clean <= 1 for m in done.history)


def test_weights_decay_but_biases_and_batch_norm_do_not() -> None:
    model = fresh_model(CONFIG, 3)
    decayed, others = optimiser_of(CONFIG, model).param_groups

    assert (decayed["weight_decay"], others["weight_decay"]) == (5e-4, 0.0)
    assert [p.dim() for p in decayed["params"]] == [4, 4, 4, 4, 2]
    assert {p.dim() for p in others["params"]} == {1}
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


# Interrupted and resumed runs


@pytest.fixture(scope="module")
def whole(
    toy: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[dict[str, float]]]:
    """Return the weights' digest and the metrics of the uninterrupted run."""
    torch.set_num_threads(1)
    done = train(CONFIG, toy, tmp_path_factory.mktemp("whole"), CPU)
    return digest_weights(done.model), history_of(done.history)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("save_every", [-1.0, 1e9], ids=["each step", "each epoch"])
@pytest.mark.parametrize(
    ("epoch", "step"), [(0, 1), (0, 3), (0, STEPS), (1, 1), (1, 2), (1, STEPS)]
)
def test_a_stopped_run_ends_with_exactly_the_same_weights(
    epoch: int,
    step: int,
    save_every: float,
    toy: Dataset,
    whole: tuple[str, list[dict[str, float]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "SAVE_EVERY_SECONDS", save_every)
    with pytest.raises(PowerCutError):
        train(CONFIG, toy, tmp_path, CPU, on_step=stop_at(epoch, step))

    done = train(CONFIG, toy, tmp_path, CPU)

    assert digest_weights(done.model) == whole[0]
    assert history_of(done.history) == whole[1]


def test_a_resumed_run_does_not_repeat_the_steps_it_saved(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "SAVE_EVERY_SECONDS", -1.0)
    with pytest.raises(PowerCutError):
        train(CONFIG, toy, tmp_path, CPU, on_step=stop_at(1, 3))
    done: list[tuple[int, int]] = []
    train(CONFIG, toy, tmp_path, CPU, on_step=lambda epoch, step, steps: done.append((epoch, step)))

    assert done == [(1, 3), (1, 4)]


def test_a_finished_run_is_not_trained_again(
    toy: Dataset, whole: tuple[str, list[dict[str, float]]], tmp_path: Path
) -> None:
    train(CONFIG, toy, tmp_path, CPU)
    done = train(CONFIG, toy, tmp_path, CPU, on_step=stop_at(0, 1))

    assert (digest_weights(done.model), history_of(done.history)) == whole


def test_the_folder_of_another_run_is_refused_with_the_settings_that_differ(
    toy: Dataset, tmp_path: Path
) -> None:
    train(replace(CONFIG, epochs=1), toy, tmp_path, CPU)
    with pytest.raises(
        SatbenchError,
        match=r"^.* holds a run with another activation, seed; choose another --name or --out, or",
    ):
        train(replace(CONFIG, epochs=1, activation="relu", seed=4), toy, tmp_path, CPU)


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda data: b"",
        lambda data: b"text",
        lambda data: data[: len(data) // 2],
        lambda data: b"cos\nsystem\n(S'false'\ntR.",
    ],
    ids=["empty", "text", "half", "pickled command"],
)
def test_a_corrupt_checkpoint_is_refused(
    corrupt: Callable[[bytes], bytes], toy: Dataset, tmp_path: Path
) -> None:
    train(replace(CONFIG, epochs=1), toy, tmp_path, CPU)
    (checkpoint,) = tmp_path.glob("*.pt")
    checkpoint.write_bytes(corrupt(checkpoint.read_bytes()))
    with pytest.raises(
        SatbenchError, match=r"^the checkpoint .* is corrupt; remove it to train from the start$"
    ):
        train(replace(CONFIG, epochs=1), toy, tmp_path, CPU)


def test_a_corrupt_config_is_refused(toy: Dataset, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"recipe": "to')
    with pytest.raises(SatbenchError):
        train(CONFIG, toy, tmp_path, CPU)


def test_no_half_written_files_are_left(toy: Dataset, tmp_path: Path) -> None:
    train(CONFIG, toy, tmp_path, CPU)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


# Recipes


@pytest.mark.parametrize("name", recipe_names())
def test_the_activation_and_attack_of_a_recipe_are_spelled_out(name: str) -> None:
    config = load_recipe(name)

    assert config.activation == canonical_activation(config.activation)
    assert load_recipe(name, activation=config.activation, attack=config.attack or None) == config


def test_settings_of_a_recipe_can_be_changed() -> None:
    config = load_recipe("fmnist-sat", activation="gelu", seed=2, epochs=1, architecture=None)

    assert config == replace(
        load_recipe("fmnist-sat"), activation="gelu(approximate=tanh)", seed=2, epochs=1
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, r"^expected epochs of 1 or more, got 0$"),
        ({"batch_size": 0}, r"^expected batch_size of 1 or more, got 0$"),
        ({"held_out": -1}, r"^expected held_out of 1 or more, got -1$"),
        ({"learning_rate": 0.0}, r"^expected learning_rate above 0, got 0\.0$"),
        ({"threat": "linf:8"}, r"^expected eps at most 1"),
        ({"dataset": "cifar11"}, r"^unknown dataset 'cifar11': did you mean 'cifar10'\?$"),
        ({"attack": "pdg"}, r"^unknown attack 'pdg': did you mean 'pgd'\?$"),
        ({"attack_mode": "test"}, r"^expected attack_mode train or eval, got 'test'$"),
    ],
)
def test_a_bad_value_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        replace(CONFIG, **changes)


def test_a_batch_larger_than_the_data_is_refused(toy: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError):
        train(replace(CONFIG, batch_size=33), toy, tmp_path, CPU)


def test_more_held_out_images_than_there_are_is_refused(toy: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError):
        train(replace(CONFIG, held_out=41), toy, tmp_path, CPU)


# The files of a run


@pytest.fixture
def opened(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the toy data in the place of any other, and return which splits were opened."""
    splits: list[str] = []

    def load(name: str, split: str, data_dir: Path | None = None) -> Dataset:
        splits.append(split)
        return toy

    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", load)
    return splits


def run(out: Path, config: TrainConfig = CONFIG, **changes: Any) -> Any:
    given: dict[str, Any] = {"name": None, "data_dir": None, "device": "cpu", "threads": None}
    given |= {"on_epoch": lambda metrics: None, "quiet": True} | changes
    return run_training(config, out=out, **given)


def test_a_run_opens_only_the_training_split(opened: list[str], tmp_path: Path) -> None:
    run(tmp_path)

    assert opened == ["train"]


@pytest.mark.usefixtures("opened")
def test_a_run_leaves_weights_card_metrics_and_checkpoint(tmp_path: Path) -> None:
    done = run(tmp_path)
    name = "toy-tiny-silu-s0"

    written = {path.name for path in (tmp_path / name).iterdir()}
    epochs = {f"{name}-last.json", f"{name}-best.json", f"{name}-best.safetensors"}
    assert written == {*FILES, f"{name}.json", f"{name}.safetensors"} | epochs | (
        {"tensorboard"} if find_spec("tensorboard") else set()
    )
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert (done.card.name, done.weights.name) == (f"{name}.json", f"{name}.safetensors")


@pytest.mark.usefixtures("opened")
def test_events_that_a_stop_lost_are_written_at_the_next_start(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tmp_path)
    events = sorted(tmp_path.glob("*/tensorboard/*"))
    events[0].unlink()
    run(tmp_path)

    assert (len(events), sorted(tmp_path.glob("*/tensorboard/*"))) == (2, events)


@pytest.mark.usefixtures("opened")
def test_the_card_of_a_run_loads_its_weights(
    tmp_path: Path, whole: tuple[str, list[dict[str, float]]]
) -> None:
    done = run(tmp_path)
    loaded = load_model(request_model(str(done.card)), 3)

    assert loaded.info.weights_digest == whole[0]
    assert read_card(done.card).training is not None
    assert loaded.info.training["attack"] == CONFIG.attack


@pytest.mark.usefixtures("opened")
def test_the_weights_card_and_folder_of_a_run_load_the_same_model(
    tmp_path: Path,
) -> None:
    done = run(tmp_path)
    best = card_within(done.weights.parent / "best.safetensors")
    texts = [str(one) for one in (done.card, done.weights, done.weights.parent)]

    assert card_within(done.weights) == read_card(done.card)
    assert len({str(load_model(request_model(text), 3).info) for text in texts}) == 1
    assert best is not None
    assert (best.activation, best.training and best.training.recipe) == ("silu", CONFIG.recipe)
    assert load_model(request_model(str(done.weights.parent / "best.safetensors")), 3).card == best


@pytest.mark.usefixtures("opened")
def test_the_card_of_a_run_holds_the_metrics_of_its_last_epoch(
    tmp_path: Path, whole: tuple[str, list[dict[str, float]]]
) -> None:
    card = read_card(run(tmp_path).card)
    last = whole[1][-1]

    assert card.training is not None
    assert card.training.held_out == {
        "clean": last["held_out_clean"],
        "pgd-10": last["held_out_pgd10"],
    }
    assert card.training.config == CONFIG.to_dict()


@pytest.mark.usefixtures("opened")
def test_the_same_run_again_gives_the_same_files(tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in run(tmp_path).card.parent.glob("*toy*")}
    after = {p.name: p.read_bytes() for p in run(tmp_path).card.parent.glob("*toy*")}

    assert after == before


def test_a_default_name_consists_of_recipe_architecture_activation_and_seed() -> None:
    config = load_recipe("fmnist-sat", activation="gelu", seed=2)

    assert default_name(config) == "fmnist-sat-tiny-gelu-s2"


def test_the_command_of_a_run_trains_the_same_config_again() -> None:
    config = load_recipe("fmnist-sat", activation="parametric-softplus(alpha=5)", seed=2, epochs=3)
    words = train_command(config).replace("'", "").split()
    given = dict(pairwise(words[2:]))

    assert (
        load_recipe(
            given["--recipe"],
            architecture=given["--arch"],
            activation=given["--activation"],
            seed=int(given["--seed"]),
            epochs=int(given["--epochs"]),
        )
        == config
    )
