"""What a run does when robustness collapses, and which epoch becomes its result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.images.batches import OnDevice
from satbench.training.loop import EpochMetrics, Trained, train
from satbench.training.ranks import ALONE
from satbench.training.update.inner import Inner
from satbench.training.update.objectives import Objective
from satbench.training.watch import (
    Held,
    best_of,
    chance_level,
    has_collapsed,
    held_out_accuracies,
    looks,
    overfitting,
)

CPU = torch.device("cpu")
PGD10 = [0.30, 0.45, 0.26, 0.24, 0.50]  # of five epochs; the fourth is 0.21 below the best
ATTACK = [0.35, 0.50, 0.40, 0.75, 0.55]  # in the fourth epoch it is far above PGD-10


@pytest.fixture(autouse=True)
def _no_word_on_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satbench.training.loop.chance_level", lambda *_: 100.0)


@pytest.fixture
def five(config: TrainConfig) -> TrainConfig:
    return replace(config, epochs=5, batch_size=32)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set the robustness of the epochs to the values above; return the weights after each."""
    return measured_as(ATTACK, PGD10, monkeypatch)


def measured_as(
    attack: Sequence[float], pgd10: Sequence[float], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    digests: list[str] = []

    def measure(config: TrainConfig, inner: object, model: nn.Module, *rest: Any) -> Held:
        digests.append(digest_weights(model))
        return Held(0.8, pgd10[len(digests) - 1], attack[len(digests) - 1], error=0.01)

    monkeypatch.setattr("satbench.training.epochs.held_out_accuracies", measure)
    return digests


def outcome(done: Trained) -> tuple[str, int, int]:
    return digest_weights(done.model), done.kept_epoch, len(done.history)


# What is a collapse


@pytest.mark.parametrize(
    ("attack", "pgd10", "expected"),
    [
        (0.75, 0.01, True),  # resists only the attack of its training
        (0.30, 0.10, True),  # the threshold of 0.2
        (0.22, 0.10, True),  # less than half, and at a tenth
        (0.55, 0.45, False),  # normal for single-step training
        (0.15, 0.06, False),
        (0.50, 0.50, False),
        (0.10, 0.30, False),
    ],
)
def test_a_collapse_is_a_large_gap_between_pgd_10_and_the_training_attack(
    attack: float, pgd10: float, expected: bool, five: TrainConfig
) -> None:
    assert has_collapsed(five, Held(0.8, pgd10, attack, error=0.01), 10) == expected


def test_a_gap_within_the_statistical_error_is_no_collapse(five: TrainConfig) -> None:
    assert not has_collapsed(five, Held(0.8, 0.25, 0.5, error=0.1), 10)


def test_standard_training_cannot_collapse(five: TrainConfig) -> None:
    standard = replace(five, attack="")

    assert not has_collapsed(standard, Held(0.9, 0.0, trained=0.9, images=1000), 10)
    assert overfitting(standard, [_epoch(1, 0.5)], _epoch(2, 0.0)) == ""


class RightInTheCorner(nn.Module):
    """Right at grey, wrong half-way to the corners of the ball, and right in the corners."""

    def forward(self, x: Tensor) -> Tensor:
        way = (x.mean((1, 2, 3)) - 0.5).abs() / 0.1
        margin = (4 * way - 2).abs() - 1
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def test_a_net_that_resists_only_single_steps_has_collapsed(five: TrainConfig) -> None:
    grey = Dataset("grey", "train", np.full((50, 1, 6, 6), 0.5, np.float32), np.zeros(50, int), 2)
    batches, rows = OnDevice(grey, five, CPU), np.arange(50)
    single, inner = RightInTheCorner(), Inner.of(five)
    held = held_out_accuracies(five, inner, single, batches, rows, CPU, ALONE)

    assert held == Held(1.0, 0.0, 1.0, error=math.sqrt(50) / 50, images=50)
    assert has_collapsed(five, held, 2)


@pytest.mark.parametrize(
    ("clean", "trained", "pgd10", "expected"),
    [
        (0.6, 0.75, 0.01, True),  # it resists only on its training images
        (0.6, 0.95, 0.30, False),  # robust overfitting
        (0.12, 0.95, 0.01, False),  # it learnt nothing that generalises
        (0.6, 0.15, 0.01, False),  # it resists no attack yet
    ],
)
def test_robustness_only_on_training_images_is_a_collapse(
    clean: float, trained: float, pgd10: float, expected: bool, five: TrainConfig
) -> None:
    held = Held(clean, pgd10, pgd10 + 0.05, 0.01, images=1000, trained=trained)

    assert has_collapsed(five, held, 10) == expected
    assert not has_collapsed(five, replace(held, images=4), 10)


# What a run does about it


def test_by_default_a_collapse_gives_a_warning_and_the_last_epoch_is_kept(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(five, toy, tmp_path, CPU)

    assert outcome(done) == (seen[4], 5, 5)
    assert done.kept == "last epoch"
    assert [m.collapsed for m in done.history] == [False, False, False, True, False]
    assert [m.warning for m in done.history] == [
        *("", "", ""),
        f"accuracy is {done.history[3].train_accuracy:.1%} on training images and 75.0% on "
        "held-out ones under the training attack, and 24.0% under PGD-10 (epoch 4): "
        "catastrophic overfitting",
        "",
    ]
    assert done.notes == ("catastrophic overfitting in epoch 4; the weights are of another epoch",)


def test_a_fall_that_the_training_attack_also_shows_is_called_robust_overfitting(
    five: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = measured_as([0.5, 0.45, 0.4, 0.35, 0.27], [0.45, 0.4, 0.35, 0.3, 0.24], monkeypatch)
    done = train(replace(five, on_overfitting="rollback"), toy, tmp_path, CPU)

    assert not any(m.collapsed for m in done.history)
    assert [bool(m.warning) for m in done.history] == [False] * 4 + [True]
    assert "catastrophic" not in done.history[4].warning
    assert "robust overfitting" in done.history[4].warning
    assert outcome(done) == (seen[0], 1, 5)


def test_a_run_may_stop_at_a_collapse(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(replace(five, on_overfitting="stop"), toy, tmp_path, CPU)

    assert outcome(done) == (seen[3], 4, 4)
    assert done.kept.startswith("last epoch, 4 of 5; stopped: accuracy is ")


def test_a_run_may_roll_back_to_its_best_epoch(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(replace(five, on_overfitting="rollback"), toy, tmp_path, CPU)

    assert outcome(done) == (seen[1], 2, 4)
    assert done.kept.startswith(
        "epoch 2, best by held-out PGD-10 accuracy; rolled back: accuracy is "
    )


@pytest.mark.parametrize("on_overfitting", ["warn", "stop", "rollback"])
def test_a_collapse_from_the_first_epoch_on_is_detected(
    on_overfitting: Any,
    five: TrainConfig,
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = measured_as([0.22, 0.4, 0.5, 0.6, 0.75], [0.01, 0.07, 0.01, 0.0, 0.0], monkeypatch)
    done = train(replace(five, on_overfitting=on_overfitting), toy, tmp_path, CPU)

    assert all(m.collapsed and m.warning for m in done.history)
    # A rollback has no good epoch, so the run continues and returns the best epoch.
    assert (
        outcome(done)
        == {
            "warn": (seen[-1], 5, 5),
            "stop": (seen[0], 1, 1),
            "rollback": (seen[1 % len(seen)], 2, 5),
        }[on_overfitting]
    )
    assert "the weights are of one of these" in done.notes[0]


def test_a_collapsed_epoch_is_never_better_than_a_sound_one() -> None:
    collapsed = replace(_epoch(2, 0.5), collapsed=True)

    assert best_of([_epoch(1, 0.2), collapsed, _epoch(3, 0.1)]) == _epoch(1, 0.2)
    assert best_of([collapsed]) == collapsed


def test_a_rollback_never_keeps_a_collapsed_last_epoch(
    five: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = measured_as([0.6, 0.6, 0.35, 0.6, 0.7], [0.1, 0.3, 0.3, 0.2, 0.0], monkeypatch)
    done = train(replace(five, on_overfitting="rollback"), toy, tmp_path, CPU)

    assert outcome(done) == (seen[2], 3, 4)


def test_a_run_that_ended_early_is_not_resumed(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    changed = replace(five, on_overfitting="rollback")
    first = train(changed, toy, tmp_path, CPU)
    again = train(changed, toy, tmp_path, CPU)

    assert len(seen) == 4
    assert outcome(again) == outcome(first)
    assert (again.kept, again.history) == (first.kept, first.history)


def test_keep_best_keeps_the_best_epoch(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(replace(five, epochs=4, keep="best"), toy, tmp_path, CPU)

    assert outcome(done) == (seen[1], 2, 4)
    assert done.kept == "epoch 2, best by held-out PGD-10 accuracy"


def test_overfitting_drop_sets_the_threshold(five: TrainConfig) -> None:
    history = [_epoch(k, value) for k, value in enumerate(PGD10[:3], start=1)]
    now, held = _epoch(4, 0.24), Held(0.8, 0.30, 0.55, 0.01)

    assert overfitting(replace(five, overfitting_drop=0.22), history, now) == ""
    assert overfitting(five, history, now) != ""
    assert overfitting(five, [], now) == ""
    assert has_collapsed(five, held, 10)
    assert not has_collapsed(replace(five, overfitting_drop=0.3), held, 10)


# Within an epoch


@pytest.fixture
def long(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Return a config of two epochs of four steps, with a check in the middle of each."""
    monkeypatch.setattr("satbench.training.watch.LEAST_STEPS", 2)
    return replace(config, checks=2)


def looked(collapsing: set[int], images: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the images of each measurement; the measurements of these numbers show a collapse."""

    def measure(*given: Any) -> Held:
        images.append(len(given[4]))
        return Held(0.8, 0.1, 0.7, 0.01) if len(images) in collapsing else Held(0.8, 0.4, 0.5, 0.01)

    monkeypatch.setattr("satbench.training.epochs.held_out_accuracies", measure)
    monkeypatch.setattr("satbench.training.epochs.LOOKED_AT", 3)


def test_long_epochs_have_checks_inside_them(config: TrainConfig) -> None:
    assert sorted(looks(config, 461)) == [115, 230, 346]
    assert sorted(looks(replace(config, checks=2), 461)) == [230]
    assert looks(replace(config, checks=1), 461) == looks(config, 19) == frozenset()


def test_checks_within_an_epoch_use_few_images_and_change_no_weights(
    long: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest_weights(train(replace(long, checks=1), toy, tmp_path / "1", CPU).model)
    images: list[int] = []
    real = train(long, toy, tmp_path / "2", CPU)
    looked(set(), images, monkeypatch)
    train(long, toy, tmp_path / "3", CPU)

    assert digest_weights(real.model) == expected
    assert [sorted(check) for check in real.history[0].checks] == [
        ["attack", "pgd10", "step", "trained"]
    ]
    assert images == [3, 8, 3, 8]


def test_a_collapse_within_an_epoch_is_confirmed_on_all_images_and_reported_at_once(
    long: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[int] = []
    notes: list[tuple[int, str]] = []
    looked({3, 4}, images, monkeypatch)  # in the second epoch: the check, and its confirmation
    done = train(long, toy, tmp_path, CPU, on_note=lambda note: notes.append((len(images), note)))

    assert images == [3, 8, 3, 8, 8]
    assert [number for number, _ in notes] == [4]
    assert "at step 2 of epoch 2: catastrophic overfitting" in notes[0][1]
    (check,) = done.history[1].checks
    assert 0 <= check.pop("trained") <= 1
    assert check == {"step": 2, "attack": 0.7, "pgd10": 0.1, "collapsed": 1}
    assert done.history[1].warning == notes[0][1]
    assert not done.history[1].collapsed
    assert outcome(done)[1:] == (2, 2)


def test_a_collapse_that_all_images_do_not_confirm_is_ignored(
    long: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[int] = []
    looked({3}, images, monkeypatch)
    done = train(replace(long, on_overfitting="stop"), toy, tmp_path, CPU)

    assert images == [3, 8, 3, 8, 8]
    assert done.history[1].warning == ""
    assert len(done.history) == 2


@pytest.mark.parametrize(("on_overfitting", "kept"), [("stop", 2), ("rollback", 1)])
def test_a_collapse_within_an_epoch_can_end_the_run_at_once(
    on_overfitting: Any,
    kept: int,
    long: TrainConfig,
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images: list[int] = []
    steps: list[int] = []
    looked({3, 4, 5}, images, monkeypatch)
    changed = replace(long, on_overfitting=on_overfitting, epochs=3)
    done = train(changed, toy, tmp_path, CPU, on_step=lambda _, step, __: steps.append(step))

    assert steps == [1, 2, 3, 4, 1, 2]
    assert (done.kept_epoch, len(done.history)) == (kept, 2)
    again = train(changed, toy, tmp_path, CPU)
    assert (again.kept, outcome(again)) == (done.kept, outcome(done))


@pytest.mark.slow
def test_a_run_killed_after_a_check_ends_with_the_same_result(
    long: TrainConfig,
    toy: Dataset,
    power_cut: type[Exception],
    cut_at: Callable[[int, int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train(long, toy, tmp_path / "whole", CPU)
    monkeypatch.setattr("satbench.training.epochs.SAVE_EVERY_SECONDS", -1.0)
    for place in ((0, 2), (0, 3), (1, 3)):
        with pytest.raises(power_cut):
            train(long, toy, tmp_path / "cut", CPU, on_step=cut_at(*place))
    done = train(long, toy, tmp_path / "cut", CPU)

    assert outcome(done) == outcome(whole)
    assert [m.checks for m in done.history] == [m.checks for m in whole.history]


# A loss at chance level


def test_chance_level_is_the_loss_of_the_best_constant_prediction(config: TrainConfig) -> None:
    even, uneven = np.arange(300) % 3, np.array([0] * 90 + [1] * 10)
    smooth = replace(config, label_smoothing=0.3)

    assert chance_level(config, even, 3) == pytest.approx(math.log(3))
    assert chance_level(config, uneven, 2) == pytest.approx(
        -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    )
    assert chance_level(smooth, even, 3) == pytest.approx(math.log(3))
    # 0.7 on the label and 0.3 spread over three classes, one of them the label: 0.7 + 0.1.
    one = chance_level(smooth, np.zeros(5, np.int64), 3)
    assert one == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.1))


def test_a_constant_prediction_has_the_loss_of_chance_level_under_every_objective(
    config: TrainConfig,
) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 3)

    x, y = torch.zeros(6, 1, 2, 2), torch.arange(6) % 3
    for changes in ({}, {"objective": "trades", "beta": 6.0}, {"objective": "mart", "beta": 5.0}):
        changed = replace(config, **changes)  # type: ignore[arg-type]
        loss, _ = Objective(changed, Constant())(x, x, y)
        assert chance_level(changed, y.numpy(), 3) == pytest.approx(float(loss), rel=1e-5)


def test_an_epoch_with_a_loss_at_chance_level_gives_a_warning(
    config: TrainConfig, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.training.loop.chance_level", chance_level)
    done = train(replace(config, learning_rate=1e-6, warm_up=0.0), toy, tmp_path, CPU)

    assert all("chance level" in metrics.warning for metrics in done.history)
    assert any("chance level" in note for note in done.notes)


# The metrics on disk


def test_the_best_of_equal_epochs_is_the_first() -> None:
    assert best_of([_epoch(1, 0.1), _epoch(2, 0.2), _epoch(3, 0.2)]) == _epoch(2, 0.2)
    assert best_of([]) is None


def test_metrics_are_one_line_per_epoch_and_are_written_during_the_run(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    lines: list[list[int]] = []

    def read(metrics: EpochMetrics) -> None:
        text = (tmp_path / "metrics.jsonl").read_text()
        lines.append([json.loads(line)["epoch"] for line in text.splitlines()])

    done = train(five, toy, tmp_path, CPU, on_epoch=read)

    assert lines == [list(range(1, k + 1)) for k in range(1, 6)]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [EpochMetrics(**json.loads(line)) for line in text.splitlines()] == done.history


def test_metrics_that_a_kill_lost_are_written_again(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    train(five, toy, tmp_path, CPU)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole[: len(whole) // 2])
    train(five, toy, tmp_path, CPU)

    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def _epoch(epoch: int, robust: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0, 0.5, 0.8, robust, 0.1, 100.0)
