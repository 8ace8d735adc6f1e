from __future__ import annotations

import numpy as np
import pytest
import torch
from in_memory import Journal, Quiet, run_suite
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.attacks.suites.suite import parse_suite
from satbench.calling.logits import MASKED_LOGIT
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.searched import Searched

LINF = Threat.parse("linf:0.1")


def cost(attack: str, model: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int]:
    passes = Passes()
    noise = Noise(0, "passes", tuple(range(len(x))))
    parse_attack(attack)(CountingModel(model, passes), x, y, LINF, noise)
    return passes.forwards, passes.backwards


def grey(*means: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(means).view(-1, 1, 1, 1), torch.ones(len(means), dtype=torch.int64)


@pytest.mark.parametrize("start", ["uniform", "clean"])
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_pgd_with_keep_last_costs_a_forward_and_a_backward_per_step_and_image(
    steps: int, start: str, mean_model: nn.Module
) -> None:
    # One image that is broken at once, one later, one out of reach.
    x, y = grey(0.501, 0.55, 0.9)

    assert cost(f"pgd-{steps}(keep=last,start={start})", mean_model, x, y) == (3 * steps, 3 * steps)


def test_pgd_spends_no_pass_on_an_image_after_it_is_broken(mean_model: nn.Module) -> None:
    # Steps of 0.025 from the clean image: the first is broken after 1 step, the second after 3, and
    # one more forward and backward shows it.
    x, y = grey(0.51, 0.56, 0.9)

    assert cost("pgd-8(start=clean)", mean_model, x, y) == (2 + 4 + 8, 2 + 4 + 8)


def test_the_passes_of_an_image_do_not_depend_on_its_batch(mean_model: nn.Module) -> None:
    x, y = grey(0.51, 0.56, 0.9)
    attack = "pgd-8(start=clean,restarts=3)"
    alone = [cost(attack, mean_model, x[row : row + 1], y[row : row + 1]) for row in range(3)]

    assert cost(attack, mean_model, x, y) == (
        sum(forwards for forwards, _ in alone),
        sum(backwards for _, backwards in alone),
    )


def test_a_restart_costs_one_more_forward_to_find_the_survivors(mean_model: nn.Module) -> None:
    x, y = grey(0.9, 0.8)

    assert cost("pgd-4(restarts=3)", mean_model, x, y) == (2 * (3 * 4 + 2), 2 * 3 * 4)


def test_square_costs_only_forwards(mean_model: nn.Module) -> None:
    x, y = torch.full((3, 1, 8, 8), 0.9), torch.ones(3, dtype=torch.int64)

    # At most its queries, plus the image and the first squares; a square may change nothing.
    forwards, backwards = cost("square(queries=10)", mean_model, x, y)
    assert 3 * 2 < forwards <= 3 * (10 + 2)
    assert backwards == 0


def test_a_forward_without_gradient_counts_no_backward(mean_model: nn.Module) -> None:
    passes = Passes()
    CountingModel(mean_model, passes)(torch.rand(4, 1, 2, 2))

    assert passes == Passes(forwards=4, backwards=0)


def test_a_backward_counts_only_when_it_is_run(mean_model: nn.Module) -> None:
    passes = Passes()
    x = torch.rand(4, 1, 2, 2, requires_grad=True)
    logits = CountingModel(mean_model, passes)(x)
    before = passes.backwards
    logits.sum().backward()

    assert (before, passes.backwards) == (0, 4)


def test_counting_changes_neither_logits_nor_gradients(mean_model: nn.Module) -> None:
    x = torch.rand(4, 1, 2, 2, requires_grad=True)
    counted = CountingModel(mean_model, Passes())
    expected, got = mean_model(x), counted(x)

    assert torch.equal(got, expected)
    assert torch.equal(
        torch.autograd.grad(got[:, 0].sum(), x)[0], torch.autograd.grad(expected[:, 0].sum(), x)[0]
    )


def test_the_engine_records_only_the_passes_of_the_search(mean_model: nn.Module) -> None:
    pixels = np.full((7, 1, 2, 2), 0.9, np.float32)
    images, journal = Dataset("tensors", "user", pixels, np.ones(7, np.int64), 2), Journal()
    suite = parse_suite(["pgd-5(keep=last)"])
    run_suite(mean_model, images, LINF, suite, 0, 3, journal, Quiet())

    assert [(r.stage, r.forwards, r.backwards) for r in journal] == [
        (0, 3, 0),
        (0, 3, 0),
        (0, 1, 0),
        (1, 15, 15),
        (1, 15, 15),
        (1, 5, 5),
    ]


def test_a_masked_class_has_a_finite_logit_in_searches_of_copy_and_model() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    with torch.no_grad():
        net[2].bias[1] = -torch.inf
    copied, plain = Searched(net.eval().requires_grad_(False)), Searched(net)
    plain.stay_plain()
    x = torch.rand(3, 1, 4, 4)
    for asked, kind in ((copied, "folded"), (plain, "plain")):
        logits = CountingModel(asked, Passes())(x)

        assert asked.kind == kind
        assert logits[:, 1].tolist() == [MASKED_LOGIT] * 3
        assert torch.allclose(logits[:, ::2], net(x)[:, ::2])
