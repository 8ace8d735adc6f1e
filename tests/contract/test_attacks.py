"""The contract of every attack in the registry.  A new attack is picked up automatically.

Most of it is asserted by the test suites of other libraries too (torchattacks, Foolbox, ART,
adversarial-library, AutoAttack).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields
from functools import cache

import numpy as np
import pytest
import torch
from arrows import watched
from known_models import random_net
from torch import Tensor, nn

from contract.cases import (
    ALONE,
    CASES_OF_THE_DAY,
    CHEAP,
    SIMPLE,
    SPECS,
    Case,
    MakeNet,
    a_batch,
    noise_of,
    on_every_attack_under_every_threat,
)
from satbench.attacks import ATTACKS, attack_spec, parse_attack
from satbench.core.threat import Threat
from satbench.engine.judge import check_allowed
from satbench.engine.traits import Composite

# Whoever adds one is told of its faults every day.
pytestmark = pytest.mark.sampled(None)

# One takes on only images whose gradients mislead, the other's student learns next to nothing here.
WEAK = ("square-flagged", "distilled")


@dataclass(frozen=True)
class Ordinary:
    """The result of an attack on grey images, and the state of its other arguments."""

    x: Tensor
    x_adv: Tensor
    answers: Tensor
    images: tuple[Tensor, Tensor]
    images_before: tuple[Tensor, Tensor]
    net: nn.Module
    weights_before: dict[str, Tensor]
    moved: list[str]
    misshapen: list[str]


@cache
def ordinary(case: Case) -> Ordinary:
    """Run a case once, for all tests that examine the state after a run."""
    net = random_net()
    x, y = a_batch(net, (1, 8, 8))
    before = (x.clone(), y.clone())
    first = next(net.parameters())
    first.grad = torch.ones_like(first)
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.random.fork_rng():
        torch.rand(7)
        states = generator_states()
        with watched() as watch:
            x_adv = case.run(net, x, y)
        moved = [name for name, state in generator_states().items() if states[name] != state]
    return Ordinary(
        before[0], x_adv, net(x_adv).argmax(1), (x, y), before, net, weights, moved, watch.wrong
    )


def generator_states() -> dict[str, object]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),
        "python": random.getstate(),
    }


def test_the_result_is_allowed_by_the_threat_model(subtests: pytest.Subtests) -> None:
    for case in CASES_OF_THE_DAY:
        with subtests.test(case=str(case)):
            check_result(case, ordinary(case).x, ordinary(case).x_adv)
            assert (
                case.name.startswith(WEAK)
                or (ordinary(case).answers != ordinary(case).images_before[1]).any()
            )


@pytest.mark.sampled(26)
@on_every_attack_under_every_threat
def test_the_result_for_colour_images_is_allowed_by_the_threat_model(
    case: Case, small_net: MakeNet
) -> None:
    net = small_net(3)
    x, y = a_batch(net, (3, 16, 16))

    x_adv = case.run(net, x, y)

    check_result(case, x, x_adv)
    assert case.name.startswith(WEAK) or (net(x_adv).argmax(1) != y).any()


def check_result(case: Case, x: Tensor, x_adv: Tensor) -> None:
    check_allowed(x, x_adv, case.threat)  # shape, float32, ball, box
    assert x_adv.device == x.device
    assert not x_adv.requires_grad


def test_images_and_labels_are_unchanged(subtests: pytest.Subtests) -> None:
    for case in CASES_OF_THE_DAY:
        with subtests.test(case=str(case)):
            seen = ordinary(case)
            x, y = seen.images
            assert torch.equal(x, seen.images_before[0])
            assert torch.equal(y, seen.images_before[1])
            assert not x.requires_grad
            assert x.untyped_storage().data_ptr() != seen.x_adv.untyped_storage().data_ptr()


def test_a_frozen_model_is_unchanged(subtests: pytest.Subtests) -> None:
    for case in CASES_OF_THE_DAY:
        with subtests.test(case=str(case)):
            net, before = ordinary(case).net, ordinary(case).weights_before
            state = net.state_dict()
            first = next(net.parameters())
            assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
            assert [name for name, p in net.named_parameters() if p.grad is not None] == [
                "0.weight"
            ]
            assert torch.equal(first.grad, torch.ones_like(first))
            assert not any(p.requires_grad for p in net.parameters())
            assert not any(
                m.training or m._forward_hooks or m._backward_hooks for m in net.modules()
            )


def test_the_global_generators_are_not_moved(subtests: pytest.Subtests) -> None:
    for case in CASES_OF_THE_DAY:
        with subtests.test(case=str(case)):
            assert ordinary(case).moved == []


def test_shapes_are_those_that_docstrings_tell(subtests: pytest.Subtests) -> None:
    for case in CASES_OF_THE_DAY:
        with subtests.test(case=str(case)):
            assert ordinary(case).misshapen == []


def test_an_empty_batch_is_answered_without_the_model(
    subtests: pytest.Subtests, small_net: MakeNet
) -> None:
    def nobody(x: Tensor) -> Tensor:
        raise AssertionError("asked about no image")

    x, y = torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64)
    for case in CASES_OF_THE_DAY:
        with subtests.test(case=str(case)):
            x_adv = case.attack(small_net())(nobody, x, y, case.threat, noise_of(0))
            assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)


@on_every_attack_under_every_threat
def test_nothing_around_it_changes_a_result(case: Case, small_net: MakeNet) -> None:
    # Around it are: gradients off, weights that are trained, generators elsewhere, and the strides
    # of channels last, which are contiguous too where there is one channel.
    net = small_net().requires_grad_(True)
    x, y = a_batch(net, (1, 8, 8))
    laid = torch.empty_strided(x.shape, (64, 1, 8, 1)).copy_(x)
    attack = case.attack(net)

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        x_adv = attack(net, laid, y, case.threat, noise_of())

    assert torch.equal(x_adv, ordinary(case).x_adv)
    assert [(p.grad, p.requires_grad) for p in net.parameters()] == [(None, True)] * 8


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "rows of a wider tensor": lambda x: torch.cat([x, x], 3)[..., : x.shape[3]],
    "turned": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second image": lambda x: x.repeat_interleave(2, 0)[::2],
    "a leaf with a gradient": lambda x: x.clone().requires_grad_(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "fab-t"])
def test_images_in_any_layout_give_the_same_result(
    name: str, layout: str, small_net: MakeNet
) -> None:
    net = small_net(3)
    x, y = a_batch(net, (3, 16, 16))
    case = Case(CHEAP[name], Threat.parse("l2:3"))

    laid = LAYOUTS[layout](x)
    x_adv = case.run(net, laid, y)

    assert torch.equal(x_adv, case.run(net, x, y))
    assert not x_adv.requires_grad
    assert laid.grad is None


@pytest.mark.sampled(26)
@on_every_attack_under_every_threat
def test_a_ball_of_radius_almost_0_changes_no_answer(case: Case, small_net: MakeNet) -> None:
    net = small_net()
    x, answers = a_batch(net, (1, 8, 8))
    y = answers.clone()
    y[:2] = (y[:2] + 1) % 5  # wrong when clean

    threat = Threat.of(case.threat.norm, "0.000000001")

    x_adv = case.attack(net)(net, x, y, threat, noise_of())

    assert (x_adv - x).abs().max() < 1e-6
    assert torch.equal(net(x_adv).argmax(1), answers)


def test_an_attack_is_frozen_and_holds_nothing_but_hashable_parameters(
    subtests: pytest.Subtests,
) -> None:
    for spec in SPECS:
        with subtests.test(spec=spec):
            attack = parse_attack(spec)
            names = [field.name for field in fields(attack)]  # type: ignore[arg-type]
            with pytest.raises(FrozenInstanceError):
                setattr(attack, names[0], 1)
            assert hash(parse_attack(spec)) == hash(attack)
            assert list(vars(attack)) == names


def test_the_canonical_spec_names_the_very_same_attack_and_is_its_own(
    subtests: pytest.Subtests,
) -> None:
    for spec in sorted({*SPECS, *ATTACKS.names()}):
        with subtests.test(spec=spec):
            assert parse_attack(attack_spec(spec)) == parse_attack(spec)
            assert attack_spec(attack_spec(spec)) == attack_spec(spec)


def test_an_attack_says_what_it_is_and_where_it_comes_from() -> None:
    assert [name for name in ATTACKS.names() if not ATTACKS[name].summary] == []
    assert [name for name in ATTACKS.names() if not ATTACKS[name].source] == []


# The parts of the reference have no names of their own: tests/attacks/test_pyautoattack.py.
@pytest.mark.parametrize(
    "spec", [s for s in ALONE if s not in {*SIMPLE, "autoattack-reference", "fast", "audit"}]
)
def test_the_parts_of_a_composite_attack_hold_the_contract_too(spec: str) -> None:
    attack = parse_attack(spec)
    assert isinstance(attack, Composite)

    assert {type(part) for _, part in attack.parts()} <= {type(parse_attack(s)) for s in SIMPLE}
