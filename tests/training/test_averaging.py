"""Averages of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.loop import train
from satbench.training.update.averaging import Average, average_of
from satbench.training.update.step import Stepper
from satbench.training.watch import Held

CPU = torch.device("cpu")


def nets() -> Iterator[nn.Module]:
    """Yield a net while its weights and running mean change."""
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    for value in (1.0, 3.0, -2.0, 5.0):
        nn.init.constant_(net[0].weight, value)
        net[1].running_mean.fill_(10 * value)
        net[1].num_batches_tracked.fill_(int(abs(value)))
        yield net


def test_the_moving_average_uses_its_decay_and_a_smaller_one_at_the_start(
    config: TrainConfig,
) -> None:
    path = nets()
    average = Average(replace(config, ema_decay=0.3), next(path))
    expected, seen = 1.0, []
    for t, (net, value) in enumerate(zip(path, (3.0, -2.0, 5.0), strict=True), start=1):
        average.after_step(net)
        decay = min(0.3, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value
        seen.append((float(average.network[0].weight), expected))

    for got, wanted in seen:
        assert got == pytest.approx(wanted, rel=1e-6)
    assert float(average.network[1].running_mean) == pytest.approx(10 * expected, rel=1e-6)
    assert int(average.network[1].num_batches_tracked) == 5


def test_the_even_average_is_the_mean_of_the_epochs_since_swa_from(config: TrainConfig) -> None:
    average, seen = None, []
    for epoch, net in enumerate(nets(), start=1):
        average = average or Average(replace(config, swa_from=2), net)
        average.after_step(net)
        average.after_epoch(net, epoch)
        seen.append(float(average.network[0].weight))

    assert seen == pytest.approx([1.0, 3.0, 0.5, 2.0])


def test_a_weight_that_two_layers_share_is_averaged_once(config: TrainConfig) -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    net[1].weight = net[0].weight
    nn.init.constant_(net[0].weight, 1.0)
    average = Average(replace(config, ema_decay=0.3), net)
    nn.init.constant_(net[0].weight, 3.0)

    average.after_step(net)

    assert float(average.network[1].weight) == pytest.approx(1 + (1 - 2 / 11) * 2)


def test_by_default_no_weights_are_averaged(config: TrainConfig) -> None:
    assert average_of(config, nn.Linear(1, 1)) is None


@pytest.mark.parametrize("changes", [{"ema_decay": 0.9}, {"swa_from": 1}], ids=["ema", "swa"])
def test_a_run_evaluates_and_returns_the_averaged_weights(
    changes: dict[str, float],
    config: TrainConfig,
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, ends = [], []
    end_epoch = Stepper.end_epoch

    def remember(self: Stepper, epoch: int) -> None:
        end_epoch(self, epoch)
        ends.append((digest_weights(self.network), digest_weights(self.result)))

    def measure(config: TrainConfig, inner: object, model: nn.Module, *rest: object) -> Held:
        seen.append(digest_weights(model))
        return Held(0.0, 0.0)

    monkeypatch.setattr(Stepper, "end_epoch", remember)
    monkeypatch.setattr("satbench.training.epochs.held_out_accuracies", measure)
    done = train(replace(config, **changes), toy, tmp_path, CPU)

    assert seen == [average for _, average in ends]
    assert digest_weights(done.model) == seen[-1] != ends[-1][0]
    assert "average of the weights" in done.kept
