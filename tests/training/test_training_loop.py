"""The whole loop gives the same bits as a plainly written one, also when it is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from satbench.attacks import parse_attack
from satbench.core.noise import generator_for
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig, load_recipe
from satbench.training import epochs
from satbench.training.loop import Trained, fresh_model, train
from satbench.training.ranks import ALONE
from satbench.training.update.step import Stepper
from satbench.training.update.sync_norm import statistics_note
from satbench.training.watch import Held

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FirstNoise:
    """The noise of satbench 0.1: one stream per step, drawn from its beginning for the batch."""

    key: tuple[int | str, ...]
    batch: int

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        drawn = generator_for(*self.key, restart).random((self.batch, *shape), np.float32)
        return 2 * drawn - 1

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        raise NotImplementedError

    def block_seed(self, restart: int = 0) -> int:
        raise NotImplementedError


def plain_loop(config: TrainConfig, data: Dataset) -> tuple[nn.Module, list[float]]:
    """Train as satbench 0.1 did when it made the shipped weights."""
    model = fresh_model(config, data.classes).to(memory_format=torch.channels_last)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 5e-4},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True)
    n, losses = len(data) - config.held_out, []
    steps = n // config.batch_size
    for epoch in range(config.epochs):
        order = generator_for(config.seed, "order", epoch).permutation(n)
        total = 0.0
        for step in range(steps):
            rows = order[step * config.batch_size : (step + 1) * config.batch_size]
            x = torch.from_numpy(data.pixels(rows))
            y = torch.from_numpy(data.labels[rows])
            if config.attack:
                model.train(config.attack_mode == "train")
                noise = FirstNoise((config.seed, "training attack", epoch, step), len(x))
                attack, threat = parse_attack(config.attack), Threat.parse(config.threat)
                x = attack(model, x, y, threat, noise).detach()
            done, all_steps = epoch * steps + step, config.epochs * steps
            warm = config.warm_up * all_steps
            for group in optimiser.param_groups:
                group["lr"] = (
                    config.learning_rate * (done + 1) / max(warm, 1)
                    if done < warm
                    else config.learning_rate
                    * (1 + math.cos(math.pi * (done - warm) / (all_steps - warm)))
                    / 2
                )
            loss = F.cross_entropy(model.train()(x), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.item()
        losses.append(total / steps)
    return model, losses


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attack_mode": "eval", "activation": "relu"},
        {"attack": "pgd(steps=2,step=0.75*eps,restarts=1,start=uniform,keep=last)"},
        {"attack": ""},
    ],
    ids=["pgd-1", "eval mode", "pgd-2", "standard"],
)
def test_the_loop_equals_a_plainly_written_one_bit_by_bit(
    changes: dict[str, Any], config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    changed = replace(config, **changes)
    model, losses = plain_loop(changed, toy)
    done = train(changed, toy, tmp_path, CPU)

    assert digest_weights(done.model) == digest_weights(model)
    assert [metrics.loss for metrics in done.history] == losses


def test_the_recipe_of_shipped_models_still_gives_the_same_weights(
    fashion: Dataset, tmp_path: Path
) -> None:
    config = load_recipe("fmnist-sat", epochs=2, batch_size=32, held_out=40)
    model, losses = plain_loop(config, fashion)
    done = train(config, fashion, tmp_path, CPU)

    assert digest_weights(done.model) == digest_weights(model)
    assert [metrics.loss for metrics in done.history] == losses


EXTRAS: dict[str, dict[str, Any]] = {
    "trades": {
        "objective": "trades",
        "beta": 6.0,
        "attack": "trades(steps=2,step=eps/4)",
        "attack_mode": "eval",
        "ema_decay": 0.9,
    },
    "mart": {"objective": "mart", "beta": 5.0, "swa_from": 1, "gradient_clip": 0.5},
    "awp": {"awp": 0.01, "augment": "crop-flip", "clean_start": 0.5, "keep": "best"},
    "parts": {"accumulate": 2, "schedule": "step", "milestones": (1,), "channels_last": False},
    "half": {"precision": "bfloat16", "label_smoothing": 0.1, "nesterov": False},
}


def told(done: Trained) -> tuple[str, list[dict[str, Any]], str]:
    """Return the results of a run, without those that depend on the clock."""
    history = [
        {k: v for k, v in asdict(m).items() if k != "images_per_second"} for m in done.history
    ]
    return digest_weights(done.model), history, done.kept


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "extra",
    [
        *("trades", "awp"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mart", "parts", "half")),
    ],
)
def test_a_stopped_run_ends_with_exactly_the_same_weights_under_any_setting(
    extra: str,
    config: TrainConfig,
    toy: Dataset,
    power_cut: type[Exception],
    cut_at: Callable[[int, int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = replace(config, **EXTRAS[extra])
    whole = train(changed, toy, tmp_path / "whole", CPU)
    monkeypatch.setattr(epochs, "SAVE_EVERY_SECONDS", -1.0)
    for place in ((0, 2), (1, 1), (1, 4)):
        with pytest.raises(power_cut):
            train(changed, toy, tmp_path / "cut", CPU, on_step=cut_at(*place))

    assert told(train(changed, toy, tmp_path / "cut", CPU)) == told(whole)


def test_each_of_these_settings_changes_the_weights(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "held_out_accuracies", lambda *_: Held(0.5, 0.5))
    digests = set()
    for settings in ({}, *EXTRAS.values()):
        for key, value in settings.items() or [("seed", 0)]:
            if key in ("beta", "milestones", "keep", "channels_last", "accumulate", "attack_mode"):
                continue  # part of another setting, or a setting that only changes speed
            changes = {key: value}
            if key == "objective":
                changes["beta"] = settings["beta"]
            if key == "schedule":
                changes["milestones"] = settings["milestones"]
            folder = tmp_path / f"{key}-{value}"
            digests.add(digest_weights(train(replace(config, **changes), toy, folder, CPU).model))

    assert len(digests) == 1 + 13


def test_the_accumulated_gradient_of_parts_equals_that_of_the_batch(
    config: TrainConfig, toy: Dataset
) -> None:
    # Batch-norm is in eval mode; in train mode each part has its own statistics.
    x, y = torch.from_numpy(toy.pixels(range(8))), torch.from_numpy(toy.labels[:8])  # type: ignore[arg-type]
    grads = []
    for accumulate in (1, 2, 4):
        changed = replace(config, accumulate=accumulate, attack_mode="eval")
        stepper = Stepper(changed, _without_batch_norm(fresh_model(config, 3)), CPU, ALONE)
        stepper._grads(stepper._attacked(x, y, 0, 0))
        grads.append([p.grad.clone() for p in stepper.network.parameters() if p.grad is not None])

    for other in grads[1:]:
        for one, same in zip(grads[0], other, strict=True):
            torch.testing.assert_close(one, same, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_training_in_parts_differs_only_by_batch_norm_and_a_note_says_so(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = replace(config, accumulate=4)

    def far(number: int) -> tuple[float, tuple[str, ...]]:
        one, four = (
            train(changed, toy, tmp_path / f"{number}-{changed.accumulate}", CPU)
            for changed in (config, parts)
        )
        pairs = zip(one.model.parameters(), four.model.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs), four.notes

    with_norm, notes = far(0)
    monkeypatch.setattr(
        "satbench.training.loop.fresh_model",
        lambda config, classes: _without_batch_norm(fresh_model(config, classes)),
    )
    without, no_notes = far(1)

    assert with_norm > 1e-3
    assert notes[0].startswith(
        "batch-norm computes its statistics over 2 images at a time, not over the batch of 8: "
    )
    assert without < 1e-6
    assert not any("batch-norm" in note for note in no_notes)


@pytest.mark.parametrize(
    ("accumulate", "processes", "synchronised", "images"),
    [(1, 1, False, 0), (2, 1, False, 4), (1, 4, False, 2), (1, 4, True, 0), (2, 4, True, 4)],
)
def test_a_note_says_over_how_many_images_batch_norm_computes_statistics(
    accumulate: int, processes: int, synchronised: bool, images: int, config: TrainConfig
) -> None:
    changed = replace(config, accumulate=accumulate, sync_batch_norm=synchronised)
    note = statistics_note(changed, fresh_model(config, 3), processes)

    assert (f"over {images} images at a time" in note) == bool(images)
    assert bool(note) == bool(images)


def test_the_gradient_is_clipped_to_the_configured_norm(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.SGD.step

    def remember(self: torch.optim.SGD, *args: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", remember)
    train(replace(config, gradient_clip=0.05), toy, tmp_path, CPU)

    assert norms == pytest.approx([0.05] * 8, rel=1e-4)


def test_dropout_draws_depend_only_on_the_place_in_the_run(
    config: TrainConfig,
    toy: Dataset,
    power_cut: type[Exception],
    cut_at: Callable[[int, int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_dropout(config: TrainConfig, classes: int) -> nn.Module:
        net = fresh_model(config, classes)
        return nn.Sequential(net[:-1], nn.Dropout(0.5), net[-1])

    monkeypatch.setattr("satbench.training.loop.fresh_model", with_dropout)
    whole = train(config, toy, tmp_path / "whole", CPU)
    with pytest.raises(power_cut):
        train(config, toy, tmp_path / "cut", CPU, on_step=cut_at(1, 2))
    torch.rand(17)

    assert told(train(config, toy, tmp_path / "cut", CPU)) == told(whole)


@pytest.mark.usefixtures("global_generators")
def test_a_run_does_not_change_the_global_generator(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    train(config, toy, tmp_path, CPU)


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_weights(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    real = torch.compile

    def with_eager_backend(network: nn.Module) -> nn.Module:
        compiled.append(network)
        return real(network, backend="eager")

    monkeypatch.setattr(torch, "compile", with_eager_backend)
    plain = train(config, toy, tmp_path / "plain", CPU)
    fast = train(replace(config, compile=True), toy, tmp_path / "fast", CPU)

    assert len(compiled) == 1
    assert digest_weights(fast.model) == digest_weights(plain.model)
    assert isinstance(fast.model, nn.Sequential)


def _without_batch_norm(net: nn.Module) -> nn.Module:
    for name, layer in net.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            setattr(net, name, nn.Identity())
    return net
