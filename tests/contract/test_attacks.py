"""What every attack in the registry holds.  A new attack is picked up from there.

Most of it is asserted by the test suites of other libraries too (torchattacks, Foolbox, ART,
adversarial-library, AutoAttack).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.cases import (
    ALONE,
    CHEAP,
    SHAPES,
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

# One takes on only images whose gradients mislead, the other's student learns next to nothing here.
WEAK = ("square-flagged", "distilled")


@cache
def plain_result(case: Case, make_net: MakeNet) -> Tensor:
    """Return what a case makes of grey images, the caller doing nothing out of the ordinary."""
    net = make_net()
    with torch.random.fork_rng():
        torch.rand(7)
        return case.run(net, *a_batch(net, (1, 8, 8)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@on_every_attack_under_every_threat
def test_the_result_is_allowed_by_the_threat_model(
    case: Case, shape: tuple[int, ...], small_net: MakeNet
) -> None:
    net = small_net(shape[0])
    x, y = a_batch(net, shape)

    x_adv = case.run(net, x, y)

    check_allowed(x, x_adv, case.threat)  # shape, float32, ball, box
    assert x_adv.device == x.device
    assert not x_adv.requires_grad
    assert case.name.startswith(WEAK) or (net(x_adv).argmax(1) != y).any()


@on_every_attack_under_every_threat
def test_images_and_labels_are_left_alone(case: Case, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    before = (x.clone(), y.clone())

    x_adv = case.run(net, x, y)
    x_adv += 1  # it is no view of x either

    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert not x.requires_grad


@on_every_attack_under_every_threat
def test_a_frozen_model_is_left_alone(case: Case, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    first = next(net.parameters())
    first.grad = torch.ones_like(first)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    case.run(net, x, y)

    state = net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert [name for name, p in net.named_parameters() if p.grad is not None] == ["0.weight"]
    assert torch.equal(first.grad, torch.ones_like(first))
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(m.training or m._forward_hooks or m._backward_hooks for m in net.modules())


@on_every_attack_under_every_threat
def test_the_global_generators_are_neither_moved_nor_read(case: Case, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())

    x_adv = case.run(net, x, y)

    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert torch.equal(x_adv, plain_result(case, small_net))  # made where they stood elsewhere


@on_every_attack_under_every_threat
def test_an_empty_batch_is_answered_without_the_model(case: Case, small_net: MakeNet) -> None:
    def nobody(x: Tensor) -> Tensor:
        raise AssertionError("asked about no image")

    x, y = torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64)
    attack = case.attack(small_net())

    x_adv = attack(nobody, x, y, case.threat, noise_of(0))

    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)


@on_every_attack_under_every_threat
def test_the_memory_layout_of_the_images_does_not_matter(case: Case, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    # The strides of channels last, which are contiguous too where there is one channel.
    laid = torch.empty_strided(x.shape, (64, 1, 8, 1)).copy_(x)

    assert torch.equal(case.run(net, laid, y), plain_result(case, small_net))


@on_every_attack_under_every_threat
def test_neither_no_grad_around_it_nor_trainable_weights_change_a_result(
    case: Case, small_net: MakeNet
) -> None:
    net = small_net().requires_grad_(True)
    x, y = a_batch(net, (1, 8, 8))
    attack = case.attack(net)

    with torch.no_grad():
        x_adv = attack(net, x, y, case.threat, noise_of())

    assert torch.equal(x_adv, plain_result(case, small_net))
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


@on_every_attack_under_every_threat
def test_a_ball_of_no_size_leaves_every_answer_as_it_was(case: Case, small_net: MakeNet) -> None:
    net = small_net()
    x, answers = a_batch(net, (1, 8, 8))
    y = answers.clone()
    y[:2] = (y[:2] + 1) % 5  # wrong when clean

    threat = Threat.of(case.threat.norm, "0.000000001")

    x_adv = case.attack(net)(net, x, y, threat, noise_of())

    assert (x_adv - x).abs().max() < 1e-6
    assert torch.equal(net(x_adv).argmax(1), answers)


@pytest.mark.parametrize("spec", SPECS)
def test_an_attack_is_frozen(spec: str) -> None:
    attack = parse_attack(spec)
    with pytest.raises(FrozenInstanceError):
        setattr(attack, fields(attack)[0].name, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", SPECS)
def test_an_attack_holds_nothing_but_hashable_parameters(spec: str) -> None:
    attack = parse_attack(spec)

    assert hash(parse_attack(spec)) == hash(attack)
    assert list(vars(attack)) == [field.name for field in fields(attack)]  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", sorted({*SPECS, *ATTACKS.names()}))
def test_the_canonical_spec_names_the_very_same_attack(spec: str) -> None:
    assert parse_attack(attack_spec(spec)) == parse_attack(spec)


@pytest.mark.parametrize("spec", sorted({*SPECS, *ATTACKS.names()}))
def test_the_canonical_spec_is_its_own_canonical_spec(spec: str) -> None:
    assert attack_spec(attack_spec(spec)) == attack_spec(spec)


@pytest.mark.parametrize("name", ATTACKS.names())
def test_an_attack_says_what_it_is_and_where_it_was_published(name: str) -> None:
    entry = ATTACKS[name]

    assert entry.summary
    assert entry.source


# The parts of the reference have no names of their own: tests/attacks/test_pyautoattack.py.
@pytest.mark.parametrize(
    "spec", [s for s in ALONE if s not in {*SIMPLE, "autoattack-reference", "fast", "audit"}]
)
def test_the_parts_of_a_composite_attack_hold_the_contract_too(spec: str) -> None:
    attack = parse_attack(spec)
    assert isinstance(attack, Composite)

    assert {type(part) for _, part in attack.parts()} <= {type(parse_attack(s)) for s in SIMPLE}
