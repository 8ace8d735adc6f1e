"""What every attack in the registry holds.  A new attack is picked up from there."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks import ATTACKS, attack_spec, parse_attack
from satbench.attacks.contract import Prepared
from satbench.attacks.judge import check_allowed
from satbench.attacks.suite import Composite
from satbench.core.noise import Noise
from satbench.core.threat import Threat

# Spelled out where the defaults would take long; an attack without a line runs with its defaults.
CHEAP = {
    "pgd": "pgd(steps=3,restarts=2)",
    "apgd-ce": "apgd-ce(steps=4,restarts=2)",
    "apgd-dlr": "apgd-dlr(steps=4,eot=2)",
    "apgd-t": "apgd-t(steps=3,targets=2)",
    "fab-t": "fab-t(steps=2,targets=2)",
    "square": "square(queries=20)",
    "foolbox.fmn": "foolbox.fmn(steps=20)",
    "foolbox.ddn": "foolbox.ddn(steps=5)",
    "foolbox.deepfool": "foolbox.deepfool(steps=10,candidates=3)",
    "foolbox.cw": "foolbox.cw(steps=5,binary_search_steps=2,stepsize=0.1)",
    "foolbox.boundary": "foolbox.boundary(steps=60,spherical_step=0.2)",
    "foolbox.hopskipjump": "foolbox.hopskipjump(steps=1,initial_gradient_eval_steps=4)",
}
SPECS = [CHEAP.get(name, name) for name in ATTACKS.names()]


def borrows(spec: str) -> bool:
    """Whether an attack, or a part of it, needs what a run lends.  It has tests of its own."""
    attack = parse_attack(spec)
    parts = [part for _, part in attack.parts()] if isinstance(attack, Composite) else [attack]
    return any(isinstance(part, Prepared) for part in parts)


ALONE = [spec for spec in SPECS if not borrows(spec)]
SIMPLE = [spec for spec in ALONE if not isinstance(parse_attack(spec), Composite)]

# Large, so that attacks which hand failures back as they came have successes to show.
THREATS = ("linf:0.3", "l2:3", "l1:12")
SHAPES = ((1, 8, 8), (3, 16, 16))

# An attack that says nothing of norms takes any.
PAIRS = [
    pytest.param(spec, threat, id=f"{spec}-{threat}")
    for spec in SIMPLE
    for threat in map(Threat.parse, THREATS)
    if threat.norm in getattr(parse_attack(spec), "norms", (threat.norm,))
]

on_every_attack_under_every_threat = pytest.mark.parametrize(("spec", "threat"), PAIRS)
MakeNet = Callable[..., nn.Module]


def a_batch(net: nn.Module, shape: tuple[int, ...], n: int = 5) -> tuple[Tensor, Tensor]:
    """Return images, some pixels of which are at 0 and 1, that the net gets right."""
    x = (torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2).clamp(0, 1)
    return x, net(x).argmax(1)


def noise_of(n: int = 5, seed: int = 0) -> Noise:
    return Noise(seed, "contract", tuple(range(n)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@on_every_attack_under_every_threat
def test_the_result_is_allowed_by_the_threat_model(
    spec: str, threat: Threat, shape: tuple[int, ...], small_net: MakeNet
) -> None:
    net = small_net(shape[0])
    x, y = a_batch(net, shape)

    x_adv = parse_attack(spec)(net, x, y, threat, noise_of())

    check_allowed(x, x_adv, threat)  # shape, float32, ball, box
    assert (net(x_adv).argmax(1) != y).any()
    assert not x_adv.requires_grad


@on_every_attack_under_every_threat
def test_images_and_labels_are_left_alone(spec: str, threat: Threat, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    before = (x.clone(), y.clone())

    x_adv = parse_attack(spec)(net, x, y, threat, noise_of())
    x_adv += 1  # it is no view of x either

    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert not x.requires_grad


@on_every_attack_under_every_threat
def test_a_frozen_model_is_left_alone(spec: str, threat: Threat, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    first = next(net.parameters())
    first.grad = torch.ones_like(first)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    parse_attack(spec)(net, x, y, threat, noise_of())

    state = net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert [name for name, p in net.named_parameters() if p.grad is not None] == ["0.weight"]
    assert torch.equal(first.grad, torch.ones_like(first))
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(m.training or m._forward_hooks or m._backward_hooks for m in net.modules())


@on_every_attack_under_every_threat
def test_the_global_generators_are_left_alone(
    spec: str, threat: Threat, small_net: MakeNet
) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())

    parse_attack(spec)(net, x, y, threat, noise_of())

    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@on_every_attack_under_every_threat
def test_the_same_noise_gives_the_same_bits(spec: str, threat: Threat, small_net: MakeNet) -> None:
    net, attack = small_net(), parse_attack(spec)
    x, y = a_batch(net, (1, 8, 8))

    first = attack(net, x, y, threat, noise_of())
    torch.rand(7)  # where the global generator stands does not matter
    second = attack(net, x, y, threat, noise_of())

    assert torch.equal(first, second)


@on_every_attack_under_every_threat
def test_gradients_that_are_off_change_nothing(
    spec: str, threat: Threat, small_net: MakeNet
) -> None:
    net = small_net()
    x, y = a_batch(net, SHAPES[0])
    expected = parse_attack(spec)(net, x, y, threat, noise_of())
    with torch.no_grad():
        got = parse_attack(spec)(net, x, y, threat, noise_of())

    assert torch.equal(got, expected)


@on_every_attack_under_every_threat
def test_a_single_image_is_a_batch(spec: str, threat: Threat, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8), n=1)

    check_allowed(x, parse_attack(spec)(net, x, y, threat, noise_of(1)), threat)


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
    assert "arXiv:" in entry.source


# The parts of the reference have no names of their own: tests/attacks/test_pyautoattack.py.
@pytest.mark.parametrize(
    "spec", [s for s in ALONE if s not in {*SIMPLE, "autoattack-reference", "fast", "audit"}]
)
def test_the_parts_of_a_composite_attack_hold_the_contract_too(spec: str) -> None:
    attack = parse_attack(spec)
    assert isinstance(attack, Composite)

    assert {type(part) for _, part in attack.parts()} <= {type(parse_attack(s)) for s in SIMPLE}
    assert {name for name, _ in attack.parts()} <= set(ATTACKS.names())
