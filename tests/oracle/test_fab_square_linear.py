"""FAB-T and Square against exact answers: for a linear two-class model all distances are known.

With logits (-s, s) and s = w·x + b, the boundary lies |s| / ‖w‖ away in the dual norm: ‖w‖₁ in
Linf, ‖w‖₂ in L2, the largest |w| in L1.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks.gradient.fab import FABT
from satbench.attacks.score.square import Square, Squares, square_search
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.ball import size
from satbench.engine.judge import broken

RATIOS = (0.05, 0.3, 0.7, 0.9, 0.985, 1.002, 1.05, 1.5)  # distances in units of eps
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}
LABELS = (0, 1)
in_every_ball = pytest.mark.parametrize("text", ["linf:0.05", "l2:0.1", "l1:0.3"])


class Linear(nn.Module):
    """Logits (-s, s) with s = w·x + b, computed in float64."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w.double(), b

    def forward(self, x: Tensor) -> Tensor:
        score = x.double().flatten(1) @ self.w + self.b
        return torch.stack([-score, score], 1).float()


def problem(
    w: Tensor, threat: Threat, shape: tuple[int, int, int]
) -> tuple[Linear, Tensor, Tensor]:
    """Return a model and images, of both classes, at `RATIOS` · eps; no pixel is near 0 or 1."""
    model = Linear(w, -0.5 * float(w.double().sum()))
    wanted = [(2 * label - 1) * ratio for ratio in RATIOS for label in LABELS]
    norm = torch.linalg.vector_norm(w.double(), DUAL[threat.norm])
    scores = torch.tensor(wanted, dtype=torch.float64) * threat.radius * norm
    x = 0.5 + scores[:, None] * w.double() / (w.double() ** 2).sum()
    y = torch.tensor([label for _ in RATIOS for label in LABELS])
    return model, x.float().view(-1, *shape), y


@in_every_ball
def test_fab_t_breaks_exactly_the_images_that_are_nearer_than_eps(text: str) -> None:
    threat, rng = Threat.parse(text), np.random.default_rng(0)
    # Weights spread over a decade, so that each norm has its own shortest way.
    w = torch.from_numpy(rng.choice([-1, 1], 48) * 10 ** rng.uniform(-0.5, 0.5, 48))
    model, x, y = problem(w, threat, (3, 4, 4))
    assert 0.05 < x.min()
    assert x.max() < 0.95

    x_adv = FABT(steps=30)(model, x, y, threat, Noise(0, "fab-t", ()))

    expected = [ratio < 1 for ratio in RATIOS for _ in LABELS]
    assert broken(model, x, x_adv, y, threat).tolist() == expected


@in_every_ball
def test_fab_t_finds_the_nearest_point_of_the_boundary(text: str) -> None:
    threat = Threat.parse(text)
    model, x, y = problem(torch.linspace(0.5, 1.5, 48), threat, (3, 4, 4))

    points = FABT(steps=20).nearest(model, x, y, threat.norm, Noise(0, "fab-t", ()))

    exact = threat.radius * torch.tensor([ratio for ratio in RATIOS for _ in LABELS]).double()
    assert (model(points).argmax(1) != y).all()
    share = size(points.double() - x.double(), threat) / exact
    assert 1 - 1e-5 < float(share.min())
    assert float(share.max()) < 1.01  # a step goes 5 % beyond the boundary, and is pulled back


@in_every_ball
def test_one_step_of_fab_t_ends_5_percent_beyond_the_boundary(text: str) -> None:
    threat = Threat.parse(text)
    model, x, y = problem(torch.linspace(0.5, 1.5, 48), threat, (3, 4, 4))

    x_adv = FABT(steps=1)(model, x, y, threat, Noise(0, "fab-t", ()))

    # One step goes 5 % beyond the boundary, where that is within eps.
    ratios = torch.tensor([ratio for ratio in RATIOS for _ in LABELS])
    wanted = torch.where(1.05 * ratios < 1, 1.05 * ratios * threat.radius, 0)
    torch.testing.assert_close(size(x_adv - x, threat).float(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.sampled(1)
@in_every_ball
def test_square_breaks_all_images_within_its_reach_and_none_beyond_eps(text: str) -> None:
    # Squares of AutoAttack's Square never start in the last row and column, and a bump does not
    # point in one direction only, so images near eps are out of its reach.
    threat = Threat.parse(text)
    model, x, y = problem(torch.ones(64), threat, (1, 8, 8))

    x_adv = Square(queries=600)(model, x, y, threat, Noise(0, "square", ()))

    fell = broken(model, x, x_adv, y, threat)
    ratios = torch.tensor([ratio for ratio in RATIOS for _ in LABELS])
    assert fell[ratios <= 0.3].all()
    assert not fell[ratios > 1].any()


def test_satbenchs_own_squares_break_exactly_the_images_that_are_nearer_than_eps() -> None:
    threat = Threat.parse("linf:0.05")
    w = torch.linspace(-1, 1, 16)
    model, x, y = problem(w, threat, (1, 4, 4))
    noise = Noise(0, "square", tuple(range(len(x))))

    x_adv, margin = square_search(
        model, x, y, x, threat, Squares(queries=400, first_share=0.1), noise
    )

    expected = [ratio < 1 for ratio in RATIOS for _ in LABELS]
    assert broken(model, x, x_adv, y, threat).tolist() == expected
    assert (margin < 0).tolist() == expected
    # The images that survive are at the corner of the ball that lowers the margin most.
    stay = ~torch.tensor(expected)
    corner = x - 0.05 * (2 * y - 1).view(-1, 1, 1, 1) * w.sign().view(1, 4, 4)
    torch.testing.assert_close(x_adv[stay], corner[stay])
