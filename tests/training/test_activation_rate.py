"""The learning rate of the parameters of activations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.recipes import TrainConfig
from satbench.training.loop import fresh_model
from satbench.training.ranks import ALONE
from satbench.training.update.step import Stepper, optimiser_of

CPU = torch.device("cpu")


def stepped(config: TrainConfig, data: Dataset) -> tuple[dict[str, float], dict[str, float]]:
    """Return one number of each one-dimensional parameter before and after a step."""
    net = fresh_model(config, 3)
    before = {name: float(p.detach()[0]) for name, p in net.named_parameters() if p.dim() == 1}
    stepper = Stepper(config, net, CPU, ALONE)
    x, y = torch.from_numpy(data.images[:8].copy()) / 255, torch.from_numpy(data.labels[:8].copy())
    stepper(x, y, 0, 0, 0.1)
    now = stepper.network.named_parameters()
    return before, {name: float(p.detach()[0]) for name, p in now if p.dim() == 1}


@pytest.mark.parametrize("activation", ["pssilu", "smooth-relu"])
def test_a_rate_of_0_freezes_only_the_parameters_of_the_activation(
    activation: str, config: TrainConfig, toy: Dataset
) -> None:
    config = replace(config, activation=activation, activation_rate=0.0)
    own = {n for n, _ in fresh_model(config, 3).named_parameters() if n.endswith((".a", ".b"))}
    before, after = stepped(config, toy)

    assert own
    assert {name for name in before if before[name] == after[name]} == own


def test_a_rate_of_a_tenth_gives_a_tenth_of_the_step(config: TrainConfig, toy: Dataset) -> None:
    whole = replace(config, activation="pssilu")
    before, far = stepped(whole, toy)
    _, near = stepped(replace(whole, activation_rate=0.1), toy)
    name = next(name for name in before if name.endswith(".a"))

    assert before[name] != far[name]
    assert before[name] - near[name] == pytest.approx((before[name] - far[name]) / 10, rel=1e-2)


def test_shared_parameters_of_activations_are_in_the_optimiser_once(config: TrainConfig) -> None:
    config = replace(config, activation="pssilu", activation_rate=0.1)
    *_, own = optimiser_of(config, fresh_model(config, 3)).param_groups

    assert [p.tolist() for p in own["params"]] == [[1.0], [pytest.approx(1e-8)]]
    assert (own["weight_decay"], own["factor"]) == (0.0, 0.1)


def test_a_rate_of_1_adds_no_parameter_group(config: TrainConfig) -> None:
    config = replace(config, activation="pssilu")

    assert len(optimiser_of(config, fresh_model(config, 3)).param_groups) == 2


def test_a_negative_rate_is_refused(config: TrainConfig) -> None:
    with pytest.raises(SatbenchError, match=r"^expected activation_rate of 0 or more, got -1$"):
        replace(config, activation_rate=-1)
