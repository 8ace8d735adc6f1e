"""Learning rates; test_train.py tests the one-cycle schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from satbench.recipes import TrainConfig
from satbench.training.loop import learning_rate


@pytest.fixture
def ten(config: TrainConfig) -> TrainConfig:
    """Return a config of 10 epochs with a peak rate of 1; the tests use 2 steps per epoch."""
    return replace(config, epochs=10, learning_rate=1.0, warm_up=0.0)


def rates(config: TrainConfig) -> list[float]:
    return [learning_rate(config, step, 20) for step in range(20)]


def test_the_step_schedule_falls_by_its_factor_after_each_milestone(ten: TrainConfig) -> None:
    config = replace(ten, schedule="step", milestones=(3, 6, 9), factor=0.1)

    assert rates(config) == pytest.approx([1.0] * 6 + [0.1] * 6 + [0.01] * 6 + [0.001] * 2)


def test_the_constant_schedule_stays_at_the_peak(ten: TrainConfig) -> None:
    assert rates(replace(ten, schedule="constant")) == [1.0] * 20


def test_the_linear_schedule_rises_and_falls_along_straight_lines(ten: TrainConfig) -> None:
    config = replace(ten, schedule="linear", warm_up=0.4)

    assert rates(config)[:8] == pytest.approx([(k + 1) / 8 for k in range(8)])
    assert rates(config)[8:] == pytest.approx([1 - k / 12 for k in range(12)])


def test_after_the_warm_up_cosine_has_the_same_rates_as_without_it(ten: TrainConfig) -> None:
    plain, warmed = (rates(replace(ten, schedule="cosine", warm_up=w)) for w in (0.0, 0.2))

    assert plain[::5] == pytest.approx([1, 0.8535534, 0.5, 0.1464466])
    assert warmed == pytest.approx([0.25, 0.5, 0.75, 1.0, *plain[4:]])


def test_the_warm_up_starts_at_warm_up_start(ten: TrainConfig) -> None:
    config = replace(ten, schedule="constant", warm_up=0.2, warm_up_start=0.6)

    assert rates(config)[:5] == pytest.approx([0.7, 0.8, 0.9, 1.0, 1.0])
