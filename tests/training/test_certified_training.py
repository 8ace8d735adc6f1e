"""Certified objectives: their loss bounds every attack and has a gradient in the weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.certification.bounding.bounds import interval_bounds, logit_bounds, margin_rows
from satbench.certification.bounding.program import read_program
from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.core.errors import SatbenchError
from satbench.networks.build import build_network
from satbench.recipes import TrainConfig, load_recipe
from satbench.training.ranks import ALONE
from satbench.training.update.certified import CertifiedLoss, interval_boxes
from satbench.training.update.step import Stepper

SHAPE = (1, 12, 12)
X = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3


def config(objective: str = "ibp", **changes: object) -> TrainConfig:
    return load_recipe(
        f"fmnist-{objective}", architecture="tiny(width=2)", threat="linf:0.05", **changes
    )


def net(activation: str) -> nn.Module:
    torch.manual_seed(0)
    made = build_network("tiny(width=2)", activation, 3).train()
    made(X)
    return made


def worst_of(objective: str, network: nn.Module, progress: float) -> tuple[Tensor, Tensor]:
    loss = CertifiedLoss(config(objective), network)
    loss.begin_step(SHAPE, progress)
    found: tuple[Tensor, Tensor] = loss(X, Y)
    return found


@pytest.mark.parametrize("activation", ["relu", "silu", "celu(alpha=2)", "softplus"])
def test_training_computes_the_same_boxes_as_a_certificate(activation: str) -> None:
    network = net(activation).double().eval()
    program = read_program(network, SHAPE)
    region = Region.around(X.double(), "linf", 0.05)
    proven = interval_bounds(program, region, Roundoff(2.0**-53)).boxes
    for mine, other in zip(interval_boxes(program, region).boxes, proven, strict=True):
        assert torch.allclose(mine.low, other.low, rtol=0, atol=1e-6)
        assert torch.allclose(mine.high, other.high, rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", ["ibp", "crown-ibp"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_loss_starts_as_the_clean_loss_and_later_bounds_any_attack(
    objective: str, activation: str
) -> None:
    network = net(activation)
    clean = network(X)
    loss, worst = worst_of(objective, network, 0.0)
    assert torch.allclose(worst, clean - clean.gather(1, Y.view(-1, 1)), atol=1e-4)
    assert loss.item() == pytest.approx(F.cross_entropy(clean, Y).item(), abs=1e-4)

    bound = [worst_of(objective, network, progress)[0].item() for progress in (0.06, 0.3, 0.6, 1)]
    assert loss.item() < bound[0] < bound[1] < bound[2] == bound[3]
    # Batch-norm uses the statistics of the clean batch, so the attack must keep them too.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(X)
    frozen, eps = network.eval(), 0.05 * 0.06 / 0.6
    x = X.clone()
    for _ in range(10):
        x.requires_grad_()
        attacked = F.cross_entropy(frozen(x), Y)
        (grad,) = torch.autograd.grad(attacked, x)
        x = (x.detach() + eps / 4 * grad.sign()).clamp(X - eps, X + eps).clamp(0, 1)
    broken = F.cross_entropy(frozen(x), Y).item()
    assert loss.item() + 1e-3 < broken < bound[0]


def test_linear_bounds_give_a_smaller_loss_than_intervals_while_eps_rises() -> None:
    by_intervals, _ = worst_of("ibp", net("relu"), 0.3)
    by_lines, _ = worst_of("crown-ibp", net("relu"), 0.3)
    at_end = [worst_of(name, net("relu"), 0.9)[0].item() for name in ("ibp", "crown-ibp")]

    assert by_lines.item() < by_intervals.item() - 1e-3
    assert at_end[0] == at_end[1]


@pytest.mark.parametrize("objective", ["ibp", "crown-ibp"])
def test_training_steps_reach_all_weights_and_lower_the_loss(objective: str) -> None:
    network = net("relu")
    stepper = Stepper(config(objective), network, torch.device("cpu"), ALONE, steps=40)
    losses = [stepper(X, Y, 0, step, 0.05)[0].item() for step in [20] * 30]

    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in network.parameters())
    assert losses[-1] < 0.8 * losses[0]


def test_a_trained_net_has_larger_certified_margins_than_an_untrained_one() -> None:
    def certified(network: nn.Module) -> float:
        program = read_program(network.double().eval(), SHAPE)
        bounds = interval_bounds(
            program, Region.around(X.double(), "linf", 0.05), Roundoff(2.0**-24)
        )
        return float(
            logit_bounds(bounds, margin_rows(Y, 3), until_last_site=True).min(1)[0].mean().detach()
        )

    network = net("silu")
    before = certified(net("silu"))
    stepper = Stepper(config(), network, torch.device("cpu"), ALONE, steps=40)
    for _ in range(40):
        stepper(X, Y, 0, 30, 0.05)
    assert certified(network) > before + 0.1


def test_an_activation_with_trained_parameters_is_refused() -> None:
    stepper = Stepper(config(), net("pssilu"), torch.device("cpu"), ALONE, steps=4)
    with pytest.raises(SatbenchError, match="trained parameters"):
        stepper(X, Y, 0, 0, 0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"attack": "pgd-1"},
        {"label_smoothing": 0.1},
        {"awp": 0.01},
        {"compile": True},
        {"sync_batch_norm": True},
        {"precision": "bfloat16"},
        {"update_backward": "softplus(10)"},
        {"beta": 1.0},
        {"ramp": 1.5},
        {"objective": "cross-entropy"},
    ],
    ids=str,
)
def test_settings_that_certified_objectives_do_not_support_are_refused(
    change: dict[str, object],
) -> None:
    with pytest.raises(SatbenchError):
        replace(config(), **change)  # type: ignore[arg-type]
