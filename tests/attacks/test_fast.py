"""The searches of the fast suite and the suite: exact answers, costs, and attacked images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.attacks.gradient.apgd import APGDT
from satbench.attacks.gradient.cosine import CosinePGD
from satbench.attacks.gradient.fab import FABT
from satbench.attacks.gradient.malt import MALT, targets_in_order
from satbench.attacks.score.square_from_best import SquareFlagged, SquareFromBest
from satbench.attacks.suites.suite_parts import (
    Chosen,
    ChosenInformed,
    ChosenPrepared,
    Gate,
    Selection,
    weakest,
)
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Length, Threat
from satbench.data import Dataset
from satbench.engine.backward import Backward
from satbench.engine.contract import Hints, History
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.traits import traits_of
from satbench.models import LoadedModel

LINF = Threat.parse("linf:0.1")
LOSSES = ("ce", "margin", "gama", "mifpe")


class Classes(nn.Module):
    """Logits W x + b of a flat image, in float64."""

    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weights, self.bias = weights.double(), bias.double()

    def forward(self, x: Tensor) -> Tensor:
        return x.double().flatten(1) @ self.weights.T + self.bias


def noise_of(n: int) -> Noise:
    return Noise(0, "test", tuple(range(n)))


def linear_case(threat: Threat) -> tuple[Classes, Tensor, Tensor, Tensor]:
    """Return a linear model of two classes, images, labels, and which images are within reach."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(64, generator=generator)
    model = Classes(torch.stack([-w, w]), torch.tensor([0.5, -0.5]) * w.sum())
    ratios = torch.tensor([0.1, 0.5, 0.9, 0.98, 1.02, 1.1, 2.0])
    norm = w.abs().sum() if threat.norm == "linf" else w.norm()
    # Along the gradient from the boundary, with room for the ball inside the box.
    step = (ratios * threat.radius * norm)[:, None] * w / w.square().sum()
    x = (0.5 + step).view(-1, 1, 8, 8)
    return model, x, torch.ones(len(x), dtype=torch.long), ratios < 1


@pytest.mark.parametrize("threat", ["linf:0.05", "l2:0.4"])
@pytest.mark.parametrize("loss", LOSSES)
def test_of_a_linear_model_exactly_the_images_within_reach_are_broken(
    loss: str, threat: str
) -> None:
    model, x, y, reachable = linear_case(Threat.parse(threat))
    attack = parse_attack(f"cosine-pgd(loss={loss},steps=40)")

    x_adv = attack(model, x, y, Threat.parse(threat), noise_of(len(x)))

    assert reachable.tolist() == (model(x_adv).argmax(1) != y).tolist()


@pytest.mark.parametrize("threat", ["linf:0.05", "l2:0.4"])
def test_malt_breaks_exactly_the_images_within_reach(threat: str) -> None:
    model, x, y, reachable = linear_case(Threat.parse(threat))

    x_adv = MALT(1, 40)(model, x, y, Threat.parse(threat), noise_of(len(x)))

    assert reachable.tolist() == (model(x_adv).argmax(1) != y).tolist()


@pytest.mark.parametrize(("norm", "nearest"), [("linf", 1), ("l2", 2)])
def test_malt_orders_targets_by_the_distance_in_the_threats_own_norm(
    norm: str, nearest: int
) -> None:
    # From class 0: to class 1 the gradient is spread (L1 norm 4, L2 norm 2), to class 2 it is one
    # pixel of 3; both logits are 1 below.
    weights = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1], [3, 0, 0, 0]])
    model = Classes(weights, torch.tensor([1.0, 0, 0]))
    x, y = torch.zeros(1, 1, 2, 2), torch.tensor([0])

    order = targets_in_order(model, x, y, Threat.of(norm, "0.1"), 2, Backward())

    assert [[nearest, 3 - nearest]] == order.tolist()


def test_a_robust_image_costs_one_forward_more_than_steps() -> None:
    model = Classes(torch.tensor([[0.0], [1e-3]]), torch.tensor([0.0, 1.0]))
    passes = Passes()
    x, y = torch.full((3, 1, 1, 1), 0.5), torch.ones(3, dtype=torch.long)

    CosinePGD(steps=7)(CountingModel(model, passes), x, y, LINF, noise_of(3))

    assert (3 * 8, 3 * 7) == passes.take()


def test_the_loss_of_three_classes_is_refused_for_two_and_passed_over_in_a_suite() -> None:
    model, x, y, _ = linear_case(LINF)
    attack, noise = CosinePGD("dlr", 3), noise_of(len(x))
    hints = Hints(torch.arange(len(x)).float(), x / 2)

    with pytest.raises(SatbenchError, match=r"the loss dlr needs at least 3 classes, got 2"):
        attack(model, x, y, LINF, noise)
    found = ChosenInformed(attack, Selection(1.0)).follow(model, x, y, LINF, noise, hints)

    assert torch.equal(found.x_adv, hints.points)
    assert torch.equal(found.margins, hints.margins)
    assert [2, 3] == [traits_of(CosinePGD(loss)).least_classes for loss in ("margin", "dlr")]  # type: ignore[arg-type]


def test_malt_costs_a_forward_and_a_backward_a_class_and_then_its_searches() -> None:
    model = Classes(torch.zeros(5, 1).fill_(1e-3).cumsum(0), torch.tensor([0.0, 0, 0, 0, 9]))
    passes = Passes()
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([4])

    MALT(targets=3, steps=6)(CountingModel(model, passes), x, y, LINF, noise_of(1))

    assert (1 + 3 * 7, 4 + 3 * 6) == passes.take()


def test_scaled_logits_hide_nothing_from_mifpe_and_the_margin(shipped: LoadedModel) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = 1e5 * shipped.module(x)
            return logits

    x, y = a_batch(shipped)
    broken = {
        loss: int(
            (Scaled()(attack_of(loss)(Scaled(), x, y, LINF, noise_of(len(x)))).argmax(1) != y).sum()
        )
        for loss in LOSSES
    }

    assert broken["mifpe"] > broken["ce"]
    assert broken["margin"] > broken["ce"]


def attack_of(loss: str) -> CosinePGD:
    return CosinePGD(loss, 10)  # type: ignore[arg-type]


def a_batch(shipped: LoadedModel, n: int = 30) -> tuple[Tensor, Tensor]:
    """Return images that the shipped model gets right, with its answers."""
    from satbench.data import load_dataset

    x = torch.from_numpy(load_dataset("fashion-mnist", "test", n).pixels(np.arange(n)))
    return x, shipped.module(x).argmax(1)


def test_the_softplus_backward_breaks_what_the_true_gradient_leaves(shipped: LoadedModel) -> None:
    shipped.module.requires_grad_(False)
    x, y = a_batch(shipped, 100)
    true, soft = (
        shipped.module(
            CosinePGD("gama", 10, start="corner", backward=backward)(
                shipped.module, x, y, LINF, noise_of(len(x))
            )
        ).argmax(1)
        != y
        for backward in (Backward(), Backward(2.0))
    )

    assert int((soft & ~true).sum()) > int((true & ~soft).sum())


def test_a_search_from_the_best_point_never_tells_a_worse_margin(shipped: LoadedModel) -> None:
    x, y = a_batch(shipped, 20)
    shipped.module.requires_grad_(False)
    start = (x + 0.1 * torch.sign(x - 0.3)).clamp(0, 1)
    logits = shipped.module(start)
    before = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -1e9).amax(1)

    for attack in (CosinePGD("margin", 5, start="best"), SquareFromBest(20)):
        found = attack.follow(shipped.module, x, y, LINF, noise_of(20), Hints(before, start))
        assert bool((found.margins <= before + 1e-6).all())


def history(margins: list[float], survivors: list[bool], broken: dict[str, int]) -> History:
    share = np.linspace(0, 1, len(margins), endpoint=False)
    standing = np.array(survivors)
    told = np.array(margins, np.float32)
    return History(standing, standing, told, broken, broken, share, lambda part: told)


def test_the_weakest_are_the_survivors_of_least_margin() -> None:
    told = history([0.3, 0.1, 0.2, 0.0, 0.5], [True, True, True, False, True], {})

    assert [False, True, True, False, False] == weakest(told, 0.5).tolist()


def test_square_takes_on_the_weakest_and_a_sample() -> None:
    told = history([0.3, 0.1, 0.2, 0.4, 0.5], [True] * 5, {})

    chosen = Chosen(SquareFromBest(1), Selection(weakest=0.2, sample=0.21)).selects(told)

    assert [True, True, False, False, False] == chosen.tolist()


@pytest.mark.parametrize(
    ("broken", "goes_on"),
    [({"gama": 3, "square": 0}, False), ({"square": 1}, True), ({"transfer:a": 1}, True)],
)
def test_square_goes_on_to_more_only_where_the_safety_net_caught_something(
    broken: dict[str, int], goes_on: bool
) -> None:
    square = Chosen(SquareFromBest(1), Selection(0.5, after=("transfer", "square")))

    assert goes_on == bool(square.selects(history([0.1, 0.2], [True, True], broken)).any())


class Rounded(nn.Module):
    """A linear model of two classes that rounds pixels above 0.5, where its gradient is 0."""

    def forward(self, x: Tensor) -> Tensor:
        rounded = torch.where(x > 0.5, (4 * x).round() / 4, x).flatten(1).sum(1)
        return torch.stack([2.0 - rounded, rounded - 2.0], 1)


def test_square_takes_on_every_image_whose_gradient_is_masked_and_no_other() -> None:
    passes, threat = Passes(), Threat.parse("linf:0.2")
    # Pixels of 0.7 round to 0.75, within reach of the 0.625 from which they round to 0.5.
    x = torch.stack([torch.full((1, 2, 2), pixel) for pixel in (0.7, 0.45, 0.7)])
    model = CountingModel(Rounded(), passes)
    y = model(x).argmax(1)
    hints = Hints(torch.full((3,), torch.inf), x)
    passes.take()

    found = SquareFlagged(queries=400).follow(model, x, y, threat, noise_of(3), hints)

    forwards, backwards = passes.take()
    assert [True, False, True] == (found.x_adv != x).flatten(1).any(1).tolist()
    assert (found.margins[[0, 2]] <= 0).all()
    assert 3 * 2 == backwards
    assert 3 * 3 < forwards < 3 * 3 + 2 * 401


def test_what_square_finds_for_a_masked_image_does_not_depend_on_its_batch() -> None:
    threat = Threat.parse("linf:0.2")
    x = torch.stack([torch.full((1, 2, 2), pixel) for pixel in (0.45, 0.7, 0.66)])
    y = Rounded()(x).argmax(1)
    attack = SquareFlagged(queries=3)

    whole = attack(Rounded(), x, y, threat, noise_of(3))
    alone = attack(Rounded(), x[2:], y[2:], threat, Noise(0, "test", (2,)))

    assert torch.equal(whole[2:], alone)


def test_version_2_is_made_of_the_parts_that_its_records_were_made_with() -> None:
    parts = dict(parse_attack("fast(version=2,source=none)").parts())
    half = Length(Fraction(1, 2), relative=True)
    gama = CosinePGD("gama", 20, start="corner", backward=Backward(2.0))

    assert {
        "gama-softplus": gama,
        "mifpe-softplus": CosinePGD("mifpe", 20, backward=Backward(5.0)),
        "margin": CosinePGD("margin", 20, half, "best"),
        "mifpe-again": CosinePGD("mifpe", 20, half, "best", backward=Backward(5.0)),
        "malt-softplus": MALT(2, 20, backward=Backward(10.0)),
        "margin-again": CosinePGD("margin", 20, half, "best"),
        "gama-again": replace(gama, backward=Backward(5.0)),
        "apgd-t": Chosen(APGDT(targets=3), Selection(0.05)),
        "square-flagged": SquareFlagged(queries=5000),
        "square": ChosenInformed(SquareFromBest(400), Selection(0.1, 0.05)),
        "square-more": ChosenInformed(
            SquareFromBest(400), Selection(0.4, after=("transfer", "square"))
        ),
        "margin-last": CosinePGD("margin", 20, half, "best"),
    } == parts
    assert ("linf", "l2") == parse_attack("fast").norms


def test_version_3_is_made_of_the_parts_that_its_records_were_made_with() -> None:
    parts = dict(parse_attack("fast(source=none)").parts())
    half = Length(Fraction(1, 2), relative=True)
    gate = Gate("malt", escalate=0.15, late=0.005, reach=0.25)
    margin = CosinePGD("margin", 20, half, "best")
    quarter, tenth = Selection(0.25, gate=gate), Selection(0.1, 0.05, gate=gate)
    gated: dict[str, Chosen] = {
        "malt": ChosenInformed(MALT(2, 20), replace(quarter, flag=True)),
        "dlr": ChosenInformed(CosinePGD("dlr", 20), quarter),
        "malt-softplus": ChosenInformed(MALT(2, 20, backward=Backward(10.0)), quarter),
        "margin-again": ChosenInformed(margin, quarter),
        "square": ChosenInformed(SquareFromBest(400), tenth),
        "margin-last": ChosenInformed(margin, tenth),
    }
    outside = replace(gate, outside=True)
    last = ("margin-again/others", "square/others", "margin-last/others")
    doubt = ("fab-doubt", "apgd-t-doubt")

    assert {
        "gama-softplus": CosinePGD("gama", 20, start="corner", backward=Backward(2.0)),
        "mifpe-softplus": CosinePGD("mifpe", 20, backward=Backward(5.0)),
        "margin": margin,
        **gated,
        "apgd-t": Chosen(APGDT(targets=3), Selection(0.05)),
        "apgd-t-more": Chosen(
            APGDT(targets=9), Selection(0.4, after=("apgd-t",), above=0.1, flag=True)
        ),
        "square-flagged": SquareFlagged(queries=5000),
        **{
            f"{name}/others": replace(one, choice=replace(one.choice, gate=outside))
            for name, one in gated.items()
        },
        "square-more": ChosenInformed(
            SquareFromBest(400), Selection(0.4, after=("transfer", "square"), above=0.03)
        ),
        "square-deep": ChosenInformed(
            SquareFromBest(5000), Selection(0.25, after=("square",), above=0.06, flag=True)
        ),
        "margin-more": ChosenInformed(margin, Selection(after=("square-more", "square-deep"))),
        "fab-doubt": Chosen(FABT(targets=9), Selection(after=last, above=0.015)),
        "apgd-t-doubt": Chosen(APGDT(targets=9), Selection(after=last, above=0.015)),
        "square-doubt": ChosenInformed(SquareFromBest(2000), Selection(0.4, after=doubt)),
        "margin-doubt": ChosenInformed(margin, Selection(after=(*doubt, "square-doubt"))),
    } == parts


def test_transfer_in_the_suite_is_gated_too() -> None:
    parts = dict(parse_attack("fast(source=fmnist-pgd2-tiny-relu-s100)").parts())
    inside, outside = (
        parts[f"transfer/fmnist-pgd2-tiny-relu-s100{end}"] for end in ("", "/others")
    )

    assert isinstance(inside, ChosenPrepared)
    assert isinstance(outside, ChosenPrepared)
    assert (0.25, 0.05) == (inside.choice.weakest, inside.choice.sample)
    assert outside.choice.gate == replace(inside.choice.gate or Gate("", 0), outside=True)


@pytest.mark.slow
def test_the_fast_suite_on_a_shipped_model_leaves_no_more_than_pgd(
    shipped: LoadedModel, fashion: Dataset, evaluate_few: Callable[..., int]
) -> None:
    assert evaluate_few("fast(source=none)") <= evaluate_few("pgd-20")


@pytest.fixture
def evaluate_few(shipped: LoadedModel, tmp_path: object) -> Callable[..., int]:
    """A function from an attack to how many of 8 images it leaves."""
    import satbench

    x, y = a_batch(shipped, 8)

    def left(attack: str) -> int:
        return satbench.evaluate(
            shipped.module, x, y, attacks=[attack], norm="linf", eps="0.1", out=str(tmp_path)
        ).surviving()

    return left
