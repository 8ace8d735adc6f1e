"""The memory layout of gradients: a matter of speed, never of the weights."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.loop import fresh_model
from satbench.training.ranks import ALONE
from satbench.training.update import step as step_module
from satbench.training.update.layout import layout_kept, pools
from satbench.training.update.step import Stepper

CPU = torch.device("cpu")


def strides_behind_pooling(activation: nn.Module, kept: bool) -> list[tuple[int, ...]]:
    """Return the strides of the gradient that a channels-last activation is handed."""
    seen: list[tuple[int, ...]] = []
    net = nn.Sequential(activation, nn.AdaptiveAvgPool2d(1))
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    inputs: list[Tensor] = []
    handle = net[0].register_forward_hook(lambda module, args, out: inputs.append(out))
    with layout_kept(pools(net)) if kept else nullcontext():
        out = net(x)
        inputs[0].register_hook(lambda grad: seen.append(grad.stride()))
        out.sum().backward()
    handle.remove()
    return seen


def test_the_gradient_of_pooling_comes_to_relu_channels_last() -> None:
    assert strides_behind_pooling(nn.ReLU(), kept=True) == [(48, 1, 12, 3)]


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU()])
def test_behind_smooth_activations_the_gradient_stays_as_torch_gives_it(
    activation: nn.Module,
) -> None:
    as_it_is = strides_behind_pooling(activation, kept=False)

    assert strides_behind_pooling(activation, kept=True) == as_it_is


def test_nothing_is_left_on_the_network_after_a_step(config: TrainConfig, toy: Dataset) -> None:
    stepper = Stepper(replace(config, activation="relu"), fresh_model(config, 3), CPU, ALONE)
    stepper(*batch(toy), 0, 0, 0.1)

    assert [module for module in stepper.network.modules() if module._forward_pre_hooks] == []


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "elu"])
def test_the_weights_are_the_same_bits_with_and_without(
    config: TrainConfig, toy: Dataset, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, activation=activation)
    kept = trained(config, toy)
    monkeypatch.setattr(step_module, "layout_kept", lambda found: nullcontext())

    assert kept == trained(config, toy)


def trained(config: TrainConfig, data: Dataset) -> str:
    """Return the digest of the weights after four steps."""
    stepper = Stepper(config, fresh_model(config, 3), CPU, ALONE)
    for number in range(4):
        stepper(*batch(data), 0, number, 0.1)
    return digest_weights(stepper.network)


def batch(data: Dataset) -> tuple[Tensor, Tensor]:
    """Return the first 16 images and labels."""
    return torch.from_numpy(data.images[:16].copy()).float() / 255, torch.from_numpy(
        data.labels[:16].copy()
    )
