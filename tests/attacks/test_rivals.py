"""The rivals, PMA and A3, against exact answers and against plain loops over single images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.attacks.gradient import a3
from satbench.attacks.gradient.a3 import A3, Round
from satbench.attacks.gradient.pma import PMA
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.contract import Hints
from satbench.engine.passes import CountingModel, Passes

EPS = 0.012
LINF = Threat.parse(f"linf:{EPS}")
SHAPE = (1, 8, 8)
Nets = Callable[..., nn.Module]


def noise_of(n: int) -> Noise:
    return Noise(0, "rivals", tuple(range(n)))


@pytest.fixture(scope="module")
def net(small_net: Nets) -> nn.Module:
    """Five classes in float64, so that no sign of a gradient hangs on rounding."""
    return small_net(seed=3).double()


def images(net: nn.Module, n: int) -> tuple[Tensor, Tensor]:
    """Return images and the answers of the net; the label of the first is wrong."""
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    return x, y


class TwoClasses(nn.Module):
    """Logits (-s, s) with s = w·(x - 1/2): the Linf distance to the boundary is |s| / ‖w‖₁."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.randn(64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) - 0.5) @ self.w
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("spec", ["pma(steps=40)", "a3(rounds=4)"])
def test_of_a_linear_model_exactly_the_images_within_reach_are_broken(spec: str) -> None:
    model, ratios = TwoClasses(), torch.tensor([0.1, 0.5, 0.9, 0.98, 1.02, 1.1, 2.0]).double()
    step = ratios * EPS * model.w.abs().sum() / model.w.square().sum()
    x = (0.5 + step[:, None] * model.w).view(-1, *SHAPE)
    y = torch.ones(len(x), dtype=torch.int64)

    x_adv = parse_attack(spec)(model, x, y, LINF, noise_of(len(x)))

    assert (ratios < 1).tolist() == (model(x_adv).argmax(1) != y).tolist()


# Plain loops over single images


class Walk:
    """One image on its way: its iterate, its best point, and whether it was broken."""

    def __init__(self, net: nn.Module, x: Tensor, y: int, eps: float) -> None:
        self.net, self.x, self.y, self.eps = net, x, y, eps
        self.best, self.margin = x, math.inf
        self.seen: list[Tensor] = []

    def climb(
        self, start: Tensor, lengths: list[float], loss: Callable[[Tensor, int], Tensor]
    ) -> None:
        at = start
        for number in range(len(lengths) + 1):
            at = at.detach().requires_grad_()
            logits = self.net(at[None])[0]
            if self.look(at.detach(), logits.detach()) or number == len(lengths):
                return
            (slope,) = torch.autograd.grad(loss(logits, number), at)
            moved = at.detach() + lengths[number] * slope.sign()
            within = torch.minimum(torch.maximum(moved, self.x - self.eps), self.x + self.eps)
            at = within.clamp(0, 1)

    def look(self, at: Tensor, logits: Tensor) -> bool:
        """Remember a point, and say whether the image is misclassified there."""
        self.seen.append(at)
        others = [float(value) for k, value in enumerate(logits) if k != self.y]
        margin = float(np.float32(float(logits[self.y]) - max(others)))
        wrong = int(logits.argmax()) != self.y
        if wrong:
            margin = min(margin, 0.0)
        if margin < self.margin:
            self.margin, self.best = margin, at
        return wrong


def start_of(x: Tensor, index: int, restart: int, eps: float) -> Tensor:
    drawn = Noise(0, "rivals", (index,)).uniform(SHAPE, restart)[0]
    return (x + eps * torch.from_numpy(drawn).double()).clamp(0, 1)


def plain_pma(net: nn.Module, x: Tensor, y: int, index: int, steps: int, eps: float) -> Walk:
    walk, half = Walk(net, x, y, eps), steps // 2
    lengths = [
        2 * eps * 0.5 * (1 + math.cos(((k if k <= half else k - half) - 1) / half * math.pi))
        for k in range(steps)
    ]
    for restart in (0, 1):

        def loss(logits: Tensor, k: int, restart: int = restart) -> Tensor:
            p = logits.exp() / logits.exp().sum()
            best_other = torch.stack([p[c] for c in range(len(p)) if c != y]).max()
            if k == 0:
                return p[y]
            if k < half:
                return -p[y] if restart == 0 else best_other
            return best_other - p[y]

        if walk.margin > 0:
            walk.climb(start_of(x, index, restart, eps), lengths, loss)
    return walk


def test_pma_is_a_plain_loop_over_each_image(net: nn.Module) -> None:
    x, y = images(net, 10)

    x_adv = PMA(steps=12)(net, x, y, LINF, noise_of(10))

    for index, (one, label) in enumerate(zip(x, y.tolist(), strict=True)):
        expected = plain_pma(net, one, label, index, 12, EPS).best
        torch.testing.assert_close(x_adv[index], expected, atol=1e-9, rtol=0)
    assert 2 < int((net(x_adv).argmax(1) != y).sum()) < 10


FEW_ROUNDS = (
    *(Round(1, 1, along=0), Round(1, 4), Round(1, 3)),
    *(Round(0.5, 4, 2), Round(0.2, 11, 2)),
)
EASY_ROUNDS = (*FEW_ROUNDS[:3], Round(0.8, 3, 3, 4), Round(0.4, 11, 1, 5))


@dataclass
class PlainA3:
    """A3 as a loop over single images: the walks, and how many searches each image had."""

    net: nn.Module
    x: Tensor
    y: list[int]
    few: float
    easy: float
    eps: float = EPS
    classes: int = 5

    def __post_init__(self) -> None:
        self.walks, self.order = [], []
        for index, (one, label) in enumerate(zip(self.x, self.y, strict=True)):
            signs = torch.from_numpy(Noise(0, "rivals", (index,)).uniform(SHAPE, 0)[0]).sign()
            corner = (one + self.eps * signs).clamp(0, 1)
            walk = Walk(self.net, one, label, self.eps)
            walk.look(corner, self.net(corner[None])[0])
            self.walks.append(walk)
            self.order.append(self.net(corner[None])[0].argsort(descending=True).tolist())
        self.ups, self.calls, self.along, self.first = [0.0, 0.0], 0, 0, 0
        self.searches = [0] * len(self.x)
        self.was_easy = False

    def standing(self) -> list[int]:
        return [index for index, walk in enumerate(self.walks) if walk.margin > 0]

    def run(self, rounds: int = 5) -> PlainA3:
        for number in range(rounds):
            easy = number > 2 and self.along >= self.easy * self.first
            self.was_easy |= easy
            one = (EASY_ROUNDS if easy else FEW_ROUNDS)[number]
            share, restarts = one.share, one.restarts
            if len(self.standing()) < self.few * len(self.x):
                share, restarts = 1.0, restarts + 2
            for _ in range(restarts):
                standing = self.standing()
                count = max(int(share * len(standing)), 1)
                chosen = sorted(standing, key=lambda index: self.walks[index].margin)[:count]
                for index in sorted(chosen):
                    self.search(index, number, easy, one)
                self.calls += 1
            if number == 0:
                self.first = len(self.standing())
        return self

    def direction(self, index: int, number: int, easy: bool) -> list[float]:
        drawn = Noise(0, "rivals", (index,)).uniform((6,), 2 * self.calls + 1)[0].tolist()
        w, u = drawn[:5], (drawn[5] + 1) / 2
        if number == 1:
            return w
        wrong = [c for c in self.order[index] if c != self.y[index]]
        of_label = 1 if easy or self.ups[0] > 0 else -1
        of_target = -1 if not easy and self.ups[1] < 0 else 1
        w[self.y[index]] = 5 / 10 * of_label * (-0.1 + 0.6 * u)
        w[wrong[(self.calls - 1) % 4]] = 5 / 10 * of_target * 0.8
        if easy and number >= 4:
            w[self.y[index]] = 0.0
            w[wrong[(self.calls - 1) % 4]] = 5 / 10 * 0.8
        elif not easy and number >= 3:
            w[self.y[index]] = 5 / 10 * (-0.8 + 0.9 * u)
            w[wrong[(self.calls - 1) % 2]] = 5 / 10 * 0.8
        return w

    def search(self, index: int, number: int, easy: bool, one: Round) -> None:
        self.searches[index] += 1
        eps, y, walk = self.eps, self.y[index], self.walks[index]
        w = self.direction(index, number, easy)
        least = eps * (0.1 if one.steps <= 10 else 0.001)
        lengths = [eps] * one.along + [
            least + (eps - least) * (1 + math.cos(math.pi * s / (one.steps + 1))) / 2
            for s in range(one.steps)
        ]

        def loss(logits: Tensor, k: int) -> Tensor:
            if k < one.along:
                return sum(w[c] * logits[c] for c in range(5))
            return torch.stack([logits[c] for c in range(5) if c != y]).max() - logits[y]

        seen = len(walk.seen)
        walk.climb(start_of(self.x[index], index, 2 * self.calls + 2, eps), lengths, loss)
        if walk.margin > 0:
            return
        self.along += 0 < one.along >= len(walk.seen) - seen - 1
        if number == 1:
            answer = int(self.net(walk.best[None]).argmax())
            self.ups[0] += w[y]
            self.ups[1] += w[answer]


def make_small(patch: pytest.MonkeyPatch, few: float, easy: float) -> None:
    """Give A3 the rounds and counts of the plain loop."""
    small = {
        "ROUNDS": FEW_ROUNDS,
        "EASY_ROUNDS": EASY_ROUNDS,
        "_FEWEST": 1,
        "_NEARLY_ALL": few,
        "_AT_ONCE": 3,
        "_MORE": 2,
        "_EASY": easy,
        "_FINAL": 3,
        "_EASY_FINAL": 4,
        "_TARGETS": ((10, 9, 2),),
    }
    for name, value in small.items():
        patch.setattr(a3, name, value)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("few", "easy", "rounds"),
    # With `few` a fifth round finds other points of the same margin, up to rounding.
    [(0.1, 2.0, 5), (0.9, 2.0, 4), (0.1, 0.0, 5)],
)
def test_a3_is_plain_loops_over_each_image(
    net: nn.Module, few: float, easy: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, few, easy)
    x, y = images(net, 10)
    plain = PlainA3(net, x, y.tolist(), few, easy).run(rounds)
    expected = torch.stack([walk.best for walk in plain.walks])

    x_adv = A3(rounds=rounds)(net, x, y, LINF, noise_of(10))

    torch.testing.assert_close(x_adv, expected, atol=1e-9, rtol=0)
    assert 2 < int((net(x_adv).argmax(1) != y).sum()) < 10
    assert len(set(plain.searches)) > 3
    assert plain.was_easy == (easy == 0)


class Recorder(nn.Module):
    """Records the images on which a net is called."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach())
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize("attack", ["pma", "a3"])
def test_of_images_that_hold_out_every_iterate_is_that_of_the_plain_loop(
    attack: str, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, 0.1, 2.0)
    monkeypatch.setattr(a3, "_AT_ONCE", 250)
    eps, asked = 0.0005, Recorder(net)
    x, y = images(net, 6)
    x, y, threat = x[1:], y[1:], Threat.parse(f"linf:{eps}")
    if attack == "pma":
        walks = [plain_pma(net, x[k], int(y[k]), k, 12, eps) for k in range(5)]
        PMA(steps=12)(asked, x, y, threat, noise_of(5))
    else:
        walks = PlainA3(net, x, y.tolist(), 0.1, 2.0, eps).run(3).walks
        A3(rounds=3)(asked, x, y, threat, noise_of(5))

    assert {len(walk.seen) for walk in walks} == {len(asked.asked)}
    for k, walk in enumerate(walks):
        together = torch.stack([points[k] for points in asked.asked])
        torch.testing.assert_close(together, torch.stack(walk.seen), atol=1e-9, rtol=0)


class Pixels(nn.Module):
    """As many classes as pixels, each by its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_a3_keeps_to_the_signs_that_went_with_success() -> None:
    x = torch.tensor([[[[0.9, 0.5, 0.1]]], [[[0.5, 0.9, 0.1]]], [[[0.1, 0.5, 0.9]]]])
    run = a3._Rounds(Pixels(), x, torch.tensor([0, 1, 2]), LINF, noise_of(3))
    run.best.x_adv[:2] = torch.tensor([[[[0.4, 0.5, 0.1]]], [[[0.5, 0.4, 0.1]]]])
    run.best.margins[:2] = -0.1  # the first image is taken for class 1 now, the second for 0
    directions = torch.tensor([[0.9, -0.7, 0.3], [0.2, -0.4, 0.5], [-1, 1, -1]])
    assert run.signs == (-1.0, 1.0)  # of nothing known

    run._learn(torch.arange(3), directions)

    # The labels' shares of the first two are 0.9 and -0.4, those of the answers -0.7 and 0.2.
    assert run.ups == pytest.approx((0.5, -0.5))
    assert run.signs == (1.0, -1.0)


class Robust(nn.Module):
    """Three classes by a thousandth of the only pixel."""

    def forward(self, x: Tensor) -> Tensor:
        score = 1e-3 * x.flatten(1)
        return torch.cat([score, -score, 1 - score], 1)


@pytest.mark.parametrize(
    ("spec", "forwards", "backwards"),
    [
        ("pma(steps=6)", 2 * 7, 2 * 6),
        # Once clean, and once more a search than it has steps.
        ("a3(rounds=3)", 1 + 9 + 23 + 23, 8 + 22 + 22),
        # 3 of 3 images hold out, so that a fourth round has no restarts more.
        ("a3(rounds=4)", 1 + 9 + 23 + 23 + 40, 8 + 22 + 22 + 39),
    ],
)
def test_a_robust_image_costs_exactly(spec: str, forwards: int, backwards: int) -> None:
    passes, x = Passes(), torch.full((3, 1, 1, 1), 0.5)
    y = torch.full((3,), 2)

    parse_attack(spec)(CountingModel(Robust(), passes), x, y, LINF, noise_of(3))

    assert (3 * forwards, 3 * backwards) == passes.take()


@pytest.mark.parametrize("spec", ["pma(steps=6)", "a3(rounds=3)"])
def test_the_margins_told_are_those_of_the_points(spec: str, net: nn.Module) -> None:
    x, y = images(net, 6)
    x, y = x[1:], y[1:]

    found = parse_attack(spec).follow(net, x, y, LINF, noise_of(5), Hints.none(x))  # type: ignore[attr-defined]

    logits = net(found.x_adv)
    margins = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -1e9).amax(1)
    torch.testing.assert_close(found.margins, margins.float())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pma(steps=3)", "pma: expected steps of 4 or more, two for each half, got 3"),
        ("pma(restarts=0)", "pma: expected restarts of 1 or more, got 0"),
        ("a3(rounds=14)", "a3: expected at most 13 rounds, got 14"),
        ("malt-apgd(targets=0)", "malt-apgd: expected targets of 1 or more, got 0"),
    ],
)
def test_wrong_values_are_refused(spec: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        parse_attack(spec)


def test_pma_plus_is_pma_and_then_the_targeted_auto_pgd_of_autoattack() -> None:
    parts = parse_attack("pma-plus").parts()

    assert parts == (("pma", PMA(100, 2)), ("apgd-t", parse_attack("apgd-t")))
