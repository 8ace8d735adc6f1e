"""Adversarial weight perturbation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.loop import train
from satbench.training.update.awp import perturbed_weights

CPU = torch.device("cpu")


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_each_layer_moves_along_its_gradient_in_proportion_to_its_weights() -> None:
    net, x = make(), torch.rand(5, 3)
    before = [p.detach().clone() for p in net.parameters()]

    def grads() -> None:
        net(x).square().sum().backward()

    with perturbed_weights(net, 0.05, grads):
        inside = [p.detach().clone() for p in net.parameters()]

    for old, new, parameter in zip(before, inside, net.parameters(), strict=True):
        assert parameter.grad is not None
        if parameter.dim() > 1:
            grad = parameter.grad
            torch.testing.assert_close(new, old + 0.05 * old.norm() * grad / grad.norm())
        else:
            assert torch.equal(new, old)
        assert torch.equal(parameter, old)


def test_the_running_statistics_are_restored() -> None:
    net, x = make(), torch.rand(5, 3)
    before = digest_weights(net)
    with perturbed_weights(net, 0.05, lambda: net(x).sum().backward()):
        pass

    assert digest_weights(net) == before


def test_weights_with_a_zero_gradient_stay_finite() -> None:
    net, x = make(), torch.rand(5, 3)
    with perturbed_weights(net, 0.05, lambda: net(x).sum().mul(0).backward()):
        assert torch.isfinite(net[0].weight).all()


def test_a_run_perturbs_weights_from_the_configured_epoch_on(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    digests = []
    for name, awp, awp_from in (("plain", 0.0, 1), ("later", 0.01, 3), ("first", 0.01, 1)):
        changed = replace(config, awp=awp, awp_from=awp_from)
        digests.append(digest_weights(train(changed, toy, tmp_path / name, CPU).model))

    assert digests[0] == digests[1] != digests[2]
