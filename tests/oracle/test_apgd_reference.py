"""Our Auto-PGD against the package that defines it: the same verdicts, image by image."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from satbench.attacks.gradient import apgd as ours
from satbench.attacks.gradient.apgd import _random_start
from satbench.attacks.gradient.apgd_run import Problem, Search
from satbench.attacks.gradient.losses import cross_entropy
from satbench.attacks.packages import pyautoattack_attacks as reference
from satbench.core.noise import Noise
from satbench.core.threat import Norm, Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.contract import Attack
from satbench.engine.judge import broken, predict
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.searched import Searched
from satbench.models import load_model, request_model

pytestmark = pytest.mark.sampled(2)

ROBUST, WEAK = "fmnist-sat-tiny-relu-s0", "fmnist-standard-tiny-relu-s0"
# In each of them each attack breaks some images of the model and leaves some.
THREATS = {
    ROBUST: ("linf:0.1", "l2:1.5", "l1:5"),
    WEAK: ("linf:0.01", "l2:0.15", "l1:1.5"),
}
CASES = [(model, threat) for model, threats in THREATS.items() for threat in threats]
SHORT: dict[str, tuple[Attack, Attack]] = {
    "apgd-ce": (
        ours.APGDCE(steps=10, restarts=2),
        reference.ReferenceAPGDCE(steps=10, restarts=2),
    ),
    "apgd-dlr": (
        ours.APGDDLR(steps=6, restarts=2),
        reference.ReferenceAPGDDLR(steps=6, restarts=2),
    ),
    "apgd-t": (ours.APGDT(steps=6, targets=2), reference.ReferenceAPGDT(steps=6, targets=2)),
}
FULL: dict[str, tuple[Attack, Attack]] = {
    "apgd-ce": (ours.APGDCE(), reference.ReferenceAPGDCE()),
    "apgd-dlr": (ours.APGDDLR(), reference.ReferenceAPGDDLR()),
    "apgd-t": (ours.APGDT(), reference.ReferenceAPGDT()),
}


@cache
def judged_and_searcher(name: str) -> tuple[nn.Module, Searched]:
    """Return a shipped model in the engine's two forms: frozen for the judge, and for searches."""
    judged = load_model(request_model(name), classes=10).module.eval().requires_grad_(False)
    return judged, Searched(judged)


def verdicts(
    attacks: tuple[Attack, ...], model: str, images: Dataset, threat: str
) -> list[list[bool]]:
    """Return the verdicts of each attack on the images that are right when clean."""
    judged, searcher = judged_and_searcher(model)
    rows = np.arange(len(images.labels))
    x, y = torch.from_numpy(images.pixels(rows)), torch.from_numpy(images.labels)
    right = predict(judged, x) == y
    x, y, parsed = x[right], y[right], Threat.parse(threat)
    noise = Noise(0, "apgd", tuple(rows[right.numpy()].tolist()), block=1)
    return [
        broken(judged, x, attack(searcher, x, y, parsed, noise).contiguous(), y, parsed).tolist()
        for attack in attacks
    ]


@pytest.mark.parametrize(("model", "threat"), CASES)
@pytest.mark.parametrize("part", SHORT)
def test_each_image_has_the_verdict_of_the_package(
    part: str, model: str, threat: str, fashion: Dataset
) -> None:
    got, expected = verdicts(SHORT[part], model, fashion.first(50), threat)

    assert got == expected
    assert 3 < sum(expected) < len(expected) - 3


@pytest.mark.sampled(1)
@pytest.mark.parametrize("given", [False, True], ids=["own start", "given start"])
@pytest.mark.parametrize("threat", THREATS[ROBUST])
def test_the_best_iterates_of_a_long_run_equal_those_of_the_package(
    threat: str, given: bool, fashion: Dataset
) -> None:
    model, parsed = judged_and_searcher(ROBUST)[0], Threat.parse(threat)
    x, y = torch.from_numpy(fashion.pixels(np.arange(16))), torch.from_numpy(fashion.labels[:16])
    names = {"linf": "Linf", "l2": "L2", "l1": "L1"}
    package = APGDAttack(model, n_iter=70, norm=names[parsed.norm], eps=parsed.radius)
    package.init_hyperparam(x)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        start = _random_start(x, parsed.norm, parsed.radius)
        torch.manual_seed(0)
        expected = package.attack_single_run(x, y, x_init=start if given else None)[0]
        aim = Problem(x, y, y, parsed.norm, parsed.radius, last=False)
        search = Search(model, lambda z, y, _: cross_entropy(z, y), 70, 1)

        got = search.run(aim, start, 70, sparse_start=given).best

    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


class Scripted(nn.Module):
    """A model whose logits and gradients depend only on the number of the call.

    The loss of each image mostly rises and sometimes falls far.  So there are windows with many
    rises in which the best loss does not change.
    """

    def __init__(self, calls: int, images: int, pixels: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        shape = (calls, images)
        falls = torch.rand(shape, generator=draw) < torch.linspace(0, 0.5, images)
        steps = torch.where(falls, -4.0, 0.3) * torch.rand(shape, generator=draw)
        self.margins, self.call = steps.cumsum(0), 0
        self.slopes = torch.randn(*shape, pixels, generator=draw)

    def forward(self, x: Tensor) -> Tensor:
        nothing = x - x.detach()  # this term is only for the gradient
        slope = (self.slopes[self.call] * nothing.flatten(1)).sum(1)
        margin = self.margins[self.call] + slope
        self.call += 1
        return torch.stack([-margin, margin], 1)


@pytest.mark.parametrize("sparse", [False, True], ids=["own start", "given start"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("steps", [40, 100])
def test_steps_are_halved_where_the_package_halves_them(
    steps: int, norm: Norm, sparse: bool
) -> None:
    images, pixels, eps = 300, 12, 0.3
    draw = torch.Generator().manual_seed(1)
    x, y = torch.rand(images, 1, 3, 4, generator=draw), torch.zeros(images, dtype=torch.int64)
    names = {"linf": "Linf", "l2": "L2", "l1": "L1"}
    package = APGDAttack(
        Scripted(steps + 1, images, pixels), n_iter=steps, norm=names[norm], eps=eps
    )
    package.init_hyperparam(x)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        start = _random_start(x, norm, eps)
        torch.manual_seed(0)
        expected = package.attack_single_run(x, y, x_init=start if sparse else None)[0]
        aim = Problem(x, y, y, norm, eps, last=False)
        model = Scripted(steps + 1, images, pixels)
        search = Search(model, lambda z, y, _: cross_entropy(z, y), steps, 1)

        got = search.run(aim, start, steps, sparse_start=sparse).best

    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "threat"), CASES)
@pytest.mark.parametrize("part", FULL)
def test_each_of_250_images_has_the_verdict_of_the_full_package(
    part: str, model: str, threat: str
) -> None:
    images = load_dataset("fashion-mnist", "test", 250)

    got, expected = verdicts(FULL[part], model, images, threat)

    assert got == expected
    assert 10 < sum(expected) < len(expected) - 10


def linear(x: Tensor) -> Tensor:
    """Four classes: the first two by the mean pixel, two that never win; images of 100 pixels."""
    score = x.flatten(1).mean(1) - 0.5
    never = torch.full_like(score, -1)
    return torch.stack([-score, score, never, never - 1], 1)


def cost_of(attack: Attack, x: Tensor, y: Tensor, threat: str) -> tuple[int, int, Tensor]:
    """Return forwards, backwards and the adversarial images."""
    passes, noise = Passes(), Noise(0, "apgd", tuple(range(len(x))))
    x_adv = attack(CountingModel(linear, passes), x, y, Threat.parse(threat), noise)
    return passes.forwards, passes.backwards, x_adv


@pytest.mark.parametrize(
    ("attack", "threat", "forwards", "backwards"),
    [
        # Once clean; at the start and after each step; no gradient at the end of a run.
        (ours.APGDCE(steps=100), "linf:0.1", 1 + 101, 100),
        (ours.APGDDLR(steps=10), "l2:0.1", 1 + 11, 10),
        (ours.APGDCE(steps=10, restarts=3), "linf:0.1", 1 + 3 * 11, 3 * 10),
        (ours.APGDT(steps=10), "linf:0.1", 1 + 3 * 11, 3 * 10),  # 3 other classes
        (ours.APGDT(steps=10, targets=2), "l2:0.1", 1 + 2 * 11, 2 * 10),
        # Three radii; five restarts.  A single step leaves none for the last radius.
        (ours.APGDCE(steps=1), "l1:0.1", 1 + 5 * 5, 5 * 2),
        (ours.APGDCE(steps=10), "l1:0.1", 1 + 5 * 13, 5 * 10),
        (ours.APGDCE(steps=10, restarts=2), "l1:0.1", 1 + 2 * 13, 2 * 10),
        (ours.APGDT(steps=10), "l1:0.1", 1 + 3 * 13, 3 * 10),
        # Twenty samples for a gradient, one for the label at the end.
        (ours.APGDCE(steps=10, eot=20), "linf:0.1", 1 + 10 * 20 + 1, 10 * 20),
        (ours.APGDDLR(steps=10, eot=20), "l1:0.1", 1 + 10 * 20 + 1, 10 * 20),
    ],
    ids=str,
)
def test_a_robust_image_costs_the_expected_number_of_passes(
    attack: Attack, threat: str, forwards: int, backwards: int
) -> None:
    x, y = torch.full((3, 1, 10, 10), 0.9), torch.ones(3, dtype=torch.int64)

    assert cost_of(attack, x, y, threat)[:2] == (3 * forwards, 3 * backwards)


def test_an_image_is_dropped_when_it_is_broken() -> None:
    # 0.09 from the boundary: the first step of 2 eps breaks it, the random start does not.
    x, y = torch.full((5, 1, 10, 10), 0.59), torch.ones(5, dtype=torch.int64)
    x[0] = 0.9

    forwards, backwards, x_adv = cost_of(ours.APGDCE(steps=10), x, y, "linf:0.1")

    assert (linear(x_adv).argmax(1) != y).tolist() == [False, True, True, True, True]
    assert forwards == (1 + 11) + 4 * (1 + 2)
    assert backwards == 10 + 4 * 2


def test_a_broken_image_gets_no_further_restart() -> None:
    x, y = torch.full((1, 1, 10, 10), 0.59), torch.ones(1, dtype=torch.int64)

    assert cost_of(ours.APGDT(steps=10), x, y, "linf:0.1")[:2] == (3, 2)


def test_an_image_that_is_wrong_when_clean_costs_one_forward_and_is_unchanged() -> None:
    x, y = torch.full((1, 1, 10, 10), 0.9), torch.zeros(1, dtype=torch.int64)

    forwards, backwards, x_adv = cost_of(ours.APGDCE(), x, y, "linf:0.1")

    assert (forwards, backwards) == (1, 0)
    assert torch.equal(x_adv, x)


def test_an_unbroken_image_is_returned_unchanged() -> None:
    x, y = torch.full((1, 1, 10, 10), 0.9), torch.ones(1, dtype=torch.int64)

    assert torch.equal(cost_of(ours.APGDT(steps=3), x, y, "l2:0.1")[2], x)


def test_an_image_that_is_wrong_only_by_rounding_is_attacked_further() -> None:
    def nearly_even(x: Tensor) -> Tensor:
        # Class 1 is ahead by up to 1e-6 of the spread of the logits.
        score = (x.flatten(1).mean(1) - 0.5).clamp(max=0.01) * 1e-4
        return torch.stack([torch.zeros_like(score), score, score - 1], 1)

    passes, x = Passes(), torch.full((1, 1, 10, 10), 0.49)
    noise = Noise(0, "apgd", (0,))
    attack = ours.APGDCE(steps=10)
    y = torch.zeros(1, dtype=torch.int64)

    x_adv = attack(CountingModel(nearly_even, passes), x, y, Threat.parse("linf:0.1"), noise)

    assert passes.forwards == 1 + 11
    assert nearly_even(x_adv).argmax(1).tolist() == [1]


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:1", "l1:5"])
def test_a_model_without_gradients_is_searched_to_the_end(threat: str) -> None:
    def flat(x: Tensor) -> Tensor:
        return torch.tensor([[3.0, 2, 1, 0]]).repeat(len(x), 1) + 0 * x.flatten(1).sum(1)[:, None]

    x, y = torch.rand(2, 1, 5, 5), torch.zeros(2, dtype=torch.int64)
    for attack in (ours.APGDCE(steps=5), ours.APGDDLR(steps=5), ours.APGDT(steps=5)):
        x_adv = attack(flat, x, y, Threat.parse(threat), Noise(0, "apgd", (0, 1)))
        assert torch.equal(x_adv, x)


def test_gradients_of_a_randomised_model_are_averaged() -> None:
    """The gradient points the right way in 60 of 100 draws; the mean of many rarely errs."""

    class Random(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            right = torch.where(torch.rand(len(x), 100) < 0.6, 1.0, -1.0)
            pixels = x.flatten(1) - 0.5
            score = (pixels.detach() + right * (pixels - pixels.detach())).mean(1)
            return torch.stack([-score, score], 1)

    # One step of 2 eps from any start ends at a corner of the ball.
    x, y = torch.full((20, 1, 10, 10), 0.57), torch.ones(20, dtype=torch.int64)
    noise = Noise(0, "apgd", tuple(range(20)))
    fallen = []
    for eot in (1, 100):
        x_adv = ours.APGDCE(steps=1, eot=eot)(Random(), x, y, Threat.parse("linf:0.1"), noise)
        fallen.append(int((linear(x_adv).argmax(1) != y).sum()))

    assert fallen == [0, 20]
