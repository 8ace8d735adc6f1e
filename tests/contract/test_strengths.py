"""The strength of attacks with known answers: on linear models, and between settings.

The test suites of other libraries assert most of it (adversarial-library, ART, torchattacks,
Foolbox, AutoAttack), for some of their attacks each.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.cases import Case, MakeNet, a_batch, noise_of, on_every_attack_under_every_threat
from satbench.attacks import parse_attack
from satbench.attacks.minimum_norm import MinimumNorm, minimum_distances
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.ball import size
from satbench.engine.judge import broken, check_allowed
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.traits import traits_of

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


class Linear(nn.Module):
    """Two classes by a hyperplane through the grey image, and three that never win.

    For logits (-s, s) with s = w · (x - 1/2) the distance to it is |s| over the dual norm of w.
    """

    def __init__(self, pixels: int = 36) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        # Sizes of a decade, so that no norm's way is another's.
        self.w = (
            10 ** torch.rand(pixels, generator=draw) * torch.randn(pixels, generator=draw).sign()
        )

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) - 0.5) @ self.w
        never = [torch.full_like(score, -100 - k) for k in range(3)]
        return torch.stack([-score, score, *never], 1)

    def distances(self, x: Tensor, norm: str) -> Tensor:
        """Return how far the hyperplane is, (B,) float64."""
        dual = torch.linalg.vector_norm(self.w.double(), ord=DUAL[norm])
        return self(x)[:, 1].double().abs() / dual


def greyish(n: int) -> tuple[Linear, Tensor, Tensor]:
    model, draw = Linear(), torch.Generator().manual_seed(11)
    x = 0.35 + 0.3 * torch.rand(n, 1, 6, 6, generator=draw)
    return model, x, model(x).argmax(1)


# Where the boundary is a hyperplane

NEAREST = [
    ("fab-t(steps=30)", NORMS, 1.01),
    ("foolbox.fmn(steps=100)", NORMS, 1.1),
    ("foolbox.ddn(steps=60,init_epsilon=0.05)", ("l2",), 1.02),
    ("foolbox.deepfool", ("linf", "l2"), 1.1),
    (
        "foolbox.cw(steps=100,stepsize=0.003,initial_const=0.1,binary_search_steps=5)",
        ("l2",),
        1.25,
    ),
    ("foolbox.hopskipjump(steps=6)", ("linf", "l2"), 1.25),
    ("foolbox.boundary(steps=600,spherical_step=0.1,source_step=0.02)", ("l2",), 1.25),
]


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize(
    ("spec", "norm", "most"),
    [(spec, norm, most) for spec, norms, most in NEAREST for norm in norms],
)
def test_the_nearest_point_is_hardly_further_than_the_boundary(
    spec: str, norm: str, most: float, n: int
) -> None:
    model, x, y = greyish(n)
    attack = parse_attack(spec)
    assert isinstance(attack, MinimumNorm)

    found = minimum_distances(model, model, x, y, attack, norm, noise_of(n))[1]

    share = found / model.distances(x, norm)
    assert 1 - 1e-3 < float(share.min())
    assert float(share.max()) < most


WITHIN = [
    "pgd(steps=40)",
    "pgd(steps=40,start=clean,keep=last)",
    "apgd-ce(steps=40)",
    "apgd-dlr(steps=40)",
    "apgd-t(steps=30)",
    "cosine-pgd(steps=40)",
    "cosine-pgd(loss=mifpe,steps=40)",
    "cosine-pgd(loss=ce,steps=40)",
    "cosine-pgd(loss=dlr,steps=40)",
    "malt(steps=40)",
    "malt-apgd(steps=30)",
    "pma(steps=40)",
    "a3(rounds=4)",
    "fab-t(steps=30)",
    "foolbox.fmn(steps=100)",
    "foolbox.ddn(steps=60,init_epsilon=0.05)",
    "foolbox.deepfool",
]


@pytest.mark.parametrize(
    ("spec", "norm"),
    [
        pytest.param(spec, norm, marks=[] if norm == "l2" else [pytest.mark.slow])
        for spec in WITHIN
        for norm in traits_of(parse_attack(spec)).norms
    ],
)
def test_what_the_ball_reaches_is_broken_and_nothing_else(spec: str, norm: str) -> None:
    attack, (model, x, y) = parse_attack(spec), greyish(12)
    exact = model.distances(x, norm)
    middle = float(exact.sort().values[5:7].mean())
    threat = Threat.of(norm, f"{middle:.12f}")

    fooled = broken(model, x, attack(model, x, y, threat, noise_of(12)), y, threat)

    assert fooled[exact < middle / 1.05].all()
    assert not fooled[exact > middle].any()


# PGD, written out


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_of_pgd_from_the_image_is_the_fast_gradient_method(
    norm: str, small_net: MakeNet
) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    attack = parse_attack("pgd(steps=1,step=eps,start=clean,keep=last)")

    x_adv = attack(net, x, y, Threat.of(norm, "0.1"), noise_of())

    grad = cross_entropy_gradient(net, x, y)
    step = grad.sign() if norm == "linf" else grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(x_adv, (x + 0.1 * step).clamp(0, 1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_its_loop(norm: str, small_net: MakeNet) -> None:
    net, eps = small_net(3), 0.1
    x, y = a_batch(net, (3, 16, 16))
    point = x
    for _ in range(5):
        grad = cross_entropy_gradient(net, point, y)
        if norm == "linf":
            point = torch.min(torch.max(point + eps / 4 * grad.sign(), x - eps), x + eps)
        else:
            length = grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            delta = point + eps / 4 * grad / length - x
            length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            point = x + delta * (eps / length).clamp_max(1)
        point = point.clamp(0, 1)

    x_adv = parse_attack("pgd(steps=5,start=clean,keep=last)")(
        net, x, y, Threat.of(norm, str(eps)), noise_of()
    )

    torch.testing.assert_close(x_adv, point, rtol=0, atol=1e-6)


def cross_entropy_gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(net(leaf), y, reduction="sum"), leaf)
    return grad


# One setting by another


def surviving(net: nn.Module, spec: str, threat: str, n: int = 24, seed: int = 0) -> int:
    x, y = a_batch(net, (1, 8, 8), n)
    parsed = Threat.parse(threat)
    x_adv = parse_attack(spec)(net, x, y, parsed, noise_of(n, seed))
    return n - int(broken(net, x, x_adv, y, parsed).sum())


STRONG = ("pgd", "apgd-ce(steps=20)", "apgd-t(steps=10)", "fab-t(steps=10)", "malt(steps=10)")


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("spec", [*STRONG, "square(queries=200)"])
def test_survivors_only_fall_with_eps_down_to_none(
    spec: str, norm: str, small_net: MakeNet
) -> None:
    net, radii = small_net(), {"linf": (1e-4, 0.02, 1), "l2": (1e-3, 0.1, 8)}[norm]

    left = [surviving(net, spec, f"{norm}:{eps}", n=12) for eps in radii]

    assert left == sorted(left, reverse=True)
    assert left[-1] == 0 < left[0]


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("pgd(steps={},start=clean)", (1, 3, 20)),
        ("pgd(steps=2,restarts={})", (1, 2, 5)),
        ("apgd-ce(steps={})", (1, 5, 20)),
        ("apgd-ce(steps=2,restarts={})", (1, 2, 5)),
        ("apgd-t(steps=5,targets={})", (1, 2, 4)),
        ("fab-t(steps=5,targets={})", (1, 2, 4)),
        ("malt(steps=5,targets={})", (1, 2, 4)),
        ("square(queries={})", (1, 20, 200)),
        ("foolbox.fmn(steps={})", (2, 10, 40)),
    ],
)
def test_more_of_a_search_leaves_no_more_images(
    spec: str, values: tuple[int, ...], small_net: MakeNet
) -> None:
    net = small_net()

    left = [surviving(net, spec.format(value), "linf:0.03") for value in values]

    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("spec", ["pgd(steps=5,eot={})", "apgd-ce(steps=5,eot={})"])
def test_samples_of_a_model_without_randomness_change_no_verdict(
    spec: str, norm: str, small_net: MakeNet
) -> None:
    net, eps = small_net(), {"linf": 0.03, "l2": 0.2}[norm]

    one, three = (surviving(net, spec.format(eot), f"{norm}:{eps}") for eot in (1, 3))

    assert one == three
    assert 0 < one < 24


@pytest.mark.parametrize("spec", ["apgd-ce(steps=5)", "apgd-dlr(steps=5)", "square(queries=30)"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_whole_ball_is_used(spec: str, norm: str, small_net: MakeNet) -> None:
    net, threat = (
        small_net(3),
        Threat.parse({"linf": "linf:0.3", "l2": "l2:3", "l1": "l1:12"}[norm]),
    )
    x, y = a_batch(net, (3, 16, 16))
    x = 0.4 + 0.2 * x  # clear of 0 and 1
    y = net(x).argmax(1)

    x_adv = parse_attack(spec)(net, x, y, threat, noise_of())

    moved = size(x_adv - x, threat)
    assert float(moved.max()) > 0.98 * threat.radius


# Randomness, batches and costs


@pytest.mark.parametrize("spec", ["pgd(steps=1)", "apgd-ce(steps=1)", "square(queries=3)"])
def test_another_seed_gives_other_images(spec: str, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    results = [
        parse_attack(spec)(net, x, y, Threat.parse("linf:0.3"), noise_of(5, s)) for s in (0, 1)
    ]

    assert not torch.equal(*results)


@pytest.mark.parametrize(
    "spec",
    ["pgd(steps=5,start=clean)", "fab-t(steps=5)", "foolbox.fmn(steps=10)", "foolbox.deepfool"],
)
def test_what_draws_nothing_does_not_depend_on_the_seed(spec: str, small_net: MakeNet) -> None:
    net = small_net()
    x, y = a_batch(net, (1, 8, 8))
    threat, attack = Threat.parse("l2:3"), parse_attack(spec)
    results = [attack(net, x, y, threat, noise_of(5, seed)) for seed in (0, 1)]

    assert torch.equal(*results)


@pytest.mark.sampled(20)
@on_every_attack_under_every_threat
def test_an_image_on_its_own_gets_the_verdict_that_it_has_in_a_batch(
    case: Case, small_net: MakeNet
) -> None:
    net = small_net()
    attack = case.attack(net)
    x, y = a_batch(net, (1, 8, 8))

    alone = attack(net, x[4:], y[4:], case.threat, Noise(0, "contract", (4,)))

    check_allowed(x[4:], alone, case.threat)
    if not traits_of(attack).block:  # whose images draw together
        whole = attack(net, x, y, case.threat, noise_of())
        assert torch.equal(net(alone).argmax(1), net(whole[4:]).argmax(1))


class Steps(nn.Module):
    """Five classes by the rounded mean pixel: the gradient is 0 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        level = (x.flatten(1).mean(1, keepdim=True) * 20).round()
        return -(level - torch.arange(0, 20, 4.0)).abs() + 0 * x.flatten(1).sum(1, keepdim=True)


class Huge(nn.Module):
    """A small net whose logits are a million times as large."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return 1e6 * logits


@pytest.mark.sampled(20)
@pytest.mark.parametrize(
    "kind", ["no gradient", pytest.param("huge logits", marks=pytest.mark.slow)]
)
@on_every_attack_under_every_threat
def test_a_model_with_difficult_gradients_gives_valid_results(
    case: Case, kind: str, small_net: MakeNet
) -> None:
    net = Steps() if kind == "no gradient" else Huge(small_net())
    x, y = a_batch(net, (1, 8, 8))

    x_adv = case.attack(small_net())(net, x, y, case.threat, noise_of())

    check_allowed(x, x_adv, case.threat)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("queries", [1, 7, 50])
def test_square_keeps_its_budget_of_queries(norm: str, queries: int, small_net: MakeNet) -> None:
    net, passes = small_net(), Passes()
    x, y = a_batch(net, (1, 8, 8))
    threat = Threat.of(norm, "0.00001")  # in which nothing is broken, so that all are spent

    parse_attack(f"square(queries={queries})")(CountingModel(net, passes), x, y, threat, noise_of())

    forwards, backwards = passes.take()
    assert backwards == 0
    assert forwards <= len(x) * (queries + 2)  # one when clean, one at the start
    if norm != "linf":  # there a square that changes no pixel is not asked about
        assert forwards == len(x) * (queries + 2)


@pytest.mark.parametrize("spec", ["pgd(steps=7)", "cosine-pgd(steps=7)", "foolbox.fmn(steps=7)"])
def test_surviving_images_cost_what_the_steps_say(spec: str, small_net: MakeNet) -> None:
    net, passes = small_net(), Passes()
    x, y = a_batch(net, (1, 8, 8))

    parse_attack(spec)(CountingModel(net, passes), x, y, Threat.parse("linf:0.00001"), noise_of())

    # Cosine-PGD looks at its last iterate too; a run of Foolbox asks what is right when clean, and
    # about its result.
    more = {"pgd": 0, "cosine-pgd": 1, "foolbox.fmn": 2}[spec.partition("(")[0]]
    assert passes.take() == (len(x) * (7 + more), len(x) * 7)


@pytest.mark.parametrize("spec", ["pgd(steps=50)", "apgd-ce(steps=50)", "square(queries=500)"])
def test_broken_images_cost_little(spec: str, small_net: MakeNet) -> None:
    net, passes = small_net(), Passes()
    x, y = a_batch(net, (1, 8, 8))

    parse_attack(spec)(CountingModel(net, passes), x, y, Threat.parse("linf:1"), noise_of())

    assert passes.take()[0] < len(x) * 25


def test_a_normalisation_and_its_inverse_in_front_change_no_image(small_net: MakeNet) -> None:
    class Behind(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(((x - 0.5) / 0.25) * 0.25 + 0.5)
            return logits

    net, threat = small_net(), Threat.parse("linf:0.03")
    x, y = a_batch(net, (1, 8, 8), 24)
    attack = parse_attack("pgd(steps=5)")

    plain, behind = (attack(m, x, y, threat, noise_of(24)) for m in (net, Behind(net)))

    np.testing.assert_allclose(plain.numpy(), behind.numpy(), atol=1e-6)
