"""What is done when robustness collapses, and which epoch is handed on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.loop import EpochMetrics, Trained, train
from satbench.training.watch import best_of, overfitting

CPU = torch.device("cpu")
PGD10 = [0.30, 0.45, 0.26, 0.24, 0.50]  # of five epochs; the fourth is 0.21 below the best


@pytest.fixture
def five(config: TrainConfig) -> TrainConfig:
    return replace(config, epochs=5, batch_size=32)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the epochs the robustness above; return the weights at the end of each."""
    digests: list[str] = []

    def measure(config: TrainConfig, model: nn.Module, *rest: Any) -> tuple[float, float]:
        digests.append(digest_weights(model))
        return 0.8, PGD10[len(digests) - 1]

    monkeypatch.setattr("satbench.training.loop.held_out_accuracies", measure)
    return digests


def outcome(done: Trained) -> tuple[str, int, int]:
    return digest_weights(done.model), done.kept_epoch, len(done.history)


def test_a_collapse_is_warned_of_and_the_last_epoch_handed_on(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(five, toy, tmp_path, CPU)

    assert outcome(done) == (seen[4], 5, 5)
    assert done.kept == "last epoch"
    assert [m.warning for m in done.history] == [
        *("", "", ""),
        "held-out PGD-10 accuracy fell from 45.0% (epoch 2) to 24.0% (epoch 4): catastrophic "
        "overfitting",
        "",
    ]


def test_a_run_may_stop_at_a_collapse(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(replace(five, on_overfitting="stop"), toy, tmp_path, CPU)

    assert outcome(done) == (seen[3], 4, 4)
    assert done.kept.startswith("last epoch, 4 of 5; stopped: held-out PGD-10 accuracy fell from ")


def test_a_run_may_roll_back_to_its_best_epoch(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(replace(five, on_overfitting="rollback"), toy, tmp_path, CPU)

    assert outcome(done) == (seen[1], 2, 4)
    assert done.kept.startswith(
        "epoch 2, best by held-out PGD-10 accuracy; rolled back: held-out PGD-10 accuracy fell "
    )


def test_a_run_that_ended_early_is_not_gone_on_with(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    changed = replace(five, on_overfitting="rollback")
    first = train(changed, toy, tmp_path, CPU)
    again = train(changed, toy, tmp_path, CPU)

    assert len(seen) == 4
    assert outcome(again) == outcome(first)
    assert (again.kept, again.history) == (first.kept, first.history)


def test_the_best_epoch_may_be_kept(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    done = train(replace(five, epochs=4, keep="best"), toy, tmp_path, CPU)

    assert outcome(done) == (seen[1], 2, 4)
    assert done.kept == "epoch 2, best by held-out PGD-10 accuracy"


def test_the_threshold_is_a_setting(five: TrainConfig) -> None:
    history = [_epoch(k, value) for k, value in enumerate(PGD10[:3], start=1)]
    now = _epoch(4, 0.24)

    assert overfitting(replace(five, overfitting_drop=0.22), history, now) == ""
    assert overfitting(five, history, now) != ""
    assert overfitting(replace(five, attack=""), history, now) == ""
    assert overfitting(five, [], now) == ""


def test_of_equal_epochs_the_first_is_the_best() -> None:
    assert best_of([_epoch(1, 0.1), _epoch(2, 0.2), _epoch(3, 0.2)]) == _epoch(2, 0.2)
    assert best_of([]) is None


def test_metrics_are_a_line_an_epoch_and_are_there_during_the_run(
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


def test_metrics_that_a_kill_cost_are_written_again(
    five: TrainConfig, seen: list[str], toy: Dataset, tmp_path: Path
) -> None:
    train(five, toy, tmp_path, CPU)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole[: len(whole) // 2])
    train(five, toy, tmp_path, CPU)

    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_loss_that_is_no_longer_finite_ends_the_run(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=r"^the loss was (nan|inf) in epoch 1: training div"):
        train(replace(config, learning_rate=1e30, warm_up=0.0), toy, tmp_path, CPU)


def _epoch(epoch: int, robust: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0, 0.5, 0.8, robust, 0.1, 100.0)
