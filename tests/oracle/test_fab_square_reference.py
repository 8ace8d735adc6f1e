"""Our FAB-T and Square against the package that defines them: the same verdicts, image by image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from satbench.attacks.gradient.fab import FABT
from satbench.attacks.packages import pyautoattack_attacks as reference
from satbench.attacks.score.square import Square
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.ball import size
from satbench.engine.contract import Attack, Model, NoiseSource
from satbench.engine.judge import broken, predict
from satbench.engine.passes import CountingModel, Passes
from satbench.models import load_model, request_model

pytestmark = pytest.mark.sampled(2)

ROBUST, WEAK = "fmnist-sat-tiny-relu-s0", "fmnist-standard-tiny-relu-s0"
# In each of them the attack breaks some images of the model and leaves some.
ON_ROBUST = [(ROBUST, "linf:0.1"), (ROBUST, "l2:1"), (ROBUST, "l1:8")]
FAB_CASES = [*ON_ROBUST, (WEAK, "linf:0.01"), (WEAK, "l2:0.2"), (WEAK, "l1:2")]
SQUARE_CASES = [*ON_ROBUST, (WEAK, "linf:0.05"), (WEAK, "l2:1"), (WEAK, "l1:8")]


@cache
def shipped_model(name: str) -> nn.Module:
    return load_model(request_model(name), classes=10).module.eval().requires_grad_(False)


def images_and_results(
    ours: Attack, theirs: Attack, name: str, images: Dataset, threat: Threat
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the images that are right when clean, their labels, and both attacks' results."""
    model = shipped_model(name)
    x, y = torch.from_numpy(images.pixels(np.arange(len(images)))), torch.from_numpy(images.labels)
    right = predict(model, x) == y
    x, y = x[right], y[right]
    noise = Noise(0, "part", tuple(right.nonzero()[:, 0].tolist()), block=1)
    return x, y, [attack(model, x, y, threat, noise) for attack in (ours, theirs)]


def check_equal_verdicts(
    ours: Attack, theirs: Attack, name: str, images: Dataset, text: str, least: int
) -> None:
    threat = Threat.parse(text)
    x, y, results = images_and_results(ours, theirs, name, images, threat)
    got, expected = (broken(shipped_model(name), x, x_adv, y, threat).tolist() for x_adv in results)
    assert got == expected
    assert least < sum(expected) < len(expected) - least


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("model", "threat"), FAB_CASES[:4])  # the other cases are slow tests
def test_fab_t_gives_each_image_the_verdict_of_the_package(
    model: str, threat: str, fashion: Dataset
) -> None:
    ours, theirs = FABT(steps=6, targets=2), reference.ReferenceFABT(steps=6, targets=2)

    check_equal_verdicts(ours, theirs, model, fashion.first(50), threat, least=3)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("model", "threat"), ON_ROBUST)
def test_images_that_fab_t_breaks_have_a_nearest_point_within_eps(
    model: str, threat: str, fashion: Dataset
) -> None:
    attack, parsed, net = FABT(steps=6, targets=2), Threat.parse(threat), shipped_model(model)
    images = fashion.first(50)
    x, y, (got, _) = images_and_results(attack, attack, model, images, parsed)
    fell = broken(net, x, got, y, parsed)

    points = attack.nearest(net, x, y, parsed.norm, Noise(0, "fab-t", ()))

    sizes = size(points.double() - x.double(), parsed)
    assert 3 < fell.sum() < len(fell) - 3
    assert (sizes[fell] <= size(got.double() - x.double(), parsed)[fell] + 1e-6).all()
    assert torch.equal(predict(net, points) != y, sizes > 0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("model", "threat"), SQUARE_CASES[:4])
def test_square_gives_the_same_images_as_the_package_bit_by_bit(
    model: str, threat: str, fashion: Dataset
) -> None:
    ours, theirs = Square(queries=60), reference.ReferenceSquare(queries=60)

    x, _, (got, expected) = images_and_results(
        ours, theirs, model, fashion.first(50), Threat.parse(threat)
    )

    assert torch.equal(got, expected)
    assert 3 < (got != x).flatten(1).any(1).sum() < len(x) - 3


@dataclass(frozen=True)
class RescaledReference(reference.ReferenceSquare):
    """The package's Square, with its option to fit the schedule to the queries."""

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        attack = reference._package(model, x, threat).square
        attack.n_queries, attack.rescale_schedule = self.queries, True
        return reference._perturb(attack, x, y, noise)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("model", "threat"), SQUARE_CASES[:4])
def test_rescaled_square_gives_the_same_images_as_the_rescaled_package_bit_by_bit(
    model: str, threat: str, fashion: Dataset
) -> None:
    ours, theirs = Square(queries=100, schedule="rescaled"), RescaledReference(queries=100)

    x, _, (got, expected) = images_and_results(
        ours, theirs, model, fashion.first(50), Threat.parse(threat)
    )

    assert torch.equal(got, expected)
    assert (got != x).any()


# After these queries of 10,000 the share of the pixels that a square covers is halved
# (Andriushchenko et al., 2020, section 5.1).
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 224, 224)], ids=str)
@pytest.mark.parametrize(("norm", "least"), [("linf", 1), ("l2", 3), ("l1", 3)])
@pytest.mark.parametrize(("schedule", "queries"), [("fixed", 10_000), ("rescaled", 1_000)])
def test_squares_shrink_at_the_queries_of_the_paper_and_the_package(
    schedule: Literal["fixed", "rescaled"],
    queries: int,
    norm: str,
    least: int,
    shape: tuple[int, int, int],
) -> None:
    package = SquareAttack(lambda x: x, n_queries=queries, resc_schedule=schedule == "rescaled")
    package.p_init = 0.8

    def side(share: float) -> int:
        side = max(round(math.sqrt(share * shape[1] * shape[2])), least)
        return min(side + (least == 3 and side % 2 == 0), *shape[1:])

    by_package = [side(package.p_selection(query)) for query in range(queries)]
    halvings = [sum(10_000 * query / queries > k for k in HALVED_AFTER) for query in range(queries)]
    by_hand = [side(0.8 / 2**times) for times in halvings]

    got = Square(queries, schedule=schedule)._sides(torch.Size(shape), Threat.of(norm, "0.1"))

    assert got == by_package
    assert got == by_hand


@pytest.mark.slow
@pytest.mark.parametrize(("model", "threat"), FAB_CASES)
def test_full_fab_t_gives_each_of_250_images_the_verdict_of_the_package(
    model: str, threat: str
) -> None:
    images = load_dataset("fashion-mnist", "test", 250)

    check_equal_verdicts(FABT(), reference.ReferenceFABT(), model, images, threat, least=10)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "threat"), SQUARE_CASES)
def test_full_square_gives_each_of_250_images_the_verdict_of_the_package(
    model: str, threat: str
) -> None:
    images = load_dataset("fashion-mnist", "test", 250)

    check_equal_verdicts(Square(), reference.ReferenceSquare(), model, images, threat, least=10)


class Score(nn.Module):
    """Logits -s and s, with s the mean pixel less 1/2, and others that never win, plus `offset`."""

    def __init__(self, classes: int = 2, offset: float = 0.0) -> None:
        super().__init__()
        self.classes, self.offset = classes, offset

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1) - 0.5
        never = [torch.full_like(score, -1 - k / 10) for k in range(self.classes - 2)]
        return torch.stack([-score, score, *never], 1) + self.offset


def cost_of(attack: Attack, model: nn.Module, x: Tensor, threat: str) -> tuple[int, int, Tensor]:
    """Return forwards, backwards and the adversarial images, for images of class 1."""
    passes, noise = Passes(), Noise(0, "part", tuple(range(len(x))))
    y = torch.ones(len(x), dtype=torch.int64)
    x_adv = attack(CountingModel(model, passes), x, y, Threat.parse(threat), noise)
    return passes.forwards, passes.backwards, x_adv


def grey(*means: float, side: int = 8) -> Tensor:
    return torch.tensor(means).view(-1, 1, 1, 1).expand(-1, 1, side, side).clone()


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.1", "l1:0.1"])
@pytest.mark.parametrize(("classes", "targets", "used"), [(4, 9, 3), (12, 9, 9), (4, 2, 2)])
def test_fab_t_costs_the_expected_number_of_passes_on_a_robust_image(
    threat: str, classes: int, targets: int, used: int
) -> None:
    attack = FABT(steps=10, targets=targets)

    forwards, backwards, _ = cost_of(attack, Score(classes), grey(0.9, 0.8), threat)

    assert (forwards, backwards) == (2 * (1 + used * 19), 2 * used * 10)


def test_fab_t_spends_no_pass_on_an_image_that_is_already_broken() -> None:
    # The first step toward the first target breaks the second image.  The clean forward is then
    # repeated once for the image that survives.
    forwards, backwards, x_adv = cost_of(FABT(steps=10), Score(4), grey(0.9, 0.55), "linf:0.1")

    assert (forwards, backwards) == (1 + 3 * 19 + 1 + 2, 3 * 10 + 1)
    torch.testing.assert_close(x_adv[1], torch.full((1, 8, 8), 0.55 - 1.05 * 0.05))
    assert torch.equal(x_adv[0], grey(0.9)[0])


def test_fab_t_continues_after_a_success_that_rounding_could_undo() -> None:
    # With logits of 1,000 a lead of 0.005 does not count, but the nearest point does, as in the
    # package.
    model, image = Score(2, offset=1000), grey(0.55)

    forwards, _, x_adv = cost_of(FABT(steps=30), model, image, "linf:0.1")

    assert forwards == 1 + 59
    assert 0.05 <= (image - x_adv).max() < 0.0505


def test_fab_t_does_not_change_an_image_that_is_wrong_when_clean() -> None:
    forwards, backwards, x_adv = cost_of(FABT(steps=5), Score(), grey(0.2), "linf:0.4")

    assert (forwards, backwards) == (1, 0)
    assert torch.equal(x_adv, grey(0.2))


@pytest.mark.parametrize("threat", ["l2:0.1", "l1:0.1"])
def test_square_costs_its_queries_and_two_more_forwards(threat: str) -> None:
    attack = Square(queries=30)

    assert cost_of(attack, Score(), grey(0.9, 0.8), threat)[:2] == (2 * (30 + 2), 0)


def test_square_makes_no_query_if_a_square_changes_no_pixel() -> None:
    # An image of one pixel is up or down by eps: a square of the same sign changes nothing, and
    # down is the best.
    noise, queries = Noise(0, "part", (0,)), 200
    draw = torch.Generator().manual_seed(noise.block_seed())
    is_up = bool(torch.rand(1, generator=draw) > 0.5)
    asked = 0
    for _ in range(queries):
        goes_up = bool(torch.rand(3, generator=draw)[2] > 0.5)
        asked += goes_up != is_up
        is_up = is_up and goes_up

    assert cost_of(Square(queries), Score(), grey(0.9, side=1), "linf:0.1")[0] == 2 + asked
    assert 50 < asked < 150


def test_square_stops_at_an_image_after_its_first_success() -> None:
    # Stripes move the mean of a 1-pixel image by eps either way, so one query more is enough.
    forwards, _, x_adv = cost_of(
        Square(queries=50), Score(), grey(*[0.55] * 20, side=1), "linf:0.1"
    )

    assert (x_adv < 0.5).all()
    assert forwards < 20 * 3 + 20 * 8


def test_square_returns_unbroken_images_unchanged() -> None:
    image = grey(0.9, 0.2)

    assert torch.equal(cost_of(Square(queries=20), Score(), image, "l2:0.5")[2], image)


@pytest.mark.parametrize(
    ("attack", "fields"),
    [(FABT, {"steps": 0}), (FABT, {"targets": 0}), (FABT, {"block": 0}), (Square, {"queries": 0})],
)
def test_a_count_below_1_is_refused_and_named(
    attack: type[FABT | Square], fields: dict[str, int]
) -> None:
    with pytest.raises(SatbenchError, match=f"expected {next(iter(fields))} of 1 or more, got 0"):
        attack(**fields)


def test_fab_t_refuses_a_model_of_one_class() -> None:
    with pytest.raises(SatbenchError, match="at least 2 classes, got 1"):
        cost_of(FABT(), nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), grey(0.9), "linf:0.1")
