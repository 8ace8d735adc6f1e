"""The search with own squares: its start is given, and images do not affect each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from satbench.attacks.score.square import Squares, square_search
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.ball import random_point
from satbench.engine.contract import Model
from satbench.engine.judge import check_allowed
from satbench.engine.passes import CountingModel, Passes

THREATS = [Threat.parse(text) for text in ("linf:0.1", "l2:1", "l1:5")]
in_every_ball = pytest.mark.parametrize("threat", THREATS, ids=str)
MakeNet = Callable[..., nn.Module]
N = 7


def search(
    model: Model, threat: Threat, rows: list[int], squares: Squares, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Search for some of `N` images, from random points; return x, y, start, x_adv, margin."""
    x = torch.rand(N, 2, 9, 8, generator=torch.Generator().manual_seed(1))
    x = (x * 1.4 - 0.2).clamp(0, 1)
    y = model(x).argmax(1)
    start = random_point(x, threat, Noise(3, "start", tuple(range(N))))
    x, y, start, noise = x[rows], y[rows], start[rows], Noise(seed, "square", tuple(rows))
    return x, y, start, *square_search(model, x, y, start, threat, squares, noise)


def margin_of(model: Model, x: Tensor, y: Tensor) -> Tensor:
    logits = model(x).double()
    label = logits.gather(1, y[:, None])[:, 0]
    return label - logits.scatter(1, y[:, None], -torch.inf).amax(1)


@in_every_ball
def test_the_margin_never_rises_and_is_that_of_the_point(
    threat: Threat, small_net: MakeNet
) -> None:
    net = small_net(2).double().float()
    x, y, start, x_adv, margin = search(net, threat, list(range(N)), Squares(80))

    check_allowed(x, x_adv, threat)
    before = margin_of(net, start, y)
    torch.testing.assert_close(margin.double(), margin_of(net, x_adv, y), atol=1e-5, rtol=0)
    assert (margin <= before + 1e-6).all()
    assert (margin < before - 1e-3).sum() > N // 2


@pytest.mark.sampled(2)
@in_every_ball
def test_more_queries_never_leave_a_larger_margin(threat: Threat, small_net: MakeNet) -> None:
    # With one share throughout, the first queries of a longer search are those of a shorter one.
    net, rows = small_net(2), list(range(N))
    margins = [search(net, threat, rows, Squares(n, first_share=0.01))[4] for n in (1, 10, 60)]

    assert (margins[1] <= margins[0]).all()
    assert (margins[2] <= margins[1]).all()
    assert (margins[2] < margins[0]).any()


@in_every_ball
def test_a_point_without_a_margin_is_never_taken_for_a_nearer_one(
    threat: Threat, small_net: MakeNet
) -> None:
    """Called directly, outside the engine, which refuses NaN at once."""
    net, asked = small_net(2), [0]

    def failing(x: Tensor) -> Tensor:
        logits = net(x)
        asked[0] += 1
        return logits if asked[0] <= 2 else logits * torch.nan  # after the labels and the start

    _, _, start, x_adv, margin = search(failing, threat, list(range(N)), Squares(20))

    assert asked[0] > 10
    assert margin.isfinite().all()
    torch.testing.assert_close(x_adv, start.clamp(0, 1), rtol=0, atol=0)


@pytest.mark.sampled(2)
@in_every_ball
def test_an_image_does_not_depend_on_its_batch(threat: Threat, small_net: MakeNet) -> None:
    net, rows = small_net(2).double(), [5, 2, 6]

    def in_double(x: Tensor) -> Tensor:  # so that no sum hangs on the size of the batch
        return net(x.double())

    whole = search(in_double, threat, list(range(N)), Squares(60))
    some = search(in_double, threat, rows, Squares(60))

    torch.testing.assert_close(some[3], whole[3][rows], rtol=0, atol=1e-6)
    torch.testing.assert_close(some[4], whole[4][rows], rtol=0, atol=1e-6)


@pytest.mark.sampled(2)
@in_every_ball
def test_images_and_restarts_draw_squares_of_their_own(threat: Threat, small_net: MakeNet) -> None:
    net, squares = small_net(2), Squares(20)
    first = search(net, threat, [0, 1], squares)
    again = search(net, threat, [0, 1], squares)
    other = search(net, threat, [0, 1], Squares(20, restart=1))
    alike = torch.full((2, 1, 8, 8), 0.9)
    y, noise = torch.zeros(2, dtype=torch.int64), Noise(0, "square", (0, 1))

    def never(x: Tensor) -> Tensor:  # every change of an image is welcome
        score = (x * torch.linspace(0.5, 1.5, 64).view(8, 8)).flatten(1).sum(1)
        return torch.stack([score + 99, score * 0], 1)

    apart, _ = square_search(never, alike, y, alike, threat, Squares(3, 0.1), noise)

    assert torch.equal(first[3], again[3])
    assert not torch.equal(first[3], other[3])
    assert not torch.equal(apart[0], apart[1])


@in_every_ball
def test_a_start_that_is_broken_already_costs_one_forward(
    threat: Threat, small_net: MakeNet
) -> None:
    net, passes = small_net(2), Passes()
    x = torch.rand(3, 2, 9, 8, generator=torch.Generator().manual_seed(1))
    y = (net(x).argmax(1) + 1) % 5

    counted, noise = CountingModel(net, passes), Noise(0, "square", (0, 1, 2))
    x_adv, margin = square_search(counted, x, y, x, threat, Squares(50), noise)

    assert (passes.forwards, passes.backwards) == (3, 0)
    assert torch.equal(x_adv, x)
    assert (margin < 0).all()


@in_every_ball
def test_what_is_handed_in_is_left_alone(
    threat: Threat, small_net: MakeNet, global_generators: None
) -> None:
    net, noise = small_net(2), Noise(0, "square", tuple(range(N)))
    x = torch.rand(N, 2, 9, 8, generator=torch.Generator().manual_seed(1))
    y, start = net(x).argmax(1), x.clone()
    before = x.clone()

    x_adv, _ = square_search(net, x, y, start, threat, Squares(20), noise)
    x_adv += 1

    assert torch.equal(x, before)
    assert torch.equal(start, before)


@pytest.mark.parametrize("fields", [(0, 0.5), (10, 0.0), (10, 1.5)])
def test_squares_out_of_range_are_refused(fields: tuple[int, float]) -> None:
    with pytest.raises(SatbenchError, match=r"queries of 1 or more and first_share in \(0, 1\]"):
        Squares(*fields)
