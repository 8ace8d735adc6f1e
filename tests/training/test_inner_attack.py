"""The attack during training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.attacks.gradient.trades import (
    TradesAttack,
    parse_training_attack,
    training_attack_spec,
)
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig, load_recipe, recipe_names
from satbench.training.loop import StepNoise, fresh_model, train
from satbench.training.update import inner
from satbench.training.update.inner import Inner, starts_clean
from satbench.training.watch import Held

CPU = torch.device("cpu")
EPS = 0.1


class Zeros:
    """Noise of zeros."""

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> Any:
        return np.zeros((3, *shape), np.float32)

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> Any:
        return np.ones((3, *shape), np.float32)

    def block_seed(self, restart: int = 0) -> int:
        return 0


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2])


@pytest.fixture
def images_at_the_edges(images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return images with mostly black or white pixels, and labels."""
    return (images[0] * 3 - 1).clamp(0, 1), images[1]


# TRADES


def test_the_trades_attack_ascends_the_divergence_from_the_clean_prediction(
    images_at_the_edges: tuple[Tensor, Tensor], config: TrainConfig
) -> None:
    x, y = images_at_the_edges[0].double(), images_at_the_edges[1]
    net = fresh_model(config, 3).double().eval()
    clean = net(x).softmax(1).detach()
    expected = x + 0.001
    for _ in range(3):
        point = expected.clone().requires_grad_()
        (clean * (clean.log() - F.log_softmax(net(point), 1))).sum().backward()
        assert point.grad is not None
        moved = expected + EPS / 4 * point.grad.sign()
        expected = torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)

    x_adv = TradesAttack(steps=3)(net, x, y, Threat.parse("linf:0.1"), Zeros())

    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_the_trades_attack_starts_outside_the_box_and_ends_inside(
    norm: str, pixel: float, config: TrainConfig
) -> None:
    seen: list[Tensor] = []
    net = fresh_model(config, 3).eval()

    def model(images: Tensor) -> Tensor:
        seen.append(images.detach().clone())
        logits: Tensor = net(images)
        return logits

    x, y = torch.full((3, 1, 8, 8), pixel), torch.tensor([0, 1, 2])
    noise = StepNoise(0, 0, 0, 3)
    x_adv = TradesAttack(steps=2)(model, x, y, Threat.of(norm, "0.1"), noise)

    clean, start, second = seen
    assert torch.equal(clean, x)
    assert torch.equal(start, x + 0.001 * torch.from_numpy(noise.normal((1, 8, 8))))
    assert ((start < 0) | (start > 1)).any()
    for image in (second, x_adv):
        assert ((image >= 0) & (image <= 1)).all()


def test_the_trades_attack_does_not_depend_on_labels(
    images: tuple[Tensor, Tensor], config: TrainConfig
) -> None:
    x, y = images
    net, threat = fresh_model(config, 3).eval(), Threat.parse("linf:0.1")

    assert torch.equal(
        TradesAttack(2)(net, x, y, threat, Zeros()),
        TradesAttack(2)(net, x, (y + 1) % 3, threat, Zeros()),
    )


def test_the_spec_of_a_training_attack_is_spelled_out() -> None:
    assert training_attack_spec("trades") == "trades(steps=10,step=eps/4)"
    assert training_attack_spec("pgd(steps=3)").startswith("pgd(steps=3,step=eps/4,")
    assert parse_training_attack("trades(steps=3)") == TradesAttack(steps=3)


def test_a_trades_attack_with_0_steps_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"^trades: expected steps of 1 or more, got 0$"):
        parse_training_attack("trades(steps=0)")


# Clean start


def test_batches_start_clean_at_the_configured_rate(config: TrainConfig) -> None:
    some = replace(config, clean_start=0.2)
    drawn = [starts_clean(some, 0, step) for step in range(2000)]

    assert abs(np.mean(drawn) - 0.2) < 0.03  # more than three standard deviations
    assert not any(starts_clean(config, 0, step) for step in range(200))


def test_clean_start_changes_only_the_start_of_the_attack(
    images: tuple[Tensor, Tensor], config: TrainConfig
) -> None:
    x, y = images
    attacker = Inner.of(config)
    assert attacker is not None
    net, noise = fresh_model(config, 3), StepNoise(0, 0, 0, 3)
    clean = Inner.of(replace(config, attack=config.attack.replace("uniform", "clean")))
    assert clean is not None

    start_clean = attacker.perturb(net, x, y, noise, clean=True)

    assert torch.equal(start_clean, clean.perturb(net, x, y, noise, clean=False))
    assert not torch.equal(start_clean, attacker.perturb(net, x, y, noise, clean=False))


# The model under attack


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_attack_leaves_weights_trainable_and_without_gradient(
    mode: Any, images: tuple[Tensor, Tensor], config: TrainConfig
) -> None:
    trainable = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = fresh_model(config, 3)
            self.inside[1].weight.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            trainable.append([p.requires_grad for p in self.parameters()])
            return self.inside(x)  # type: ignore[no-any-return]

    net = Net()
    before = [p.requires_grad for p in net.parameters()]
    attacker = Inner.of(replace(config, attack_mode=mode))
    assert attacker is not None
    attacker.perturb(net, *images, StepNoise(0, 0, 0, 3), clean=False)

    assert not any(any(seen) for seen in trainable)
    assert [p.requires_grad for p in net.parameters()] == before == [False] + [True] * 13
    assert all(p.grad is None for p in net.parameters())
    assert net.training == (mode == "train")


def test_in_eval_mode_the_attack_does_not_change_running_statistics(
    images: tuple[Tensor, Tensor], config: TrainConfig
) -> None:
    net = fresh_model(config, 3)
    before = digest_weights(net)
    for mode, same in (("eval", True), ("train", False)):
        attacker = Inner.of(replace(config, attack_mode=mode))
        assert attacker is not None
        attacker.perturb(net, *images, StepNoise(0, 0, 0, 3), clean=False)
        assert (digest_weights(net) == before) is same


# The backward of activations (Xie et al., 2020, section 3.2)


def gradients_seen(
    config: TrainConfig, toy: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Train one step, and return the backward of ReLU in the attack and in the update."""
    seen: list[str] = []

    class Spy(nn.Module):
        """One pixel's ReLU at -0.5, whose own gradient is 0."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 1))

        def forward(self, x: Tensor) -> Tensor:
            z = x.flatten(1)[:, :1] * 0 - 0.5 * self.scale
            if z.requires_grad:
                (slope,) = torch.autograd.grad(F.relu(z).sum(), z, retain_graph=True)
                where = "update" if self.scale.requires_grad else "attack"
                smooth = torch.sigmoid(torch.tensor(-5.0))
                seen.append(f"{where}: {'softplus' if float(slope[0]) == smooth else 'own'}")
            return torch.cat([z, -z, z], 1)

    monkeypatch.setattr("satbench.training.loop.fresh_model", lambda config, classes: Spy())
    monkeypatch.setattr(
        "satbench.training.epochs.held_out_accuracies", lambda *args: Held(0.0, 0.0)
    )
    train(replace(config, epochs=1, batch_size=32), toy, folder, CPU)
    return seen


@pytest.mark.parametrize("attack", ["true", "softplus(10)"])
@pytest.mark.parametrize("update", ["true", "softplus(10)"])
def test_attack_and_update_have_separate_backward_settings(
    attack: str,
    update: str,
    config: TrainConfig,
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = replace(config, attack_backward=attack, update_backward=update)
    names = {"true": "own", "softplus(10)": "softplus"}

    assert gradients_seen(changed, toy, tmp_path, monkeypatch) == [
        f"attack: {names[attack]}",
        f"update: {names[update]}",
    ]


def test_each_backward_setting_changes_the_trained_weights_of_a_relu_net(
    config: TrainConfig, toy: Dataset, tmp_path: Path
) -> None:
    relu = replace(config, activation="relu", epochs=1)
    digests = set()
    for attack in ("true", "softplus(10)"):
        for update in ("true", "softplus(10)"):
            changed = replace(relu, attack_backward=attack, update_backward=update)
            folder = tmp_path / f"{attack}-{update}"
            digests.add(digest_weights(train(changed, toy, folder, CPU).model))

    assert len(digests) == 4


# Refusals


def test_settings_that_could_deadlock_several_processes_are_refused(config: TrainConfig) -> None:
    early = replace(config, attack="pgd(steps=2,keep=any)", sync_batch_norm=True)
    with pytest.raises(SatbenchError, match=r"give the attack keep=last and restarts=1$"):
        Inner.of(early)
    assert Inner.of(replace(early, attack_mode="eval")) is not None


@pytest.mark.parametrize(
    "attack", ["pgd(steps=1,step=50)", "trades(step=10)", "cosine-pgd(step=3)"]
)
def test_a_step_of_more_than_2_eps_is_refused_in_training_too(
    attack: str, config: TrainConfig
) -> None:
    with pytest.raises(
        SatbenchError, match=r": expected a step of at most 2 eps under linf:0\.1, "
    ):
        Inner.of(replace(config, attack=attack))


@pytest.mark.parametrize("name", recipe_names())
def test_the_attack_of_every_recipe_suits_its_threat_model(name: str) -> None:
    config = load_recipe(name)

    assert (Inner.of(config) is None) == (not config.attack)


@pytest.mark.parametrize("attack", ["autoattack", "fast", "distilled"])
def test_an_attack_that_cannot_search_in_training_is_refused(
    attack: str, config: TrainConfig
) -> None:
    with pytest.raises(SatbenchError, match=rf"got {attack}, which has parts or surrogates"):
        Inner.of(replace(config, attack=attack))


def test_a_recipe_may_name_a_training_attack(tmp_path: Path) -> None:
    text = (Path(inner.__file__).parents[2] / "recipes" / "fmnist-sat.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(
        text.replace(
            "pgd(steps=1,step=1.25*eps,restarts=1,start=uniform,keep=last)", "trades(steps=2)"
        )
    )

    assert load_recipe(str(mine)).attack == "trades(steps=2,step=eps/4)"
